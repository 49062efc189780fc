"""Follows one running job: bounded output, deadline, disk watch, and its certain end."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from selfplay.errors import EXHAUSTED, SandboxError
from selfplay.sandbox.base import Quota

CHUNK = 1 << 16
WATCH_S = 0.25
KILL_GRACE_S = 60.0
MAX_OUT_ENTRIES = 4096
MIN_FREE = 512 << 20
PRESSURE = Path("/proc/pressure/cpu")
"""Where the kernel counts the time in which some process waited for a core (PSI)."""
MAX_EXTENSIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a job printed and why it ended; `stopped` names the exceeded disk bound, or ""."""

    output: bytes
    truncated: bool
    timed_out: bool
    stopped: str
    duration_s: float

    def annotated(self) -> bytes:
        """The output, with a last line that says which bound stopped the job."""
        if not self.stopped:
            return self.output
        return self.output + f"\n[sandbox] stopped: {self.stopped}\n".encode()


def collect(
    stream: int, gone: int, quota: Quota, kill: Callable[[], None], excess: Callable[[], str]
) -> Collected:
    """Read `stream` until the job's whole process tree is gone.

    stream   descriptor of the combined output; a job may close it early or leave it open
    gone     descriptor that becomes readable (or hangs up) when the last process has ended
    kill     called once, at the deadline or when `excess()` names an exceeded bound
    Output beyond `quota.output` is read and dropped, so that a chatty command still ends by itself.
    A job whose time was mostly other processes' gets as much again, at most `MAX_EXTENSIONS` times:
    a crowded machine is no verdict. `SandboxError` when the tree outlives its kill.
    """
    os.set_blocking(stream, False)
    poller = select.poll()
    poller.register(stream, select.POLLIN)
    poller.register(gone, select.POLLIN)
    output, truncated = bytearray(), False
    began = time.monotonic()
    deadline, next_watch = began + quota.timeout_s, began + WATCH_S
    timed_out, stopped, ended = False, "", False
    extensions, stalled = 0, stalled_s()
    while True:
        now = time.monotonic()
        if now >= deadline:
            if not (timed_out or stopped) and extensions < MAX_EXTENSIONS:
                starved = stalled_s() - stalled > (now - began) / 2
                if starved:
                    extensions, deadline = extensions + 1, deadline + quota.timeout_s
                    continue
            if timed_out or stopped:
                raise SandboxError(
                    f"a process tree did not end {KILL_GRACE_S:.0f} s after its kill"
                )
            timed_out, deadline = True, now + KILL_GRACE_S
            kill()
        elif now >= next_watch and not (timed_out or stopped):
            next_watch = now + WATCH_S
            stopped = excess()
            if stopped:
                deadline = now + KILL_GRACE_S
                kill()
        wait_s = max(0.0, min(deadline, next_watch if next_watch > now else deadline) - now)
        ready = dict(poller.poll(0 if ended else wait_s * 1000 + 1))
        ended = ended or gone in ready
        chunk = _read(stream) if ended or stream in ready else None
        if chunk:
            room = quota.output - len(output)
            truncated = truncated or len(chunk) > room
            output += chunk[:room] if room > 0 else b""
        elif ended:  # nobody is left to write: what was in the pipe has been read
            return Collected(
                output=bytes(output),
                truncated=truncated,
                timed_out=timed_out,
                stopped=stopped,
                duration_s=time.monotonic() - began,
            )
        elif chunk == b"":
            poller.unregister(stream)  # it would hang up at every poll


def stalled_s() -> float:
    """Seconds since boot in which some process waited for a core; 0 where nobody counts them."""
    try:
        return int(PRESSURE.read_text().split("total=", 1)[1].split(None, 1)[0]) / 1e6
    except (OSError, ValueError, IndexError):
        return 0.0


def _read(stream: int) -> bytes | None:
    """Next piece, b"" at the end, None when nothing is there."""
    try:
        return os.read(stream, CHUNK)
    except BlockingIOError:
        return None


class OutWatch:
    """Watches what one job puts on the disk behind its /out."""

    def __init__(self, out: Path, quota: Quota) -> None:
        self._out, self._quota = out, quota
        self._free = _free(out)

    def excess(self, first: int) -> str:
        """As `out_excess`; `first` is the pid of the job's first process.

        Files that are open and have no name are in no folder. They are looked for where the disk
        has lost more than the job may take: a job that filled it would else end as a fault of the
        machine, and those beside it with it.
        """
        bound = max(self._quota.output, self._quota.file_size)
        free = _free(self._out)
        lost = free < MIN_FREE or self._free - free > bound
        if lost and nameless_bytes(first, self._out) > bound:
            return "/out holds too many bytes in files without a name"
        return out_excess(self._out, self._quota)


def nameless_bytes(first: int, out: Path) -> int:
    """Bytes on the disk of `out` in files that have no name any more and that some process in the
    pid namespace of `first` has open or mapped."""
    device, found = out.stat().st_dev, dict[int, int]()
    with suppress(OSError):
        space = Path(f"/proc/{first}/ns/pid").stat().st_ino
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "ns/pid").stat().st_ino != space:
                    continue
                for kind in ("fd", "map_files"):
                    for file in (process / kind).iterdir():
                        with suppress(OSError):
                            status = file.stat()
                            plain = stat.S_ISREG(status.st_mode) and status.st_dev == device
                            if plain and not status.st_nlink:
                                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def _free(out: Path) -> int:
    """Bytes that are free on the disk behind /out."""
    disk = os.statvfs(out.parent)
    return disk.f_bavail * disk.f_frsize


def out_excess(out: Path, quota: Quota) -> str:
    """Names the bound that the files below /out exceed, "" while they are within bounds.

    `SandboxError` when the disk behind is nearly full or this machine cannot look: that is no
    verdict.
    """
    if _free(out) < MIN_FREE:
        raise SandboxError(f"less than {MIN_FREE >> 20} MiB are free on the disk of {out}")
    size, num_entries = 0, 0
    pending = [str(out)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    num_entries += 1
                    with suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    if size > max(quota.output, quota.file_size):
                        return "/out holds too many bytes"
                    if num_entries > MAX_OUT_ENTRIES:
                        return "/out holds too many files"
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:  # too deep or closed: what lies there could not be counted
            if error.errno in EXHAUSTED:
                raise SandboxError(f"files of a job cannot be counted: {error}") from error
            return f"/out holds a directory that cannot be read ({error.strerror})"
    return ""
