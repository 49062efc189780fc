"""Unpacking archives that strangers made."""

from __future__ import annotations

import logging
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from selfplay.errors import RepoError

log = logging.getLogger(__name__)
MAX_FILES, MAX_BYTES = 100_000, 4 << 30
"""Bounds on what one archive may unpack to."""
TRASH = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}


def extract(archive: Path, target: Path) -> None:
    """Unpack a .tar.gz or .zip into `target`, its one top directory stripped.

    Refused with `RepoError`: absolute names, names with .., links that leave the archive, devices,
    and more than `MAX_FILES` or `MAX_BYTES`. Left out: anything named .git, which could bring a
    configuration that git would execute.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        root = Path(scratch)
        try:
            if archive.name.endswith(".zip"):
                _unzip(archive, root)
            else:
                _untar(archive, root)
        except (tarfile.TarError, zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
            raise RepoError(f"{archive.name}: cannot be unpacked: {error}") from error
        tops = list(root.iterdir())
        if len(tops) == 1 and tops[0].is_dir() and not tops[0].is_symlink():
            root = tops[0]
        shutil.copytree(root, target, dirs_exist_ok=True, symlinks=True)
    drop_outward_links(target)


def extract_folder(archive: Path, target: Path) -> None:
    """Unpack the tar archive of one directory into `target`, .git and all.

    Left out: links that leave the directory, whatever is no file, and what tools leave behind.
    `RepoError` for names that leave it and beyond the bounds of `extract`.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        root = Path(scratch)
        try:
            with tarfile.open(archive) as tar:
                unpack_tar(tar, root, _folder_members(tar))
            (top,) = root.iterdir()
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise RepoError(f"{archive.name}: cannot be unpacked: {error}") from error
        top.rename(target)
    drop_outward_links(target)


def _folder_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    size, gone = 0, set[str]()
    for number, member in enumerate(tar):
        size += member.size
        _check_size(number + 1, size)
        path = PurePosixPath(member.name)
        taken = member.isfile() or member.isdir() or member.issym() or member.islnk()
        if member.issym():
            place = posixpath.normpath(path.parent / member.linkname)
            taken = not member.linkname.startswith("/") and place.split("/")[0] == path.parts[0]
        elif member.islnk():
            taken = member.linkname not in gone
        if taken and not TRASH & set(path.parts) and path.suffix != ".pyc":
            yield member
        else:
            gone.add(member.name)


def drop_outward_links(tree: Path) -> None:
    """Remove symbolic links that leave a tree: the host reads files there."""
    top = tree.resolve()
    for link in [path for path in tree.rglob("*") if path.is_symlink()]:
        try:
            inside = link.resolve().is_relative_to(top) and not link.readlink().is_absolute()
        except (OSError, RuntimeError):  # a loop
            inside = False
        if not inside:
            log.warning("left out: %s is a link out of its tree", link.relative_to(tree))
            link.unlink()


def _untar(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        unpack_tar(tar, target, _members(tar))


def unpack_tar(
    tar: tarfile.TarFile, target: Path, members: Iterable[tarfile.TarInfo] | None = None
) -> None:
    """`extractall` with the standard library's data filter, or the like of it before 3.11.4.

    There (Debian 12's own Python) only plain files, directories and links to names below their own
    folder are taken, with plain permissions and nobody's ownership.
    """
    chosen = tar if members is None else members
    if hasattr(tarfile, "data_filter"):
        tar.extractall(target, members=chosen, filter="data")
        return
    for member in chosen:
        path = PurePosixPath(member.name)
        link = PurePosixPath(member.linkname)
        inside = not any(p.is_absolute() or ".." in p.parts for p in (path, link))
        if not inside or not (member.isfile() or member.isdir() or member.issym()):
            raise ValueError(f"{member.name!r} is a link out of the archive, or a device")
        member.mode = (member.mode & 0o755) | 0o600 | (0o100 if member.isdir() else 0)
        member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
        tar.extract(member, target)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    size = 0
    for number, member in enumerate(tar):
        size += member.size
        _check_size(number + 1, size)
        if _wanted(member.name):
            yield member


def _unzip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
        _check_size(len(entries), sum(entry.file_size for entry in entries))
        for entry in entries:
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{entry.filename!r} is a link or a device")
            if _wanted(entry.filename):
                file.extract(entry, target)


def _check_size(num_files: int, size: int) -> None:
    if num_files > MAX_FILES or size > MAX_BYTES:
        raise ValueError(f"more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB")


def _wanted(name: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name!r} is not a path inside the archive")
    return ".git" not in {part.lower() for part in path.parts}
