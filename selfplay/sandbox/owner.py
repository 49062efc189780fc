"""Who owns a leftover: names that tell whether the process that made something is still alive."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

TOKEN = re.compile(r"(?P<space>\d+)-(?P<pid>\d+)-(?P<began>\d+)")


def owner_token() -> str:
    """`PLACE-PID-START_TIME` of this process: unique until the machine restarts."""
    return f"{_place()}-{os.getpid()}-{_began(os.getpid())}"


def is_abandoned(name: str) -> bool:
    """Whether `name` begins with the token of a process that is gone.

    Things of another pid namespace (another container on this machine) or of another machine that
    shares the folder are left alone: their processes cannot be seen from here.
    """
    match = TOKEN.match(name)
    if match is None or match["space"] != _place():
        return False
    return _began(int(match["pid"])) != match["began"]


def _place() -> str:
    """The machine's name and the pid namespace, whose number is the same on every machine."""
    space = Path("/proc/self/ns/pid").stat().st_ino
    return str(zlib.crc32(os.uname().nodename.encode()) << 32 | space)


def _began(pid: int) -> str | None:
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]
