"""Fix patches as agents, editors, terminals and settings of git hand them in: the same verdict as
git's own form. The inputs are small ones of our own after SWE-bench#345 and #652, SWE-agent#702,
mini-swe-agent#305, GitPython#2013, overcommit#388 and git-autofixup#2."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.bugs.grading.grade import NotResolved, fixed_layer, grade
from selfplay.bugs.patches.diffs import reverse_patch
from selfplay.bugs.patches.foreign import as_git_writes
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.types import SolveTask

FILES = {
    "src/a.py": "def f(x):\n    a = x\n\n    return a\n\n\ndef g():\n    return 1\n\n\n",
    "top.py": "x = 1\ny = 2\n",
    "src/windows.py": "x = 1\r\ny = 2\r\n",
}
CHANGES = {
    "src/a.py": ("return 1", "return 2"),
    "top.py": ("y = 2", "y = 3"),
    "src/windows.py": ("y = 2", "y = 3"),
}
NEW = "src/new.py"
FIXED = {
    **{path: text.replace(*CHANGES[path]) for path, text in FILES.items()},
    NEW: "z = 1\n",
}
DIRTY = (
    "diff --git a/sub b/sub\n--- a/sub\n+++ b/sub\n@@ -1 +1 @@\n"
    f"-Subproject commit {'1' * 40}\n+Subproject commit {'1' * 40}-dirty\n"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git work tree that holds the changes; what is committed is what patches are applied to."""
    place = tmp_path_factory.mktemp("foreign")
    for root in (place / "tree", place / "work"):
        for path, text in FILES.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(text.encode())
    git(place / "work", "init", "-q")
    git(place / "work", "add", "-A")
    git(place / "work", "commit", "-qm", "x")
    for path, text in FIXED.items():
        (place / "work" / path).write_bytes(text.encode())
    git(place / "work", "add", "-AN")
    return place / "tree"


def git(folder: Path, *argv: str) -> str:
    person = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.autocrlf=false")
    return subprocess.run(
        ["git", *person, *argv], cwd=folder, capture_output=True, check=True
    ).stdout.decode()


def with_setting(setting: str) -> Callable[[Path], str]:
    return lambda work: git(work, "-c", setting, "diff")


def changed(change: Callable[[str], str]) -> Callable[[Path], str]:
    return lambda work: change(git(work, "diff"))


def as_diff_writes(patch: str) -> str:
    """What `diff -u FILE.orig FILE` prints, for the files that were there before."""
    kept = []
    for part in patch.split("diff --git ")[1:]:
        lines = part.split("\n")
        if "--- /dev/null" not in lines:
            name = lines[2].removeprefix("--- a/").rstrip()
            date = "\t2026-01-01 00:00:00.000000000 +0000"
            lines[2:4] = [f"--- {name}.orig{date}", f"+++ {name}{date}"]
            kept += lines[2:-1]
    return "\n".join([*kept, ""])


PATCHES: dict[str, Callable[[Path], str]] = {
    "as git writes it": changed(str),
    "no prefixes": with_setting("diff.noprefix=true"),
    "other prefixes": with_setting("diff.mnemonicPrefix=true"),
    "colours": with_setting("color.ui=always"),
    "a terminal's line ends": changed(lambda p: p.replace("\r\n", "\n").replace("\n", "\r\n")),
    "the end cut off": lambda work: git(work, "diff", "--", "src/a.py").rstrip(),
    "each end cut off but of CRLF": changed(
        lambda p: "\n".join(line.rstrip(" ") for line in p.split("\n"))
    ),
    "modes of a group": changed(lambda p: p.replace("file mode 100644", "file mode 100664")),
    "a dirty submodule": changed(lambda p: p + DIRTY),
    "in a letter": changed(lambda p: f"Here it is:\n\n```diff\n{p}```\n\nThat is all.\n"),
    "git's warnings": changed(lambda p: f"warning: LF will be replaced\n{p}warning: CRLF\n"),
    "plain diff": changed(as_diff_writes),
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHES)
def test_a_fix_counts_in_whatever_form_it_comes(name: str, tree: Path) -> None:
    patch = PATCHES[name](tree.parent / "work")
    found = fixed_layer(tree, {}, patch)
    wanted = {path: text for path, text in FIXED.items() if Path(path).name in patch}
    assert {path: change.content for path, change in found.items()} == {
        path: text.encode() for path, text in wanted.items()
    }
    assert not any(change.executable for change in found.values())


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (" def g():", " def h():", "patch_does_not_apply"),
        ("src/a.py", "../a.py", "patch_malformed"),
        ("\n+    return 2", "", "patch_malformed"),
    ],
)
def test_what_a_patch_says_is_not_guessed(old: str, new: str, reason: str, tree: Path) -> None:
    """Other context, a path outside, and a hunk that lacks a change, with its end cut off."""
    patch = git(tree.parent / "work", "diff", "--", "src/a.py").rstrip()
    assert old in patch
    with pytest.raises(NotResolved, match=reason):
        fixed_layer(tree, {}, patch.replace(old, new))


@pytest.mark.parametrize("path", ["../up.py", "n" * 256, "d/" * 1500 + "a.py"], ids=str.__len__)
def test_paths_that_no_file_here_can_have(path: str, tree: Path) -> None:
    patch = f"--- {path}\n+++ {path}\n@@ -1 +1 @@\n-a\n+b\n"
    with pytest.raises(NotResolved, match="patch_malformed"):
        fixed_layer(tree, {}, patch)
    patch = f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+b\n"
    with pytest.raises(NotResolved, match="patch_malformed"):
        fixed_layer(tree, {}, patch)


LINES = st.sampled_from([
    "diff --git a/top.py b/top.py", "diff --git top.py top.py", "--- a/top.py", "+++ b/top.py",
    "--- top.py", "+++ top.py", "+++ ", "--- ", "@@ -1,2 +1,2 @@", "@@ -1 +1 @@", " x = 1",
    "-y = 2", "+y = 3", "", "\\ No newline at end of file", "new file mode 100664", "\x1b[1m", "\r",
])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(LINES, max_size=12), end=st.sampled_from(["\n", "\r\n"]))
def test_whatever_comes_is_applied_or_refused(lines: list[str], end: str, tree: Path) -> None:
    try:
        found = fixed_layer(tree, {}, end.join(lines))
    except NotResolved as refused:
        assert str(refused) in ("patch_malformed", "patch_does_not_apply")
    else:
        assert set(found) <= set(FILES)


def test_a_patch_of_git_stays_as_it_is(tree: Path) -> None:
    patch = git(tree.parent / "work", "diff")
    assert as_git_writes(patch, lambda path: (tree / path).is_file()) == patch


def test_such_a_fix_is_resolved(sum_task: SolveTask, runner: TestRunner) -> None:
    gold = reverse_patch(sum_task.artifact.bug_patch)
    for patch in (gold.replace("\n", "\r\n"), gold.replace(" a/", " ").replace(" b/", " ")):
        assert grade(sum_task, patch, runner).resolved
