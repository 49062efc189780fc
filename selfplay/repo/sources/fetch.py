"""Fetching: from a source to a plain tree, and a bare git history beside it."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from selfplay.errors import RepoError, UserError
from selfplay.repo.sources.archives import drop_outward_links, extract
from selfplay.repo.sources.git import check_out, git, write_config
from selfplay.repo.sources.pypi import download_sdist
from selfplay.repo.spec import GitSource, LocalSource, PypiSource, RepoSpec

log = logging.getLogger(__name__)
LEFT_OUT = (
    ".git", "__pycache__", "*.pyc", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis",
    ".tox", ".nox", "node_modules",
)  # fmt: skip
"""What is not taken from a plain directory; virtual environments neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A plain source tree without .git, and a bare repository with its past or None."""

    tree: Path
    history: Path | None


def fetch(spec: RepoSpec, folder: Path) -> Fetched:
    """Fetch into `folder/tree` and `folder/history.git`; images come through `repo.images`.

    Raises `RepoError` or `UserError`.
    """
    source = spec.source
    if isinstance(source, PypiSource):
        return _fetch_pypi(source, folder)
    if isinstance(source, GitSource):
        return _fetch_git(source.url, source.commit, folder)
    assert isinstance(source, LocalSource), "images are fetched by repo.images"
    return _fetch_local(source, folder)


def local_commit(path: Path) -> str | None:
    """HEAD of a git work tree or a bare repository, None for any other directory.

    Raises `UserError` without a commit.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such directory")
    if not (path / ".git").exists() and not _is_bare(path):
        return None
    try:
        return git("rev-parse", "--verify", "HEAD^{commit}", cwd=path).strip()
    except RepoError as error:
        raise UserError(
            f"{path}: a git repository whose HEAD is no commit ({error}): commit first, "
            "or name a directory without .git"
        ) from None


def _is_bare(path: Path) -> bool:
    """As git itself tells one: a HEAD beside objects and references."""
    return (path / "HEAD").is_file() and all((path / n).is_dir() for n in ("objects", "refs"))


def plain_files(path: Path) -> list[Path]:
    """Everything that is taken from a plain directory, sorted: files and links."""
    found: list[Path] = []
    for folder, folders, files in os.walk(path):
        here = Path(folder)
        skipped = _ignore(folder, [*folders, *files])
        linked = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(set(folders) - skipped - set(linked))
        found += [here / name for name in {*files, *linked} - skipped]
    return sorted(file for file in found if file.is_symlink() or file.is_file())


def _ignore(folder: str, names: list[str]) -> set[str]:
    ignored = shutil.ignore_patterns(*LEFT_OUT)(folder, names)
    return ignored | {name for name in names if (Path(folder) / name / "pyvenv.cfg").is_file()}


def _fetch_pypi(source: PypiSource, folder: Path) -> Fetched:
    tree = folder / "tree"
    extract(download_sdist(source.project, source.version, folder / "sdist"), tree)
    if not source.history:
        return Fetched(tree=tree, history=None)
    work, history = folder / "history", folder / "history.git"
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)
    for version in (*source.history, source.version):
        for entry in work.iterdir():
            if entry.name != ".git":
                linked = entry.is_symlink() or not entry.is_dir()
                entry.unlink() if linked else shutil.rmtree(entry)
        if version == source.version:
            shutil.copytree(tree, work, dirs_exist_ok=True, symlinks=True)
        else:
            extract(download_sdist(source.project, version, folder / "sdist"), work)
        git("add", "-A", "-f", cwd=work)
        git("commit", "-q", "--allow-empty", "-m", f"{source.project} {version}", cwd=work)
    (work / ".git").rename(history)
    git("config", "core.bare", "true", cwd=history)
    shutil.rmtree(work)
    return Fetched(tree=tree, history=history)


def _fetch_git(url: str, commit: str, folder: Path) -> Fetched:
    """Clone with the full history."""
    history, tree = folder / "history.git", folder / "tree"
    config = write_config(folder / "gitconfig")
    git("clone", "-q", "--bare", "--no-hardlinks", "--", url, str(history), config=config)
    try:
        git("update-ref", "--no-deref", "HEAD", f"{commit}^{{commit}}", cwd=history)
    except RepoError:
        raise RepoError(f"{url}: has no commit {commit} on any branch or tag") from None
    tree.mkdir()
    check_out(history, "HEAD", tree, folder / "index")
    config.unlink()
    drop_outward_links(tree)
    return Fetched(tree=tree, history=history)


def _fetch_local(source: LocalSource, folder: Path) -> Fetched:
    path = Path(source.path)
    commit = local_commit(path)
    if commit is not None:
        return _fetch_git(str(path), commit, folder)
    for file in plain_files(path):
        target = folder / "tree" / file.relative_to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target, follow_symlinks=False)
    (folder / "tree").mkdir(exist_ok=True)
    drop_outward_links(folder / "tree")
    return Fetched(tree=folder / "tree", history=None)
