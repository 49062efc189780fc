"""Fetching: from a source to a plain tree, and a bare git history beside it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from selfplay.errors import RepoError, UserError
from selfplay.repo.spec import GitSource, ImageSource, LocalSource, PypiSource, RepoSpec

log = logging.getLogger(__name__)
GIT_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "selfplay",
    "GIT_AUTHOR_EMAIL": "selfplay@localhost",
    "GIT_COMMITTER_NAME": "selfplay",
    "GIT_COMMITTER_EMAIL": "selfplay@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A plain source tree without .git, and a bare repository with its past or None."""

    tree: Path
    history: Path | None


def fetch(spec: RepoSpec, folder: Path) -> Fetched:
    """Fetch into `folder/tree` and `folder/history.git`. Raises `RepoError` or `UserError`."""
    source = spec.source
    if isinstance(source, PypiSource):
        return _fetch_pypi(source, folder)
    if isinstance(source, GitSource):
        return _fetch_git(source.url, source.commit, folder)
    if isinstance(source, LocalSource):
        return _fetch_local(source, folder)
    assert isinstance(source, ImageSource)
    raise UserError(
        f"repo={spec.name}: Docker image sources are not supported yet; use pypi, git or local"
    )


def git(*argv: str, cwd: Path | None = None) -> str:
    """Run git with a configuration of our own. Raises `RepoError` with its last line."""
    command = ["git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *argv]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **GIT_ENV},
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RepoError(f"git {argv[0]} failed: {reason[0]}")
    return done.stdout


def _fetch_pypi(source: PypiSource, folder: Path) -> Fetched:
    tree = folder / "tree"
    extract_sdist(download_sdist(source.project, source.version, folder / "sdist"), tree)
    if not source.history:
        return Fetched(tree=tree, history=None)
    work, history = folder / "history", folder / "history.git"
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)
    for version in (*source.history, source.version):
        for entry in work.iterdir():
            if entry.name != ".git":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if version == source.version:
            shutil.copytree(tree, work, dirs_exist_ok=True, symlinks=True)
        else:
            extract_sdist(download_sdist(source.project, version, folder / "sdist"), work)
        git("add", "-A", "-f", cwd=work)
        git("commit", "-q", "--allow-empty", "-m", f"{source.project} {version}", cwd=work)
    (work / ".git").rename(history)
    git("config", "core.bare", "true", cwd=history)
    shutil.rmtree(work)
    return Fetched(tree=tree, history=history)


def download_sdist(project: str, version: str, folder: Path) -> Path:
    """The source archive, through pip and so through the user's own package index."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "-d", scratch, f"{project}=={version}"],
            capture_output=True,
            text=True,
        )
        found = [p for p in Path(scratch).iterdir() if p.name.endswith((".tar.gz", ".zip"))]
        if done.returncode or not found:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RepoError(f"{project}=={version}: source archive not available: {reason}")
        return Path(shutil.move(found[0], folder / found[0].name))


def extract_sdist(archive: Path, target: Path) -> None:
    """Extract with the top directory stripped; links and paths that leave it are refused."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        try:
            if archive.name.endswith(".zip"):
                shutil.unpack_archive(archive, scratch, "zip")
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(scratch, filter="data")
        except (tarfile.TarError, OSError, ValueError) as error:
            raise RepoError(f"{archive.name}: cannot be extracted: {error}") from error
        tops = list(Path(scratch).iterdir())
        root = tops[0] if len(tops) == 1 and tops[0].is_dir() else Path(scratch)
        shutil.copytree(root, target, dirs_exist_ok=True, symlinks=True)


def _fetch_git(url: str, commit: str, folder: Path) -> Fetched:
    history, tree = folder / "history.git", folder / "tree"
    git("clone", "-q", "--bare", "--no-hardlinks", url, str(history))
    tree.mkdir()
    archive = folder / "tree.tar"
    git("archive", "-o", str(archive), commit, cwd=history)
    with tarfile.open(archive) as tar:
        tar.extractall(tree, filter="data")
    archive.unlink()
    git("update-ref", "HEAD", commit, cwd=history)
    return Fetched(tree=tree, history=history)


def _fetch_local(source: LocalSource, folder: Path) -> Fetched:
    path = Path(source.path)
    if not path.is_dir():
        raise UserError(f"{path}: no such directory")
    if (path / ".git").exists():
        commit = git("rev-parse", "HEAD", cwd=path).strip()
        return _fetch_git(str(path), commit, folder)
    ignore = shutil.ignore_patterns(".git", "__pycache__", "*.pyc", ".pytest_cache")
    shutil.copytree(path, folder / "tree", symlinks=True, ignore=ignore)
    return Fetched(tree=folder / "tree", history=None)
