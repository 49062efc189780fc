"""Containers that wait for their job: started ahead of time, off the critical path, used once.

`Blueprint` is what two jobs must share to take each other's container, `Channel` how the harness
and one container talk, `WarmWorkers` keeps a few started containers for each blueprint.
"""

from __future__ import annotations

import logging
import os
import re
import select
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Generic, Protocol, TypeVar

from selfplay.errors import SandboxError
from selfplay.sandbox.base import WORKDIR, Job
from selfplay.sandbox.host import sandbox_uid
from selfplay.sandbox.scratch import covered_paths, deleted_paths

log = logging.getLogger(__name__)
MAX_WAITING = 32
"""Waiting containers of all blueprints together; each holds a copy of its tree in memory."""
MAX_BLUEPRINTS = 64
ENTRY = f"""
exec 3>/sandbox/said >/sandbox/output 2>&1 || exit 1
cp -a /sandbox/below/tree/. {WORKDIR}/ || exit 1
echo waiting >&3
read -r go </sandbox/go || exit 1
exec </sandbox/stdin
. /sandbox/job
code=$?
echo "exit $code" >&3
exit $code
"""
"""The shell stays the container's first process, so that the command has ordinary signals; what it
starts dies with the shell. The harness holds the other end of `go`: when it dies, so does this."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What is fixed when a container is made. `tree_state` tells a tree from one rebuilt at the
    same place; sizes in bytes."""

    tree: Path
    tree_state: tuple[int, int]
    mounts: tuple[tuple[str, str], ...]
    path: str
    image: str | None
    memory: int
    num_processes: int
    limits: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, job: Job) -> Blueprint:
        """The blueprint of the containers that can run a job."""
        environment, quota = job.environment, job.quota
        try:
            status = environment.tree.stat()
        except OSError as error:
            raise SandboxError(f"the tree of a job is not there: {error}") from error
        own = ("nproc", "as", "cpu")  # bounds of the container; seconds come with the job
        return cls(
            tree=environment.tree,
            tree_state=(status.st_ino, status.st_mtime_ns),
            mounts=tuple(environment.mounts.items()),
            path=environment.path,
            image=environment.image,
            memory=quota.memory,
            num_processes=quota.num_processes,
            limits=tuple((n, v) for n, v in quota.limits().items() if n not in own),
        )


def job_script(job: Job) -> bytes:
    """The shell script that turns a waiting container into the job's: bounds, removed paths, layer,
    variables, command. Every word is quoted. `SandboxError` for words that no process can have."""
    removed = [*deleted_paths(job.layer), *covered_paths(job.environment.tree, job.layer)]
    variables = {**job.environment.variables, **job.variables}
    lines = [f"ulimit -t {job.quota.limits()['cpu']} || exit 1"]
    if removed:
        lines.append(f"rm -rf -- {_quoted(removed)} || exit 1")
    if job.layer:
        lines.append(f"cp -a /sandbox/layer/. {WORKDIR}/ || exit 1")
    lines.append("echo ready >&3 || exit 1")
    lines += [f"export {n}={_quoted([v])}" for n, v in variables.items() if VARIABLE.fullmatch(n)]
    become = "exec " if job.attach is not None else ""
    lines.append(f"{become}{_quoted(job.argv)} 3>&-\n")
    script = os.fsencode("\n".join(lines))
    if b"\0" in script:
        raise SandboxError("a command, a variable or a path of a job holds a zero byte")
    return script


def _quoted(words: Iterable[str]) -> str:
    # Quotes even where none are needed: no word may be taken for a keyword or an assignment.
    return " ".join("'" + word.replace("'", "'\"'\"'") + "'" for word in words)


class Channel:
    """The folder `place` that a container sees read-only at /sandbox, and its named pipes.

    output  combined output of the entry script and the command
    said    the entry script's words: waiting, ready, exit CODE
    go      the harness's word that the job is there
    below/  the original tree is mounted inside it until the container has its copy
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._fds: list[int] = []
        self._heard = b""
        (place / "below" / "tree").mkdir(parents=True)  # a mount point
        try:
            self.output = self._pipe("output", 0o200, os.O_RDONLY)
            self._said = self._pipe("said", 0o200, os.O_RDONLY)
            self._go = self._pipe("go", 0o400, os.O_RDWR)
        except OSError as error:
            self.close()
            raise SandboxError(f"no pipes for a container in {place}: {error}") from error
        place.chmod(0o755)

    def _pipe(self, name: str, mode: int, flags: int) -> int:
        path = self.place / name
        os.mkfifo(path)
        self._fds.append(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, sandbox_uid(), sandbox_uid())
        return self._fds[-1]

    def hear(self, timeout_s: float = 0.0) -> list[bytes]:
        """All lines said so far, after waiting for a new one for at most `timeout_s`."""
        if self._poll(timeout_s):
            with suppress(BlockingIOError):
                self._heard += os.read(self._said, 1 << 16)
        return self._heard.splitlines()

    def read_output(self) -> str:
        """The end of what was printed, for a message."""
        with suppress(BlockingIOError):
            return os.read(self.output, 1 << 16)[-400:].decode(errors="replace").strip()
        return ""

    def is_connected(self) -> bool:
        """Whether the entry script still runs."""
        return not any(event & select.POLLHUP for _, event in self._poll(0.0))

    def _poll(self, timeout_s: float) -> list[tuple[int, int]]:
        poller = select.poll()
        poller.register(self._said, select.POLLIN)
        return poller.poll(timeout_s * 1000)

    def shut_below(self) -> None:
        """Take the original tree, and the way to speak for the entry script, out of the command's
        reach: inside, the folder is read-only even for its owner."""
        (self.place / "below").chmod(0)
        (self.place / "said").unlink()

    def release(self, script: bytes, files: Path) -> None:
        """Hand over the job: its script, and `stdin` and perhaps `layer/` out of `files`."""
        (self.place / "job").write_bytes(script)
        for name in ("stdin", "layer"):
            if (files / name).exists():
                (files / name).rename(self.place / name)
        os.write(self._go, b"go\n")

    def close(self) -> None:
        """Close our ends; a container that still waits ends by itself. Idempotent."""
        while self._fds:
            os.close(self._fds.pop())
        with suppress(OSError):
            (self.place / "below").chmod(0o755)


class Worker(Protocol):
    """A started container, to be used once."""

    def is_waiting(self) -> bool:
        """Whether it can still take a job."""
        ...

    def remove(self) -> None:
        """Remove it with all it holds; never raises."""
        ...


W = TypeVar("W", bound=Worker)


@dataclass(slots=True)
class _Shelf(Generic[W]):
    num_uses: int = 0
    num_coming: int = 0
    waiting: deque[W] = field(default_factory=deque)


class WarmWorkers(Generic[W]):
    """Keeps up to `num_workers` waiting containers for each blueprint that is used repeatedly.

    The first job of a blueprint makes its own; each further one asks for one more to wait. The
    least recently used blueprints give theirs up when there are more than `MAX_WAITING`.
    """

    def __init__(self, start: Callable[[Blueprint], W], num_workers: int) -> None:
        self._start, self._num_workers = start, num_workers
        self._shelves: OrderedDict[Blueprint, _Shelf[W]] = OrderedDict()
        self._lock = Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="docker-workers")

    def take(self, blueprint: Blueprint) -> W:
        """A container that waits, or else a new one. `SandboxError` when none can be started."""
        while (worker := self._pop(blueprint)) is not None:
            if worker.is_waiting():
                break
            log.info("a waiting container has died; the next one is taken")
            self.discard(worker)
        self._order(blueprint)
        return worker or self._start(blueprint)

    def discard(self, worker: W) -> None:
        """Remove a container in the background."""
        with self._lock:
            if not self._closed:
                self._threads.submit(worker.remove)
                return
        worker.remove()

    def close(self) -> None:
        """Remove every container that waits and end the threads. Idempotent."""
        with self._lock:
            self._closed = True
            left = [worker for shelf in self._shelves.values() for worker in shelf.waiting]
            self._shelves.clear()
        self._threads.shutdown()
        for worker in left:
            worker.remove()

    def _pop(self, blueprint: Blueprint) -> W | None:
        with self._lock:
            shelf = self._shelves.get(blueprint)
            return shelf.waiting.popleft() if shelf and shelf.waiting else None

    def _order(self, blueprint: Blueprint) -> None:
        """Count a use; have the containers that are missing started."""
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            shelf = self._shelves.setdefault(blueprint, _Shelf())
            self._shelves.move_to_end(blueprint)
            shelf.num_uses += 1
            wanted = min(self._num_workers, shelf.num_uses - 1)
            for _ in range(wanted - len(shelf.waiting) - shelf.num_coming):
                shelf.num_coming += 1
                self._threads.submit(self._refill, blueprint, shelf)
            if len(self._shelves) > MAX_BLUEPRINTS:
                for worker in self._shelves.popitem(last=False)[1].waiting:
                    self._threads.submit(worker.remove)

    def _refill(self, blueprint: Blueprint, shelf: _Shelf[W]) -> None:
        """In a thread: start one container and put it where it waits."""
        worker = None
        with suppress(SandboxError):  # the next job meets the same fault and reports it
            if not self._closed:
                worker = self._start(blueprint)
        with self._lock:
            shelf.num_coming -= 1
            kept = worker is not None and self._shelves.get(blueprint) is shelf
            if worker is not None and kept:
                shelf.waiting.append(worker)
            surplus = self._surplus()
        if worker is not None and not kept:
            worker.remove()
        for old in surplus:
            old.remove()

    def _surplus(self) -> list[W]:
        """Take what is above `MAX_WAITING` off the least recently used shelves."""
        excess = sum(len(shelf.waiting) for shelf in self._shelves.values()) - MAX_WAITING
        taken: list[W] = []
        for shelf in self._shelves.values():
            while shelf.waiting and len(taken) < excess:
                taken.append(shelf.waiting.popleft())
        return taken
