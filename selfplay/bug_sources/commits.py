"""A repository at a commit of its past: where mined bugs live.

The original code of a mined bug is the state after its commit, without what the commit says about
itself in documents and change logs: those stay as they were before, so that they give nothing away.
Such a place is named `NAME@COMMIT` (the first 12 digits), wherever a repository's name may stand.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import git as gitpython

from selfplay.bugs.patches.paths import is_source_path, is_test_path
from selfplay.errors import RepoError, UserError
from selfplay.repo.dependencies.project import add_generated
from selfplay.repo.prepare import PreparedRepo, environment_for, prepare_tree
from selfplay.repo.sources.archives import drop_outward_links
from selfplay.repo.sources.git import CONFIG, git
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.types import FileChange

_NAME = re.compile(r"(?P<repo>.+)@(?P<commit>[0-9a-f]{7,40})")
_PLAIN = (0o100644, 0o100755)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit with one parent and the files that it changed.

    before    path -> content in the parent, None where the commit made the file
    after     path -> content in the commit, None where it deleted the file
    odd       paths that are links, submodules or the like
    """

    sha: str
    parent: str
    message: str
    before: Mapping[str, FileChange]
    after: Mapping[str, FileChange]
    odd: tuple[str, ...]

    @property
    def sources(self) -> list[str]:
        """Changed source files."""
        return [path for path in self.after if is_source_path(path)]

    @property
    def tests(self) -> list[str]:
        """Changed test files and their helpers."""
        return [path for path in self.after if is_test_path(path)]

    @property
    def documents(self) -> list[str]:
        """Whatever else it changed."""
        return [p for p in self.after if not is_test_path(p) and not is_source_path(p)]


def split_name(name: str) -> tuple[str, str | None]:
    """`NAME@COMMIT` -> (NAME, COMMIT); any other name -> (name, None)."""
    match = _NAME.fullmatch(name)
    return (match["repo"], match["commit"]) if match else (name, None)


def list_commits(prepared: PreparedRepo) -> list[str]:
    """Ids of the commits with one parent, newest first. `UserError` without a history."""
    history = _history(prepared)
    log = git("rev-list", "--no-merges", "--min-parents=1", "HEAD", cwd=history)
    return log.split()


def read_commit(prepared: PreparedRepo, sha: str) -> Commit:
    """One commit. Raises `RepoError` when the history holds none of that id."""
    with gitpython.Repo(_history(prepared), odbt=gitpython.GitCmdObjectDB) as repo:
        repo.git.update_environment(GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=os.devnull)
        repo.git.set_persistent_git_options(c=[f"{k}={v}" for k, v in CONFIG.items()])
        try:
            commit = repo.commit(sha)
            parent = commit.parents[0]
            diffs = parent.diff(commit, no_renames=True)
        except (ValueError, IndexError, gitpython.exc.GitError, gitpython.exc.BadName) as error:
            raise RepoError(f"{prepared.name}: no commit {sha} with a parent ({error})") from None
        before: dict[str, FileChange] = {}
        after: dict[str, FileChange] = {}
        odd: list[str] = []
        for diff in diffs:
            path = str(diff.b_path or diff.a_path)
            sides = [(diff.a_blob, diff.a_mode), (diff.b_blob, diff.b_mode)]
            if any(blob is not None and mode not in _PLAIN for blob, mode in sides):
                odd.append(path)
                continue
            before[path], after[path] = (_change(blob, mode) for blob, mode in sides)
        message = commit.message
        return Commit(
            sha=commit.hexsha,
            parent=parent.hexsha,
            message=message if isinstance(message, str) else message.decode(errors="replace"),
            before=before,
            after=after,
            odd=tuple(odd),
        )


def _change(blob: gitpython.Blob | None, mode: int | None) -> FileChange:
    if blob is None:
        return FileChange(content=None)
    return FileChange(content=blob.data_stream.read(), executable=mode == _PLAIN[1])


def commit_environment(prepared: PreparedRepo, commit: Commit) -> Environment:
    """The environment whose original tree is the commit's (made once, kept with the repository)."""
    folder = _folder(prepared, commit.sha)
    if not (folder / "tree").is_dir():
        _write_tree(prepared, commit, folder)
    digest = f"{prepared.environment.digest}@{commit.sha}"
    return environment_for(prepared.environment, folder / "tree", digest)


def at_commit(prepared: PreparedRepo, commit: str, sandbox: Sandbox) -> PreparedRepo:
    """The repository at a commit, with its tests discovered there. Raises `RepoError`."""
    found = read_commit(prepared, commit)
    environment = commit_environment(prepared, found)
    name = place_name(prepared.name, found.sha)
    spec = dataclasses.replace(prepared.spec, name=name)
    return prepare_tree(spec, environment, _folder(prepared, found.sha), sandbox)


def place_name(repo: str, sha: str) -> str:
    """`NAME@COMMIT` of a repository at a commit."""
    return f"{repo}@{sha[:12]}"


def _write_tree(prepared: PreparedRepo, commit: Commit, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    tree = partial / "tree"
    tree.mkdir(parents=True)
    history = _history(prepared)
    where = (f"--git-dir={history}", f"--work-tree={tree}")
    variables = {"GIT_INDEX_FILE": str(partial / "index")}
    git(*where, "read-tree", commit.sha, variables=variables)
    git(*where, "checkout-index", "-a", "-q", variables=variables)
    (partial / "index").unlink()
    for path in commit.documents:
        content = commit.before[path].content
        (tree / path).unlink(missing_ok=True)
        if content is not None:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)
    drop_outward_links(tree)
    add_generated(prepared.environment.tree.parent, tree)
    make_readable(partial)
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(partial)


def _folder(prepared: PreparedRepo, sha: str) -> Path:
    folder = prepared.environment.tree.parent / "commits"
    folder.mkdir(exist_ok=True)
    return folder / sha


def _history(prepared: PreparedRepo) -> Path:
    if prepared.history is None:
        raise UserError(
            f"repo={prepared.name}: has no git history; name a git work tree, a git source, or a "
            "PyPI source with `history:` (older releases)"
        )
    return prepared.history
