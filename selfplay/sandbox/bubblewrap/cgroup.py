"""Real bounds on memory and processes of a whole job, where the machine lets us make a cgroup.

Resource limits bind single processes (RLIMIT_AS) or only sometimes (RLIMIT_NPROC); a cgroup bounds
the tree, and the tmpfs pages that it fills. Versions 1 and 2 are known; without the right to make
one (an ordinary user, most containers), `find_controllers` is empty and the limits stay alone.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Quota
from selfplay.sandbox.owner import is_abandoned, owner_token

log = logging.getLogger(__name__)
FOLDER = "selfplay"
AT_ONCE = 4 << 20
"""Bytes below a bound at which the kernel may already refuse: a huge page is taken at once."""


class Cgroups:
    """Makes one cgroup for each job; `folders` are the parents (one of v2, or one for each of
    pids and memory in v1), empty where none can be made."""

    def __init__(self) -> None:
        self.folders = find_controllers()
        self._prefix = owner_token()
        self._numbers = itertools.count()
        for folder in self.folders:
            with suppress(OSError):  # another process may just remove it
                for entry in list(folder.iterdir()):
                    if entry.is_dir() and is_abandoned(entry.name):
                        _remove(entry)

    def close(self) -> None:
        """Remove the parents too, unless another process uses them or the kernel's root has them
        for all (v2)."""
        for folder in self.folders:
            if (folder / "tasks").exists():
                with suppress(OSError):
                    folder.rmdir()

    @contextmanager
    def job(self, quota: Quota) -> Iterator[list[Path]]:
        """Directories of one job's cgroups, with its bounds set; removed afterwards."""
        name = f"{self._prefix}-{next(self._numbers)}"
        made: list[Path] = []
        try:
            for folder in self.folders:
                try:
                    (folder / name).mkdir(parents=True)
                    made.append(folder / name)
                    _bound(folder / name, quota)
                except OSError as error:
                    log.warning("no cgroup bounds for a job: %s", error)
            yield made
        finally:
            for path in made:
                _remove(path)


@contextmanager
def born_in(folders: list[Path]) -> Iterator[None]:
    """Processes that this thread starts in the block begin their life in the given v1 cgroups.

    Only the calling thread moves there and back: that needs none of the kernel's global locks,
    whereas moving another process costs about 10 ms (an RCU grace period in each hierarchy).
    """
    tasks = [folder / "tasks" for folder in folders if (folder / "tasks").exists()]
    entered: list[Path] = []
    try:
        for file in tasks:
            file.write_text("0")
            entered.append(file.parents[2] / "tasks")  # where this process itself lives
        yield
    finally:
        for file in entered:
            file.write_text("0")


def enter(folders: list[Path], pid: int) -> None:
    """Move a process that has not forked yet into v2 cgroups (v1: see `born_in`)."""
    for folder in folders:
        if not (folder / "tasks").exists():
            (folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def entrances(folders: list[Path]) -> Iterator[list[int]]:
    """Descriptors through which a process that has the right of none of these cgroups enters them:
    it writes "0". The kernel asks who opened the file, and moving oneself is cheap."""
    fds: list[int] = []
    try:
        for folder in folders:
            tasks = folder / "tasks"
            file = tasks if tasks.exists() else folder / "cgroup.procs"
            fds.append(os.open(file, os.O_WRONLY | os.O_CLOEXEC))
        yield fds
    except OSError as error:
        raise SandboxError(f"cannot enter a cgroup: {error}") from error
    finally:
        for fd in fds:
            os.close(fd)


def ran_out_of_memory(folders: list[Path]) -> bool:
    """Whether the kernel killed a process of these cgroups for their own memory bound.

    Raises `SandboxError` where it killed one though the bound was never met: then it was the
    machine, or a cgroup above, that had no memory left.
    """
    for folder in folders:
        first, second = _counts(folder / "memory.oom_control"), _counts(folder / "memory.events")
        if not (first.get("oom_kill", 0) or second.get("oom_kill", 0)):
            continue
        met = bool(second.get("oom", 0))
        if first:  # version 1 of today's kernels does not count how often it was met
            peak, limit = (
                _counts(folder / f"memory.{name}_in_bytes").get("", 0)
                for name in ("max_usage", "limit")
            )
            met = peak > limit - AT_ONCE
        if not met:
            raise SandboxError("this machine ran out of memory, and a process of a job was ended")
        return True
    return False


def _counts(file: Path) -> dict[str, int]:
    """{name: count} of a cgroup's file, "" where a count has no name; {} where there is none."""
    with suppress(OSError, ValueError):
        lines = [line.rpartition(" ") for line in file.read_text().splitlines()]
        return {name: int(count) for name, _, count in lines}
    return {}


def find_controllers() -> list[Path]:
    """Parent directories in which cgroups with bounds can be made, [] where there is no right."""
    if os.geteuid() != 0:
        return []
    try:
        own = _own_paths()
        version1: dict[str, Path] = {}
        version2: Path | None = None
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
            mount = Path(fields[4])
            if kind == "cgroup":
                for controller in {"pids", "memory"}.intersection(options, own):
                    version1[controller] = mount / own[controller].removeprefix(fields[3]).strip(
                        "/"
                    )
            elif kind == "cgroup2":
                version2 = mount
        if len(version1) == 2:
            return [_version1(path) for path in sorted(set(version1.values()))]
        return [_version2(version2)] if version2 else []
    except OSError as error:
        log.debug("no cgroups: %s", error)
        return []


def _own_paths() -> dict[str, str]:
    """v1 controller -> path of the cgroup that this process lives in."""
    paths: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _version1(own: Path) -> Path:
    folder = own / FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def _version2(mount: Path) -> Path:
    folder = mount / FOLDER
    for place in (mount, folder):
        place.mkdir(exist_ok=True)
        enabled = (place / "cgroup.subtree_control").read_text().split()
        if not {"memory", "pids"} <= set(enabled):
            (place / "cgroup.subtree_control").write_text("+memory +pids")
    return folder


def _bound(path: Path, quota: Quota) -> None:
    bounds = {
        "pids.max": str(quota.num_processes),
        "memory.max": str(quota.memory),
        "memory.swap.max": "0",
        "memory.limit_in_bytes": str(quota.memory),
        "memory.memsw.limit_in_bytes": str(quota.memory),
    }
    for name, value in bounds.items():
        if (path / name).exists():
            (path / name).write_text(value)


def _kill_members(path: Path) -> None:
    with suppress(OSError):
        for pid in (path / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def _remove(path: Path) -> None:
    """Remove a cgroup whose processes are gone; the kernel may need a moment to notice. Whoever
    is still in it then (its sandbox was killed half made) is killed."""
    for attempt in range(200):
        with suppress(FileNotFoundError):
            try:
                path.rmdir()
            except OSError:
                if attempt % 20 == 19:
                    _kill_members(path)
                time.sleep(0.01)
                continue
        return
    log.warning("cgroup %s could not be removed", path)
