"""What a solver could read the answer from: the leak audit of a sealed tree.

Everything that it can read is searched (files, byte code, installed packages, build folders, git
objects) for left-overs, for the original content of changed files, and for the very lines that the
bug removed (docs/validation.md).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs.patches.diffs import parse_patch, touched_files
from selfplay.bugs.patches.layers import read_file
from selfplay.errors import InfrastructureError
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact

MIN_DISTINCTIVE = 16
"""Characters, blanks left out, from which a removed line is worth looking for."""
MAX_SEARCHED = 2 << 20
_FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
        *(".eggs", ".tox", ".nox", ".hypothesis", ".venv", "node_modules/.cache", "blib"),
    }
)
_SUFFIXES = (".pyc", ".pyo", ".orig", ".rej", ".diff.orig", ".patch.orig")
_ARTIFACT = frozenset({"bug_inject.diff", "test_weaken.diff"})
_SYSTEM = frozenset({"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"})
_BUILD = re.compile(r"^(build/(lib|bdist)[^/]*|dist)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What nobody may find in a sealed tree.

    contents    original content -> path of each file that the artifact changes
    lines       removed line -> its file: lines that the original holds exactly once, and that the
                bug does not write again
    """

    contents: Mapping[bytes, str]
    lines: Mapping[bytes, str]

    @classmethod
    def of(cls, tree: Path, artifact: BugArtifact) -> Secret:
        """The secret of an artifact on its original tree."""
        paths = (*touched_files(artifact.bug_patch), *touched_files(artifact.weakening_patch))
        contents = ((read_file(tree, {}, path), path) for path in paths)
        return cls(
            contents={c: path for c, path in contents if c and c.strip()},
            lines=_distinctive_lines(tree, artifact),
        )


def audit_leaks(environment: Environment, artifact: BugArtifact, dest: Path) -> list[str]:
    """What a solver in `dest` (with the environment's mounts) could read the answer from.

    Looks for more than one commit, remotes, reflogs, packs; left-overs and byte code; any file of
    the tree or of the mounted packages that still holds a changed file's original content or a
    line that the bug removed, and byte code of it outside the tree.
    """
    secret = Secret.of(environment.tree, artifact)
    leaks = tree_leaks(dest, secret)
    changed = touched_files(artifact.bug_patch)
    for source, inside in environment.mounts.items():
        folder = Path(source)
        if inside in _SYSTEM or not folder.is_dir():
            continue
        for path in list_files(folder):
            shown = f"{inside}/{path}"
            if path.endswith(".pyc") and _byte_code_of(path, changed):
                leaks.append(f"{shown}: byte code of the original")
            leaks += _told(folder / path, shown, secret)
    return leaks


def tree_leaks(dest: Path, secret: Secret) -> list[str]:
    """The same for the tree and its git repository alone."""
    leaks = _history_leaks(dest)
    for path in list_files(dest):
        if path.startswith(".git/"):
            continue
        if is_leaky(path):
            leaks.append(f"{path}: a left-over that may hold the original")
        leaks += _told(dest / path, path, secret)
    return leaks


def _distinctive_lines(tree: Path, artifact: BugArtifact) -> dict[bytes, str]:
    files = parse_patch(artifact.bug_patch)
    added = [_raw(line) for file in files for line in file.added]
    counts: dict[bytes, int] = {}
    names: dict[bytes, str] = {}
    for file in files:
        for line in map(_raw, file.removed):
            if len(b"".join(line.split())) >= MIN_DISTINCTIVE and not any(line in a for a in added):
                counts[line], names[line] = 0, file.old or file.new or ""
    for path in list_files(tree) if counts else ():
        if not is_leaky(path):
            content = _read(tree / path)
            for line in counts:
                counts[line] += content.count(line)
    return {line: names[line] for line, number in counts.items() if number == 1}


def _raw(line: str) -> bytes:
    return line.strip().encode("utf-8", "surrogateescape")


def _read(file: Path) -> bytes:
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_SEARCHED:
        return b""
    return file.read_bytes()


def _told(file: Path, shown: str, secret: Secret) -> list[str]:
    """What a file gives away."""
    content = _read(file)
    original = secret.contents.get(content)
    if original is not None:
        return [f"{shown}: holds the original of {original}"]
    found = next((line for line in secret.lines if line in content), None)
    if found is None:
        return []
    text = found.decode("utf-8", "replace")[:60]
    return [f"{shown}: holds a removed line of {secret.lines[found]}: {text}"]


def _byte_code_of(path: str, sources: Iterable[str]) -> bool:
    """Whether `.../pkg/mod.cpython-311.pyc` (or in `__pycache__`) belongs to `.../pkg/mod.py`."""
    parts = [part for part in path.split("/") if part != "__pycache__"]
    tail = "/".join(["", *parts[:-1], parts[-1].split(".", 1)[0]])
    names = (source.removesuffix(".py").removeprefix("src/") for source in sources)
    return any(tail.endswith(f"/{name}") for name in names)


def _history_leaks(dest: Path) -> list[str]:
    git = dest / ".git"
    if not git.exists():
        return []
    leaks: list[str] = []
    count = run_git(dest, "rev-list", "--all", "--count").strip()
    if count != "1":
        leaks.append(f".git: {count} commits")
    for name in ("logs", "packed-refs", "ORIG_HEAD", "FETCH_HEAD"):
        if (git / name).exists():
            leaks.append(f".git/{name}: left behind")
    if any((git / "objects" / "pack").glob("*.pack")):
        leaks.append(".git/objects/pack: packed objects")
    if run_git(dest, "remote").strip():
        leaks.append(".git: has a remote")
    unreachable = run_git(dest, "fsck", "--unreachable", "--no-reflogs", "--no-progress")
    if unreachable.strip():
        leaks.append(".git: unreachable objects")
    return leaks


def run_git(dest: Path, *arguments: str) -> str:
    """Git without configuration; the tree's files are ours, so that none of them is a program."""
    nowhere = str(dest.resolve().parent / "nowhere")
    date = "2000-01-01T00:00:00Z"
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": nowhere,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(dest.resolve().parent),
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
        "LC_ALL": "C",
    }
    command = ["git", "-c", "gc.auto=0", "-c", "core.fsmonitor=false", *arguments]
    try:
        result = subprocess.run(
            command, cwd=dest, env=environment, capture_output=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfrastructureError(f"git {arguments[0]} could not be run: {error}") from error
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip()
        raise InfrastructureError(f"git {arguments[0]} failed in {dest}: {reason}")
    return result.stdout.decode("utf-8", "surrogateescape")


def is_leaky(path: str) -> bool:
    parts = path.split("/")
    return (
        any(part in _FOLDERS for part in parts[:-1])
        or parts[-1].endswith(_SUFFIXES)
        or parts[-1] in _ARTIFACT
        or bool(_BUILD.match(path))
    )


def list_files(root: Path) -> list[str]:
    """Relative paths of all files and links below `root`."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        base = Path(folder).relative_to(root)
        found += [(base / name).as_posix() for name in (*files, *links)]
    return sorted(found)
