"""Patches: round trips on arbitrary bytes, and the refusal of everything that leaves the tree."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfplay.bugs.patches.diffs import parse_patch
from selfplay.bugs.patches.layers import (
    apply_patch,
    check_patch,
    make_patch,
    normal_layer,
    read_file,
    reverse_patch,
    touched_files,
)
from selfplay.errors import InfrastructureError, PatchError
from selfplay.repo.sources.git import git
from selfplay.types import FileChange, Layer

NAMES = ["a.py", "pkg/b.py", "pkg/deep/c d.txt", "é.py", 'quo"te\\.py', "tab\there", "sp ace/x y"]
NAMES += ["latin\udce9.py", "\udcff/\udcfe é.py"]  # not UTF-8
LINES = ["x = 1\n", "y\n", "\n", "  z\r\n", "\r\n", "-- a\n", "++ b\n", "@@ -1 +1 @@\n"]
LINES += ["diff --git a/x b/x\n", "\\ No newline at end of file\n", "\x0cfeed\n", "a\rb\n", "é\n"]
contents = st.builds(
    lambda lines, end: "".join(lines).encode() + end,
    st.lists(st.sampled_from(LINES), max_size=12),
    st.sampled_from([b"", b"", b"last", b"\xff\xfe", b"cr\r", b"nul\0"]),
)
files = st.one_of(
    st.just(FileChange(content=None)),
    st.builds(lambda c, x: FileChange(content=c, executable=x), contents, st.booleans()),
)
states = st.dictionaries(st.sampled_from(NAMES), files, max_size=4)
SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tree_of(folder: Path, layer: Layer) -> Path:
    for path, change in layer.items():
        if change.content is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(change.content)
            (folder / path).chmod(0o755 if change.executable else 0o644)
    return folder


@SLOW
@given(states, states, states)
def test_make_apply_and_reverse(original: Layer, below: Layer, above: Layer) -> None:
    with tempfile.TemporaryDirectory() as name:
        tree = tree_of(Path(name), original)
        below, above = normal_layer(tree, below), normal_layer(tree, above)
        patch = make_patch(tree, below, above)
        assert apply_patch(tree, below, patch) == above
        back = reverse_patch(patch)
        assert apply_patch(tree, above, back) == below
        assert set(touched_files(back)) == set(touched_files(patch))
        assert apply_patch(tree, below, reverse_patch(back)) == above
        assert (patch == "") == (below == above)


@SLOW
@given(states, states)
def test_our_patches_are_git_s_patches(original: Layer, above: Layer) -> None:
    """A user can apply them with plain `git apply` in a checkout."""
    with tempfile.TemporaryDirectory() as name:
        tree = tree_of(Path(name) / "tree", original)
        tree.mkdir(exist_ok=True)
        above = normal_layer(tree, above)
        patch = make_patch(tree, {}, above)
        if patch:
            raw = patch.encode("utf-8", "surrogateescape")
            subprocess.run(
                ["git", "apply", "--whitespace=nowarn", "-"], cwd=tree, input=raw, check=True
            )
        for path, change in above.items():
            file = tree / path
            assert (file.read_bytes() if file.exists() else None) == change.content


@SLOW
@given(st.text(max_size=200), st.sampled_from(["", "diff --git a/x b/x\n", "--- a/x\n+++ b/x\n"]))
def test_any_text_is_a_patch_or_a_patch_error(text: str, head: str) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(PatchError):
        apply_patch(Path(name), {}, head + text)


ADD_X = ("--- /dev/null", "+++ b/x", "@@ -0,0 +1 @@", "+/etc")


def git_diff(old: str, new: str, *lines: str) -> str:
    return f"diff --git {old} {new}\n" + "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    "patch",
    [
        "--- a/../up.py\n+++ b/../up.py\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b//etc/passwd\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b/./x\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b/.git/hooks/pre-commit\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b/sub/.GIT/config\n@@ -0,0 +1 @@\n+x\n",
        "--- /dev/null\n+++ b/.gitattributes\n@@ -0,0 +1 @@\n+* filter=x\n",
        "--- /dev/null\n+++ b/.gitmodules\n@@ -0,0 +1 @@\n+x\n",
        '--- /dev/null\n+++ "b/\\056\\056/x"\n@@ -0,0 +1 @@\n+x\n',
        git_diff("a/x", "b/x", "new file mode 120000", *ADD_X),
        git_diff("a/x", "b/x", "new file mode 160000", *ADD_X),
        git_diff("a/x", "b/../y", "similarity index 100%", "rename from x", "rename to ../y"),
        git_diff("a/x", "b/y", "similarity index 100%", "copy from x", "copy to y"),
        git_diff("a/x", "b/x", "GIT binary patch", "literal 1", "Ic${Nk00001", ""),
        "--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-x\n",
        "no diff at all",
    ],
)  # fmt: skip
def test_hostile_and_malformed_patches_are_refused(tmp_path: Path, patch: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/x").write_text("x\n")
    with pytest.raises(PatchError):
        apply_patch(tmp_path / "tree", {}, patch)
    assert [p.name for p in tmp_path.iterdir()] == ["tree"]


def test_headers_that_disagree_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x\n")
    lines = ["--- a/x", "+++ b/tests/test_x.py", "@@ -1 +1 @@", "-x", "+y"]
    with pytest.raises(PatchError):
        check_patch(git_diff("a/x", "b/x", *lines))


def test_fuzz_is_refused_and_offset_is_not(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("0\n1\n2\n3\n4\n5\n6\n7\n")
    patch = "--- a/x\n+++ b/x\n@@ -2,3 +2,3 @@\n 4\n-5\n+five\n 6\n"
    changed = apply_patch(tmp_path, {}, patch)["x"].content
    assert changed == b"0\n1\n2\n3\n4\nfive\n6\n7\n"
    with pytest.raises(PatchError, match="does not apply"):
        apply_patch(tmp_path, {}, patch.replace(" 4", " four"))


def test_last_line_without_newline_in_the_patch_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a\n")
    patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b"
    assert apply_patch(tmp_path, {}, patch)["x"].content == b"b\n"


def test_rename_and_its_reverse(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("a\nb\n")
    patch = git_diff(
        "a/old.py", "b/pkg/new.py", "similarity index 50%", "rename from old.py",
        "rename to pkg/new.py", "--- a/old.py", "+++ b/pkg/new.py",
        "@@ -1,2 +1,2 @@", " a", "-b", "+c",
    )  # fmt: skip
    layer = apply_patch(tmp_path, {}, patch)
    assert layer["old.py"].content is None
    assert layer["pkg/new.py"].content == b"a\nc\n"
    assert touched_files(patch) == ("old.py", "pkg/new.py")
    assert apply_patch(tmp_path, layer, reverse_patch(patch)) == {}


def test_mode_change_alone(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("x\n")
    patch = make_patch(tmp_path, {}, {"run.sh": FileChange(content=b"x\n", executable=True)})
    assert "new mode 100755" in patch
    layer = apply_patch(tmp_path, {}, patch)
    assert layer["run.sh"].executable
    assert apply_patch(tmp_path, layer, reverse_patch(patch)) == {}


def test_executable_bit_survives_an_edit(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("x\n")
    (tmp_path / "run.sh").chmod(0o755)
    layer = apply_patch(tmp_path, {}, "--- a/run.sh\n+++ b/run.sh\n@@ -1 +1 @@\n-x\n+y\n")
    assert layer == {"run.sh": FileChange(content=b"y\n", executable=True)}


@pytest.mark.parametrize("path", ["pkg", "x/below"])
def test_files_do_not_replace_directories(tmp_path: Path, path: str) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "x").write_text("a\n")
    with pytest.raises(PatchError, match="directory"):
        apply_patch(tmp_path, {}, f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n")


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to("../secret")
    (tree / "dir").symlink_to("..")
    assert read_file(tree, {}, "link") is None
    assert read_file(tree, {}, "dir/secret") is None
    with pytest.raises(PatchError):
        apply_patch(tree, {}, "--- a/link\n+++ b/link\n@@ -1 +1 @@\n-s\n+t\n")
    with pytest.raises(PatchError):
        apply_patch(tree, {}, "--- /dev/null\n+++ b/dir/new\n@@ -0,0 +1 @@\n+t\n")
    assert (tmp_path / "secret").read_text() == "s\n"


def test_git_runs_without_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration that would run programs or change bytes is not read."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[core]\n\tautocrlf = true\n\tfsmonitor = touch /tmp/owned\n"
        "[apply]\n\twhitespace = fix\n[diff]\n\texternal = false\n\tmnemonicPrefix = true\n"
    )
    for name, value in {
        "HOME": str(home),
        "GIT_DIR": str(tmp_path),
        "GIT_EXTERNAL_DIFF": "false",
    }.items():
        monkeypatch.setenv(name, value)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "x").write_bytes(b"a\r\nb  \n")
    above = {"x": FileChange(content=b"a\r\nc  \n")}
    patch = make_patch(tree, {}, above)
    assert patch.startswith("diff --git a/x b/x\n")
    assert apply_patch(tree, {}, patch) == above


def test_patch_inside_a_repository_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`git apply` below a repository's root skips files in silence unless it is kept apart."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "x").write_text("a\n")
    layer = apply_patch(tree, {}, "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")
    assert layer["x"].content == b"b\n"


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .rej, no .orig, in the tree or beside it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "x").write_text("a\n")
    with pytest.raises(PatchError):
        apply_patch(tree, {}, "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-b\n+c\n")
    assert list(scratch.iterdir()) == []
    assert list(tree.iterdir()) == [tree / "x"]


def test_name_that_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    patch = make_patch(tmp_path, {}, {"x b/y": FileChange(content=b"a\n")})
    with pytest.raises(PatchError):
        apply_patch(tmp_path, {}, patch)


def test_added_and_removed_lines() -> None:
    (file,) = parse_patch("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n")
    assert (file.added, file.removed, file.paths) == (["c"], ["b"], ("x",))


def test_speed(tmp_path: Path) -> None:
    """Well under 10 ms each on a quiet machine; the bound allows for a busy one."""
    (tmp_path / "x").write_text("".join(f"line {i}\n" for i in range(2000)))
    text = (tmp_path / "x").read_bytes().replace(b"line 1000\n", b"line one\n")
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        patch = make_patch(tmp_path, {}, {"x": FileChange(content=text)})
        apply_patch(tmp_path, {}, patch)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.1


def git_that(folder: Path, monkeypatch: pytest.MonkeyPatch, first: str, times: int) -> None:
    """The `git` of PATH does `first` that many times, and is the real one from then on."""
    real = shutil.which("git")
    folder.mkdir()
    script = f"#!/bin/sh\necho >>{folder}/calls\n"
    script += f'[ $(wc -l <{folder}/calls) -gt {times} ] && exec {real} "$@"\n{first}\n'
    (folder / "git").write_text(script)
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("kill -9 $$", r"git (apply|diff) was killed by signal 9"),
        ("echo 'fatal: sha1 file: No space left on device' >&2; exit 128", "No space left"),
        ("echo 'fatal: unable to create thread: Cannot allocate memory' >&2; exit 1", "allocate"),
    ],
)
def test_a_git_that_the_machine_ends_says_nothing_of_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, told: str
) -> None:
    """It was taken for a patch that does not apply: a reward of -1 that no answer earned."""
    tree = tree_of(tmp_path / "tree", {"x": FileChange(content=b"one\n")})
    above: Layer = {"x": FileChange(content=b"two\n")}
    patch = make_patch(tree, {}, above)
    with monkeypatch.context() as patched:
        git_that(tmp_path / "bin", patched, first, times=100)
        with pytest.raises(InfrastructureError, match=told):
            apply_patch(tree, {}, patch)
        with pytest.raises(InfrastructureError, match=told):
            make_patch(tree, {}, above)


def test_a_git_that_was_killed_once_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree_of(tmp_path / "tree", {"x": FileChange(content=b"one\n")})
    above: Layer = {"x": FileChange(content=b"two\n")}
    patch = make_patch(tree, {}, above)
    git_that(tmp_path / "bin", monkeypatch, "kill -9 $$", times=1)
    assert apply_patch(tree, {}, patch) == above
    assert len((tmp_path / "bin" / "calls").read_text()) == 2


def test_a_git_that_was_killed_in_the_middle_is_asked_again_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had written by then does not take the patch a second time."""
    tree = tree_of(tmp_path / "tree", {"x": FileChange(content=b"one\n")})
    above: Layer = {"x": FileChange(content=b"two\n")}
    patch = make_patch(tree, {}, above)
    git_that(tmp_path / "bin", monkeypatch, f'{shutil.which("git")} "$@"; kill -9 $$', times=1)
    assert apply_patch(tree, {}, patch) == above


def test_a_killed_git_says_nothing_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`RepoError` would drop a commit for good that nobody read."""
    git_that(tmp_path / "bin", monkeypatch, "kill -9 $$", times=1)
    with pytest.raises(InfrastructureError, match="git version was killed by signal 9") as caught:
        git("version")
    assert type(caught.value) is InfrastructureError
    assert git("version").startswith("git version")


def test_a_full_disk_is_no_fault_of_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tree = tree_of(tmp_path / "tree", {"x": FileChange(content=b"one\n")})
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InfrastructureError, match=r"scratch files of a patch: .*No space left"):
        make_patch(tree, {}, {"x": FileChange(content=b"two\n")})
