"""Patches and states: `git apply` and `git diff` on scratch copies of the touched files alone.

A state is a `Layer` above the original tree; the tree itself is never written. Layers that come
out of here are normal: a file that equals its original is absent, so that equal states are equal
mappings (and hit the same caches). Git runs outside any repository, with no configuration.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from selfplay.bugs.patches.diffs import (
    check_patch,
    check_path,
    inside_tree,
    parse_patch,
    reverse_patch,
    touched_files,
)
from selfplay.bugs.patches.line_ends import as_in_files, has_crlf
from selfplay.errors import EXHAUSTED, InfrastructureError, PatchError
from selfplay.types import FileChange, Layer

__all__ = [
    "apply_patch",
    "check_patch",
    "file_state",
    "make_patch",
    "normal_layer",
    "read_file",
    "reverse_patch",
    "touched_files",
]

GIT_TIMEOUT_S = 60.0
T = TypeVar("T")


def file_state(tree: Path, layer: Layer, path: str) -> FileChange:
    """Content and mode of one file in a state; content None when there is no such file.

    A symbolic link counts as no file, so that nothing outside the tree is ever read.
    """
    if path in layer:
        return layer[path]
    inside_tree(path)
    file = tree
    for part in path.split("/"):
        file = file / part
        if file.is_symlink():
            return FileChange(content=None)
    if not file.is_file():
        return FileChange(content=None)
    return FileChange(content=file.read_bytes(), executable=bool(file.stat().st_mode & 0o100))


def read_file(tree: Path, layer: Layer, path: str) -> bytes | None:
    """Content of one file in a state, None when it does not exist there."""
    return file_state(tree, layer, path).content


def normal_layer(tree: Path, layer: Layer) -> dict[str, FileChange]:
    """`layer` without the entries that equal the original tree."""
    return {path: change for path, change in layer.items() if file_state(tree, {}, path) != change}


def apply_patch(tree: Path, below: Layer, patch: str) -> Layer:
    """State `below` with `patch` applied: exact context, offsets allowed, no fuzz.

    What does not fit is tried once more with the line ends of the files (`line_ends`). Raises
    `PatchError` when the patch is malformed, leaves the tree, or does not fit.
    """
    if not patch.strip():
        return dict(below)
    try:
        return _anew_if_killed(lambda: _applied(tree, below, patch))
    except PatchError:
        crlf = {p for p in touched_files(patch) if has_crlf(read_file(tree, below, p))}
        ended = as_in_files(patch, crlf)
        if ended == patch:
            raise
        return _anew_if_killed(lambda: _applied(tree, below, ended))


def _applied(tree: Path, below: Layer, patch: str) -> Layer:
    files = parse_patch(patch)
    paths = list(dict.fromkeys(path for file in files for path in file.paths))
    _refuse_clashes(tree, below, [f.new for f in files if f.new is not None])
    with _scratch() as folder:
        scratch = folder / "tree"
        scratch.mkdir()
        for path in paths:
            _write(scratch, path, file_state(tree, below, path))
        text = patch if patch.endswith("\n") else patch + "\n"
        command = ["apply", "--whitespace=nowarn", "-p1", "-"]
        result = _git(command, scratch, text.encode("utf-8", "surrogateescape"))
        if result.returncode:
            reason = " ".join(result.stderr.decode(errors="replace").split())[:300]
            raise PatchError(f"patch: does not apply ({reason})")
        found = {path: file_state(scratch, {}, path) for path in paths}
        if _num_files(scratch) != sum(change.content is not None for change in found.values()):
            raise PatchError("patch: changes files that its headers do not name")
    return normal_layer(tree, {**below, **found})


def make_patch(tree: Path, below: Layer, above: Layer) -> str:
    """Git diff that leads from state `below` to state `above`; "" when they are equal."""
    changed: list[tuple[str, FileChange, FileChange]] = []
    for path in sorted({*below, *above}):
        old, new = file_state(tree, below, path), file_state(tree, above, path)
        if old != new and not (old.content is None and new.content is None):
            changed.append((check_path(path), old, new))
    return _anew_if_killed(lambda: _diff(changed)) if changed else ""


def _diff(changed: list[tuple[str, FileChange, FileChange]]) -> str:
    """Git diff of (path, before, after)."""
    with _scratch() as scratch:
        for side in ("a", "b"):
            (scratch / side).mkdir()
        for path, old, new in changed:
            _write(scratch / "a", path, old)
            _write(scratch / "b", path, new)
        options = ["--no-index", "--no-prefix", "--no-color", "--no-ext-diff", "--no-textconv"]
        options += ["--no-renames", "--text", "--full-index", "-U3", "--", "a", "b"]
        result = _git(["diff", *options], scratch)
        if result.returncode not in (0, 1):
            raise InfrastructureError(f"git diff failed: {result.stderr.decode(errors='replace')}")
    return _with_prefixes(result.stdout.decode("utf-8", "surrogateescape"))


def _with_prefixes(diff: str) -> str:
    """`--no-prefix` names a created file b/X on both sides of its header, a deleted one a/X."""
    lines = diff.split("\n")
    for i, line in enumerate(lines[:-1]):
        if line.startswith("diff --git "):
            half = len("diff --git ") + (len(line) - len("diff --git ")) // 2
            left, right = line[:half], line[half:]
            if lines[i + 1].startswith("new file mode "):
                left = left.replace("b/", "a/", 1)
            elif lines[i + 1].startswith("deleted file mode "):
                right = right.replace("a/", "b/", 1)
            lines[i] = left + right
    return "\n".join(lines)


def _refuse_clashes(tree: Path, below: Layer, created: Iterable[str]) -> None:
    """A file where a directory is, or below a file, fits in a scratch copy but not in the tree."""
    for path in created:
        file = tree / path
        if path not in below and file.is_dir():
            raise PatchError(f"path {path!r}: is a directory of the repository")
        for parent in list(Path(path).parents)[:-1]:
            name = parent.as_posix()
            if (tree / name).is_symlink() or read_file(tree, below, name) is not None:
                raise PatchError(f"path {path!r}: lies below {name!r}, which is not a directory")


class _Killed(InfrastructureError):
    """Git was ended from outside, and may have written a part of its work."""


def _anew_if_killed(act: Callable[[], T]) -> T:
    """Done once more, from the beginning, where git was killed."""
    try:
        return act()
    except _Killed:
        return act()


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for a while. Raises `InfrastructureError` where the machine has no room for it."""
    try:
        with tempfile.TemporaryDirectory(prefix="selfplay-patch-") as name:
            yield Path(name).resolve()
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        raise InfrastructureError(f"scratch files of a patch: {error}") from error


def _write(root: Path, path: str, change: FileChange) -> None:
    if change.content is None:
        return
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(change.content)
    file.chmod(0o755 if change.executable else 0o644)


def _num_files(root: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(root))


def _git(
    arguments: list[str], scratch: Path, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Git with no configuration, in a directory that belongs to no repository.

    Raises `InfrastructureError` where it says nothing about its input: it was not found, was
    killed, took too long, or the machine had no room.
    """
    git = shutil.which("git")
    if git is None:
        raise InfrastructureError("git was not found on PATH; install git")
    nowhere = str(scratch.parent / "nowhere")
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": nowhere,
        "XDG_CONFIG_HOME": nowhere,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(scratch.parent),
        "LC_ALL": "C",
    }
    settings = ["-c", "core.quotePath=false", "-c", "core.attributesFile=/dev/null"]
    try:
        done = subprocess.run(
            [git, *settings, *arguments],
            cwd=scratch,
            input=stdin,
            capture_output=True,
            env=environment,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfrastructureError(f"git {arguments[0]} could not be run: {error}") from error
    said = done.stderr.decode(errors="replace")
    if done.returncode < 0:
        raise _Killed(f"git {arguments[0]} was killed by signal {-done.returncode}")
    if done.returncode and any(os.strerror(number) in said for number in EXHAUSTED):
        raise InfrastructureError(f"git {arguments[0]}: {' '.join(said.split())[:300]}")
    return done
