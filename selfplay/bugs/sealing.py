"""The solver's tree: bug and weakening applied, history and every copy of the original removed.

Grading never reads it; it restores from the original tree (ssr.md section 5, pitfalls "Leaks").
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from selfplay.bugs.diffs import touched_files
from selfplay.bugs.patch import apply_patch, read_file
from selfplay.errors import InfrastructureError, UserError
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, FileChange, Layer

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


def sealed_layer(tree: Path, artifact: BugArtifact) -> Layer:
    """Original tree -> what the solver sees. Raises `PatchError` when a patch does not apply."""
    bug = apply_patch(tree, {}, artifact.bug_patch)
    sealed = dict(apply_patch(tree, bug, artifact.weakening_patch))
    for path in _files(tree):
        if _is_leaky(path):
            sealed[path] = FileChange(content=None)
    return sealed


def write_sealed_tree(environment: Environment, artifact: BugArtifact, dest: Path) -> None:
    """Write the solver's tree as a fresh git repository with one commit and no remote.

    `dest` must not exist or be empty. Raises `UserError` for the destination, `PatchError` for
    the patches, `InfrastructureError` when a leak is left or git fails.
    """
    if dest.exists() and any(dest.iterdir()):
        raise UserError(f"dest={dest}: is not empty; name a new directory")
    tree = environment.tree
    sealed = sealed_layer(tree, artifact)
    dest.mkdir(parents=True, exist_ok=True)
    for path in _files(tree):
        if path not in sealed:
            target = dest / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / path, target, follow_symlinks=False)
    for path, change in sealed.items():
        if change.content is not None:
            target = dest / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(change.content)
            target.chmod(0o755 if change.executable else 0o644)
    _commit(dest)
    leaks = _tree_leaks(dest, _originals(tree, artifact))
    if leaks:
        raise InfrastructureError(f"{dest}: the sealed tree leaks: {'; '.join(leaks[:5])}")


def sealed_environment(environment: Environment) -> Environment:
    """The environment for a solver that may look round: without the original's byte code."""
    folder = environment.variables.get("PYTHONPYCACHEPREFIX")
    if folder is None:
        return environment
    mounts = {host: inside for host, inside in environment.mounts.items() if inside != folder}
    variables = {k: v for k, v in environment.variables.items() if k != "PYTHONPYCACHEPREFIX"}
    digest = f"{environment.digest}-sealed"
    return replace(environment, mounts=mounts, variables=variables, digest=digest)


def audit_leaks(environment: Environment, artifact: BugArtifact, dest: Path) -> list[str]:
    """What a solver in `dest` (with the environment's mounts) could read the answer from.

    Looks for more than one commit, remotes, reflogs, packs; left-overs and byte code; any file of
    the tree or of the mounted packages that still holds a changed file's original content, and
    byte code of it outside the tree.
    """
    originals = _originals(environment.tree, artifact)
    leaks = _tree_leaks(dest, originals)
    secret = touched_files(artifact.bug_patch)
    for source, inside in environment.mounts.items():
        folder = Path(source)
        if inside in _SYSTEM or not folder.is_dir():
            continue
        for path in _files(folder):
            shown = f"{inside}/{path}"
            if path.endswith(".pyc") and _byte_code_of(path, secret):
                leaks.append(f"{shown}: byte code of the original")
            leaks += _copies(folder / path, shown, originals)
    return leaks


def _originals(tree: Path, artifact: BugArtifact) -> dict[bytes, str]:
    """{original content: path} of every file that the artifact changes."""
    paths = (*touched_files(artifact.bug_patch), *touched_files(artifact.weakening_patch))
    contents = ((read_file(tree, {}, path), path) for path in paths)
    return {content: path for content, path in contents if content and content.strip()}


def _tree_leaks(dest: Path, originals: dict[bytes, str]) -> list[str]:
    leaks = _history_leaks(dest)
    for path in _files(dest):
        if path.startswith(".git/"):
            continue
        if _is_leaky(path):
            leaks.append(f"{path}: a left-over that may hold the original")
        leaks += _copies(dest / path, path, originals)
    return leaks


def _byte_code_of(path: str, sources: Iterable[str]) -> bool:
    """Whether `.../pkg/mod.cpython-311.pyc` (or in `__pycache__`) belongs to `.../pkg/mod.py`."""
    parts = [part for part in path.split("/") if part != "__pycache__"]
    tail = "/".join(["", *parts[:-1], parts[-1].split(".", 1)[0]])
    names = (source.removesuffix(".py").removeprefix("src/") for source in sources)
    return any(tail.endswith(f"/{name}") for name in names)


def _copies(file: Path, shown: str, originals: dict[bytes, str]) -> list[str]:
    if file.is_symlink() or not file.is_file():
        return []
    if file.stat().st_size not in {len(content) for content in originals}:
        return []
    original = originals.get(file.read_bytes())
    return [f"{shown}: holds the original of {original}"] if original is not None else []


def _history_leaks(dest: Path) -> list[str]:
    git = dest / ".git"
    if not git.exists():
        return []
    leaks: list[str] = []
    count = _git(dest, "rev-list", "--all", "--count").strip()
    if count != "1":
        leaks.append(f".git: {count} commits")
    for name in ("logs", "packed-refs", "ORIG_HEAD", "FETCH_HEAD"):
        if (git / name).exists():
            leaks.append(f".git/{name}: left behind")
    if any((git / "objects" / "pack").glob("*.pack")):
        leaks.append(".git/objects/pack: packed objects")
    if _git(dest, "remote").strip():
        leaks.append(".git: has a remote")
    unreachable = _git(dest, "fsck", "--unreachable", "--no-reflogs", "--no-progress")
    if unreachable.strip():
        leaks.append(".git: unreachable objects")
    return leaks


def _commit(dest: Path) -> None:
    _git(dest, "init", "-q", "-b", "main", "--template=")
    _git(dest, "config", "core.logAllRefUpdates", "false")
    _git(dest, "add", "-A", "-f")
    author = ["-c", "user.name=selfplay", "-c", "user.email=selfplay@localhost"]
    _git(dest, *author, "commit", "-q", "--no-verify", "--no-gpg-sign", "-m", "Initial commit")


def _git(dest: Path, *arguments: str) -> str:
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


def _is_leaky(path: str) -> bool:
    parts = path.split("/")
    return (
        any(part in _FOLDERS for part in parts[:-1])
        or parts[-1].endswith(_SUFFIXES)
        or parts[-1] in _ARTIFACT
        or bool(_BUILD.match(path))
    )


def _files(root: Path) -> list[str]:
    """Relative paths of all files and links below `root`."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        base = Path(folder).relative_to(root)
        found += [(base / name).as_posix() for name in (*files, *links)]
    return sorted(found)
