"""What of the host a sandbox may see, and where prepared things are kept."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path

from selfplay.cache import cache_root
from selfplay.errors import UserError

SANDBOX_UID = 64738
"""Used when we are root: untrusted code and bwrap itself never run as uid 0 (bwrap started as
root leaves /proc/sys writable)."""

SYSTEM_DIRS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/mime.types", "/etc/localtime")


def sandbox_uid() -> int:
    """The unprivileged uid that sandboxes run under."""
    return SANDBOX_UID if os.geteuid() == 0 else os.geteuid()


def share_files() -> None:
    """As root, let sandboxes read what this process writes from now on: they run under another
    uid, for which a strict umask (027, 077) would lock the cache and what pip installs there."""
    if os.geteuid() == 0:
        os.umask(os.umask(0o077) & ~0o055)


def is_reachable(path: Path) -> bool:
    """Whether the sandbox's uid can enter every directory on the way to `path`."""
    if os.geteuid() != 0:
        return os.access(path, os.X_OK)
    places = (path, *path.parents)
    return all(
        status.st_mode & stat.S_IXOTH or status.st_uid == SANDBOX_UID
        for status in map(Path.stat, places)
    )


def check_reachable(path: Path) -> None:
    """`UserError` with the remedy where the sandbox's uid could not reach `path`."""
    if not is_reachable(path):
        raise UserError(
            f"{path} cannot be entered by the sandbox's user (uid {sandbox_uid()}): choose a "
            "SELFPLAY_CACHE outside private directories such as /root, or chmod o+x its parents"
        )


def make_readable(path: Path) -> None:
    """Give a tree to the sandbox's uid: owner may read and write, directories may be entered."""
    uid, root = sandbox_uid(), os.geteuid() == 0
    for folder, _, files in os.walk(path):
        for name in [".", *files]:
            entry = Path(folder) / name
            status = entry.lstat()
            if root and (status.st_uid, status.st_gid) != (uid, uid):
                os.lchown(entry, uid, uid)
            mode = stat.S_IMODE(status.st_mode)
            wanted = mode | (0o755 if stat.S_ISDIR(status.st_mode) else 0o644)
            if mode != wanted and not stat.S_ISLNK(status.st_mode):
                entry.chmod(wanted)


@cache
def host_mounts() -> dict[str, str]:
    """Read-only host path -> inside path: system directories and the interpreter that runs us.

    An interpreter that the sandbox's uid cannot reach (one under /root, say) is copied into the
    cache once and mounted at its own place.
    """
    mounts = {name: name for name in SYSTEM_DIRS + SYSTEM_FILES if Path(name).exists()}
    prefix = Path(sys.base_prefix)
    if not any(prefix.is_relative_to(name) for name in SYSTEM_DIRS):
        mounts[str(reachable_copy(prefix, "interpreters"))] = str(prefix)
    return mounts


def reachable_copy(path: Path, kind: str) -> Path:
    """`path` itself, or its copy below the cache's folder `kind` where the uid cannot reach it."""
    if is_reachable(path):
        return path
    copy = cache_root() / kind / str(path).strip("/").replace("/", "-")
    if not copy.is_dir():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=copy.parent))
        shutil.copytree(path, partial, symlinks=True, dirs_exist_ok=True)
        partial.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return copy
