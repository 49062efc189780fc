"""The tree of a mined bug: the state after its commit, without what gives it away.

Documents, change logs and the like (`commit_files`, kind "aside") are as they were before the
commit, and so are files that its tests do not need. Such a place is named `NAME@COMMIT` (the first
12 digits), wherever a repository's name may stand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from selfplay.bug_sources.commits import Commit, history_of, read_commit
from selfplay.bugs.leaks import added_lines, list_files
from selfplay.repo.dependencies.project import add_generated
from selfplay.repo.prepare import PreparedRepo, environment_for, prepare_tree
from selfplay.repo.sources.archives import drop_outward_links
from selfplay.repo.sources.git import check_out
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.types import BugArtifact

_NAME = re.compile(r"(?P<repo>.+)@(?P<commit>[0-9a-f]{7,64})")
TREE_VERSION = 4
"""Raised when the same commit gives another tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a mined bug lives: a commit, the one before it, and files that stay as they were there.

    base    "" for the commit's first parent
    """

    sha: str
    base: str = ""
    reverted: tuple[str, ...] = ()


def place_of(artifact: BugArtifact, commit: str) -> Place:
    """The place of a mined bug whose repository is named `NAME@commit`."""
    base, reverted = artifact.meta.get("base"), artifact.meta.get("reverted")
    return Place(
        sha=commit,
        base=base if isinstance(base, str) else "",
        reverted=tuple(map(str, reverted)) if isinstance(reverted, list | tuple) else (),
    )


def split_name(name: str) -> tuple[str, str | None]:
    """`NAME@COMMIT` -> (NAME, COMMIT); any other name -> (name, None)."""
    match = _NAME.fullmatch(name)
    return (match["repo"], match["commit"]) if match else (name, None)


def place_name(repo: str, sha: str) -> str:
    """`NAME@COMMIT` of a repository at a commit."""
    return f"{repo}@{sha[:12]}"


def commit_environment(
    prepared: PreparedRepo, commit: Commit, reverted: Iterable[str] = ()
) -> Environment:
    """The environment whose original tree is the commit's (made once, kept with the repository)."""
    folder = _folder(prepared, commit, reverted)
    if not (folder / "tree").is_dir():
        _write_tree(prepared, commit, folder, [*commit.of_kind("aside"), *reverted])
    digest = f"{prepared.environment.digest}@{folder.name}"
    return environment_for(prepared.environment, folder / "tree", digest)


def place_environment(prepared: PreparedRepo, place: Place) -> Environment:
    """The environment of a mined bug. Raises `RepoError` without its commits."""
    commit = read_commit(prepared, place.sha, place.base)
    return commit_environment(prepared, commit, place.reverted)


def at_place(prepared: PreparedRepo, place: Place, sandbox: Sandbox) -> PreparedRepo:
    """The repository at a place, with its tests discovered there. Raises `RepoError`."""
    commit = read_commit(prepared, place.sha, place.base)
    environment = commit_environment(prepared, commit, place.reverted)
    spec = dataclasses.replace(prepared.spec, name=place_name(prepared.name, commit.sha))
    return prepare_tree(spec, environment, environment.tree.parent, sandbox)


def told_lines(commit: Commit, tree: Path) -> dict[bytes, str]:
    """{line: file} of what a commit says of itself in files that stay as they were before it, as
    far as nothing that it left alone says the same."""
    told = added_lines(commit.before, commit.after, commit.of_kind("aside"))
    for path in list_files(tree) if told else ():
        if path not in commit.after and not (tree / path).is_symlink():
            content = (tree / path).read_bytes()
            told = {line: name for line, name in told.items() if line not in content}
    return told


def _write_tree(
    prepared: PreparedRepo, commit: Commit, folder: Path, reverted: Iterable[str]
) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    tree = partial / "tree"
    tree.mkdir(parents=True)
    check_out(history_of(prepared), commit.sha, tree, partial / "index")
    drop_outward_links(tree)
    for path in reverted:
        change = commit.before.get(path)
        if change is None or (tree / path).is_dir() or _behind_link(tree, path):
            continue
        (tree / path).unlink(missing_ok=True)
        if change.content is not None:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(change.content)
            (tree / path).chmod(0o755 if change.executable else 0o644)
    add_generated(prepared.environment.tree.parent, tree)
    make_readable(partial)
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(partial)


def _behind_link(tree: Path, path: str) -> bool:
    """Whether a folder on the way to a file is a link now: the file would lie somewhere else."""
    return any((tree / folder).is_symlink() for folder in Path(path).parents)


def _folder(prepared: PreparedRepo, commit: Commit, reverted: Iterable[str]) -> Path:
    folder = prepared.environment.tree.parent / "commits"
    folder.mkdir(exist_ok=True)
    words = [str(TREE_VERSION), commit.base, *reverted]
    key = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()
    return folder / f"{commit.sha}-{key[:12]}"
