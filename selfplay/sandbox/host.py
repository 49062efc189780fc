"""What of the host a sandbox may see, and where prepared things are kept."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from functools import cache
from pathlib import Path

SANDBOX_UID = 64738
"""Used when we are root: untrusted code and bwrap itself never run as uid 0 (bwrap started as
root leaves /proc/sys writable)."""

SYSTEM_DIRS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/mime.types", "/etc/localtime")


def cache_root() -> Path:
    """Where repositories, models and interpreters are kept; readable by the sandbox's uid."""
    chosen = os.environ.get("SELFPLAY_CACHE")
    if chosen:
        root = Path(chosen)
    elif os.geteuid() == 0:
        root = Path("/var/cache/selfplay")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        root = Path(base) / "selfplay"
    root.mkdir(parents=True, exist_ok=True)
    return root


def sandbox_uid() -> int:
    """The unprivileged uid that sandboxes run under."""
    return SANDBOX_UID if os.geteuid() == 0 else os.geteuid()


def make_readable(path: Path) -> None:
    """Give a tree to the sandbox's uid: owner may read and write, directories may be entered."""
    uid = sandbox_uid()
    for folder, _, files in os.walk(path):
        for name in [".", *files]:
            entry = Path(folder) / name
            if os.geteuid() == 0:
                os.lchown(entry, uid, uid)
            if not entry.is_symlink():
                mode = stat.S_IMODE(entry.stat().st_mode)
                entry.chmod(mode | (0o755 if entry.is_dir() else 0o644))


@cache
def host_mounts() -> dict[str, str]:
    """Read-only host path -> inside path: system directories and the interpreter that runs us.

    An interpreter that the sandbox's uid cannot reach (one under /root, say) is copied into the
    cache once and mounted at its own place.
    """
    mounts = {
        str(Path(name).resolve()): name for name in SYSTEM_DIRS + SYSTEM_FILES if Path(name).exists()
    }
    mounts = {name: name for name in SYSTEM_DIRS + SYSTEM_FILES if Path(name).exists()}
    prefix = Path(sys.base_prefix)
    if not any(prefix.is_relative_to(name) for name in SYSTEM_DIRS):
        mounts[str(_reachable_copy(prefix))] = str(prefix)
    return mounts


def _reachable_copy(prefix: Path) -> Path:
    if os.geteuid() != 0 or all(
        p.stat().st_mode & stat.S_IXOTH for p in (prefix, *prefix.parents)
    ):
        return prefix
    copy = cache_root() / "interpreters" / str(prefix).strip("/").replace("/", "-")
    if not copy.is_dir():
        partial = copy.with_name(f"{copy.name}.{os.getpid()}.tmp")
        shutil.copytree(prefix, partial, symlinks=True)
        try:
            partial.rename(copy)
        except OSError:
            shutil.rmtree(partial)
    return copy
