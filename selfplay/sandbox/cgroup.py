"""Real bounds on memory and processes of a whole job, where the machine lets us make a cgroup.

Resource limits bind single processes (RLIMIT_AS) or only sometimes (RLIMIT_NPROC); a cgroup bounds
the tree, and the tmpfs pages that it fills. Versions 1 and 2 are known; without the right to make
one (an ordinary user, most containers), `find_controllers` is empty and the limits stay alone.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selfplay.sandbox.base import Quota
from selfplay.sandbox.owner import is_abandoned, owner_token

log = logging.getLogger(__name__)
FOLDER = "selfplay"


class Cgroups:
    """Makes one cgroup for each job; `folders` are the parents (one of v2, or one for each of
    pids and memory in v1), empty where none can be made."""

    def __init__(self) -> None:
        self.folders = find_controllers()
        self._prefix = owner_token()
        self._numbers = itertools.count()
        for folder in self.folders:
            for entry in folder.iterdir():
                if entry.is_dir() and is_abandoned(entry.name):
                    _remove(entry)

    @contextmanager
    def job(self, quota: Quota) -> Iterator[list[Path]]:
        """Directories of one job's cgroups, with its bounds set; removed afterwards."""
        name = f"{self._prefix}-{next(self._numbers)}"
        made: list[Path] = []
        try:
            for folder in self.folders:
                try:
                    (folder / name).mkdir()
                    made.append(folder / name)
                    _bound(folder / name, quota)
                except OSError as error:
                    log.warning("no cgroup bounds for a job: %s", error)
            yield made
        finally:
            for path in made:
                _remove(path)


def enter(folders: list[Path], pid: int) -> None:
    """Move a process (that has not forked yet) into a job's cgroups."""
    for folder in folders:
        (folder / "cgroup.procs").write_text(str(pid))


def find_controllers() -> list[Path]:
    """Parent directories in which cgroups with bounds can be made, [] where there is no right."""
    if os.geteuid() != 0:
        return []
    try:
        lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        version1: dict[str, Path] = {}
        version2 = None
        for fields in lines:
            kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
            if kind == "cgroup":
                version1 |= {c: Path(fields[4]) for c in ("pids", "memory") if c in options}
            elif kind == "cgroup2":
                version2 = Path(fields[4])
        if len(version1) == 2:
            return [_version1(path) for path in sorted(set(version1.values()))]
        return [_version2(version2)] if version2 else []
    except OSError as error:
        log.debug("no cgroups: %s", error)
        return []


def _version1(mount: Path) -> Path:
    folder = mount / FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def _version2(mount: Path) -> Path:
    folder = mount / FOLDER
    wanted = {"memory", "pids"}
    for place in (mount, folder):
        place.mkdir(exist_ok=True)
        enabled = set((place / "cgroup.subtree_control").read_text().split())
        if not wanted <= enabled:
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


def _remove(path: Path) -> None:
    """Remove a cgroup whose processes are gone; the kernel may need a moment to notice."""
    for _ in range(50):
        with suppress(FileNotFoundError):
            try:
                path.rmdir()
            except OSError:
                time.sleep(0.01)
                continue
        return
    log.warning("cgroup %s could not be removed", path)
