"""Stray parts of a fix patch: what an agent leaves in its tree costs and gains it nothing."""

from __future__ import annotations

import pytest

from selfplay.bugs.patches.diffs import touched_files
from selfplay.bugs.patches.stray import usable_parts

FIX = (
    "diff --git a/pkg/a.py b/pkg/a.py\nindex 123..456 100644\n--- a/pkg/a.py\n+++ b/pkg/a.py\n"
    "@@ -1 +1,3 @@\n-x = 1\n+x = 2\n+GIT binary patch\n+new file mode 120000\n"
)


def part(path: str, *lines: str) -> str:
    return "\n".join([f"diff --git a/{path} b/{path}", *lines, ""])


STRAY = {
    "byte code": part("a.pyc", "new file mode 100644", "GIT binary patch", "literal 1", "IcX", ""),
    "binary, told alone": part("a.z", "index 1..2 100644", "Binary files a/a.z and b/a.z differ"),
    "a deleted binary": part(
        "a.z", "deleted file mode 100644", "index 1..0", "Binary files a/a.z and /dev/null differ"
    ),
    "a link": part(
        "l", "new file mode 120000", "--- /dev/null", "+++ b/l", "@@ -0,0 +1 @@", "+/etc/passwd",
        "\\ No newline at end of file",
    ),
    "another target of a link": part(
        "l", "index 1..2 120000", "--- a/l", "+++ b/l", "@@ -1 +1 @@", "-a", "+b"
    ),
    "a submodule": part(
        "sub", "new file mode 160000", "--- /dev/null", "+++ b/sub", "@@ -0,0 +1 @@", "+Subproject"
    ),
    "attributes": part(
        ".gitattributes", "new file mode 100644", "--- /dev/null", "+++ b/.gitattributes",
        "@@ -0,0 +1 @@", "+* text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
def test_stray_parts_are_cut_out(stray: str) -> None:
    for patch in (stray + FIX, FIX + stray, f"From 1234\nSubject: fix\n\n{stray}{FIX}"):
        assert touched_files(usable_parts(patch)) == ("pkg/a.py",)
    assert usable_parts(FIX + stray) == FIX
    assert usable_parts(stray) == stray  # refused as before


@pytest.mark.parametrize("patch", ["", FIX, "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "no patch"])
def test_other_patches_stay_as_they_are(patch: str) -> None:
    assert usable_parts(patch) == patch


def test_what_leaves_the_tree_is_not_cut_out() -> None:
    outside = part("../up.py", "--- a/../up.py", "+++ b/../up.py", "@@ -0,0 +1 @@", "+x")
    assert outside in usable_parts(FIX + outside)
