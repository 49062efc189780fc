"""Releases on a package index: their source archives, saved and not run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from selfplay.errors import RepoError
from selfplay.repo.dependencies.pip import run_python


def download_sdist(project: str, version: str, folder: Path) -> Path:
    """The source archive of a release, in `folder`; nothing of it is run. Raises `RepoError`."""
    folder.mkdir(exist_ok=True)
    requirement = f"{project}=={version}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        argv = ["-P", str(Path(__file__).with_name("sdist.py")), project, version, scratch]
        try:
            run_python(argv)
        except RepoError as error:
            raise RepoError(f"{requirement}: source archive not available: {error}") from None
        found = [p for p in Path(scratch).iterdir() if p.name.endswith((".tar.gz", ".zip"))]
        if not found:
            raise RepoError(f"{requirement}: the package index has no source archive of it")
        return Path(shutil.move(found[0], folder / found[0].name))
