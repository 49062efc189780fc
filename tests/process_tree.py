"""The processes below one, for tests that kill some of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def processes_below(pid: int) -> Iterator[int]:
    """Children, and theirs."""
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, thread.read_text().split()):
                yield child
                yield from processes_below(child)


def command_of(pid: int) -> bytes:
    """Its words, blanks between them; b"" for one that is gone."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""
