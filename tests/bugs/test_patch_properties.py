"""Properties of patches with many hunks, and of those that git itself writes: renames and modes."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfplay.bugs.patches.diffs import parse_patch, reverse_hunks
from selfplay.bugs.patches.layers import (
    apply_patch,
    make_patch,
    normal_layer,
    read_file,
    reverse_patch,
)
from selfplay.errors import PatchError
from selfplay.types import FileChange, Layer

from .test_patch import LINES, NAMES, states, tree_of

FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Edit = tuple[int, str, str]
edits = st.lists(
    st.tuples(st.integers(0, 79), st.sampled_from(["insert", "delete", "replace"]),
              st.sampled_from([*LINES, "new\n"])),
    max_size=6,
)  # fmt: skip
ends = st.sampled_from([b"", b"last", b"\xff\xfe", b"cr\r", b"nul\0"])
ONE_OF = st.sampled_from(NAMES)


def long_file(number: int, end: bytes) -> bytes:
    """Eighty lines that are all different, some with odd endings."""
    draw = random.Random(number)
    odd = ["\n", "\n", "\r\n", " \n"]
    return "".join(f"line {i} of {number}{draw.choice(odd)}" for i in range(80)).encode() + end


def with_edits(content: bytes, changes: list[Edit]) -> bytes:
    """A file with single lines inserted, deleted or replaced."""
    lines = content.split(b"\n")
    for position, kind, text in sorted(changes, reverse=True):
        new = [text.removesuffix("\n").encode()]
        lines[position : position + (kind != "insert")] = [] if kind == "delete" else new
    return b"\n".join(lines)


@FEW
@given(ONE_OF, st.integers(0, 9), ends, ends, edits, st.booleans())
def test_each_hunk_can_be_undone_alone(
    path: str, number: int, end: bytes, other_end: bytes, changes: list[Edit], executable: bool
) -> None:
    """One after the other, in whatever order, they are the reverse of the whole content."""
    with tempfile.TemporaryDirectory() as name:
        before = long_file(number, end)
        tree = tree_of(Path(name), {path: FileChange(content=before)})
        after = with_edits(long_file(number, other_end), changes)
        above = normal_layer(tree, {path: FileChange(content=after, executable=executable)})
        patch = make_patch(tree, {}, above)
        hunks = [hunk for file in parse_patch(patch) for hunk in file.hunks]
        split = list(reverse_hunks(patch))
        assert len(split) == (len(hunks) if len(hunks) > 1 else 0)
        for _, undo in split:
            assert apply_patch(tree, above, undo)[path].content not in (before, after)
        state: Layer = above
        for _, undo in reversed(split):
            state = apply_patch(tree, state, undo)
        if split:
            assert read_file(tree, state, path) == before
        assert apply_patch(tree, above, reverse_patch(patch)) == {}


@FEW
@given(states, states, st.randoms(use_true_random=False))
def test_files_of_a_patch_can_be_applied_one_by_one(
    original: Layer, above: Layer, order: random.Random
) -> None:
    """A patch falls apart at its headers; the parts fit in any order, and only once."""
    with tempfile.TemporaryDirectory() as name:
        tree = tree_of(Path(name), original)
        above = normal_layer(tree, above)
        patch = make_patch(tree, {}, above)
        parts = [f"diff --git {part}" for part in ("\n" + patch).split("\ndiff --git ")[1:]]
        parts = [part if part.endswith("\n") else f"{part}\n" for part in parts]
        assert "".join(parts) == patch
        assert [len(parse_patch(part)) for part in parts] == [1] * len(above)
        order.shuffle(parts)
        state: Layer = {}
        for part in parts:
            state = apply_patch(tree, state, part)
        assert state == above
        created = [path for path in above if read_file(tree, {}, path) is None]
        if created:
            with pytest.raises(PatchError):
                apply_patch(tree, above, patch)
        assert apply_patch(tree, {}, patch) == above


def git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout


def files_of(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """{path: (content, executable)} of a work tree."""
    paths = [p for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts]
    return {
        p.relative_to(folder).as_posix(): (p.read_bytes(), os.access(p, os.X_OK)) for p in paths
    }


@FEW
@given(
    st.lists(ONE_OF, min_size=2, max_size=4, unique=True),
    edits,
    ends,
    st.booleans(),
    st.sampled_from(["true", "false"]),
)
def test_patches_of_git_with_renames_and_modes(
    names: list[str], changes: list[Edit], end: bytes, executable: bool, quote: str
) -> None:
    """The first file is renamed to the last name and edited; the others change as well."""
    with tempfile.TemporaryDirectory() as name:
        old, *others, new = names
        start: Layer = {old: FileChange(content=long_file(1, end))}
        start = {**start, **{p: FileChange(content=long_file(2 + i, b""), executable=executable)
                             for i, p in enumerate(others)}}  # fmt: skip
        tree = tree_of(Path(name), start)
        git(tree, "init", "-q")
        git(tree, "add", "-A", "-f")
        git(tree, "commit", "-q", "-m", "before")
        before = files_of(tree)
        (tree / old).unlink()
        after = {new: FileChange(content=with_edits(long_file(1, end), changes), executable=True)}
        after |= {p: FileChange(content=long_file(2 + i, end)) for i, p in enumerate(others)}
        tree_of(tree, after)
        git(tree, "add", "-A", "-f")
        raw = git(tree, "-c", f"core.quotePath={quote}", "diff", "--cached", "-M", "--text", "HEAD")
        patch = raw.decode("utf-8", "surrogateescape")
        assert "rename from " in patch
        wanted = files_of(tree)
        git(tree, "reset", "-q", "--hard")
        assert files_of(tree) == before
        layer = apply_patch(tree, {}, patch)
        found = {p: (c.content, c.executable) for p, c in layer.items() if c.content is not None}
        kept = {p: before[p] for p in before if p not in layer}
        assert {**kept, **found} == wanted
        back = reverse_patch(patch)
        assert apply_patch(tree, layer, back) == {}
        assert apply_patch(tree, {}, reverse_patch(back)) == layer
