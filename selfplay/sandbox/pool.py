"""Many sandboxes at once, without oversubscribing the cores."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from selfplay.errors import SandboxError
from selfplay.placement import num_cores
from selfplay.sandbox.base import Job, RunResult, Sandbox
from selfplay.sandbox.processes import Processes
from selfplay.sandbox.workers import Workers

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)

KILLED = {128 + signal.SIGKILL, 128 + signal.SIGTERM}
"""Exit codes of a command that was ended by a signal which the machine's keepers send, too."""
LOOK_AHEAD = 8
"""Items for each worker that `imap` begins before the first of them is done."""


class RetryingSandbox:
    """Repeats a job once when the sandbox itself failed; `num_retries` counts these.

    So with a command that was killed, and by none of the sandbox's bounds: who did it cannot be
    seen, but what kills itself does so again, and what the machine killed hardly ever.
    """

    def __init__(self, inner: Sandbox) -> None:
        self.inner = inner
        self.name = inner.name
        self.num_retries = 0

    def run(self, job: Job) -> RunResult:
        """Like `Sandbox.run`; the second failure is raised."""
        try:
            result = self.inner.run(job)
            if result.exit_code not in KILLED or result.stopped:
                return result
            log.info("a command was killed (exit %s), trying once more", result.exit_code)
        except SandboxError as error:
            log.warning("sandbox failed, trying once more: %s", error)
        self.num_retries += 1
        return self.inner.run(job)

    def close(self) -> None:
        """Close the sandbox behind."""
        self.inner.close()


class SandboxPool:
    """`map` runs a function over items in `num_workers` threads, results in order; `waited_s` are
    the seconds that its callers spent in it, added up where several call at once. `processes` are
    those that take work off this one, if any; the pool closes them. `num_slots` tells how many may
    run by now, where a cluster grows."""

    def __init__(
        self,
        sandbox: Sandbox,
        num_workers: int | None = None,
        processes: Processes | None = None,
        num_slots: Callable[[], int] | None = None,
    ) -> None:
        self._num_slots = num_slots
        self.processes = processes
        self.sandbox: Sandbox = RetryingSandbox(sandbox)
        self.waited_s = 0.0
        self._queued: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._threads = Workers(num_workers or num_cores(), "sandbox")

    @property
    def num_workers(self) -> int:
        """Items that are worked on at once."""
        return self._threads.limit

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Ordered results; the first exception is raised and what has not begun is dropped."""
        began = time.monotonic()
        self._grow()
        futures = [self._threads.submit(function, item) for item in items]
        with self._lock:
            self._queued.update(futures)
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            with self._lock:
                self.waited_s += time.monotonic() - began
                self._queued.difference_update(futures)

    def _grow(self) -> None:
        """More workers, where nodes have joined."""
        if self._num_slots is not None:
            self._threads.grow(self._num_slots())

    def use(self) -> tuple[int, int]:
        """(workers that are busy for `map`, all workers)."""
        with self._lock:
            return sum(future.running() for future in self._queued), self.num_workers

    def drop_waiting(self) -> None:
        """What `map` has not begun is cancelled: its callers get `CancelledError`."""
        with self._lock:
            queued = list(self._queued)
        for future in queued:
            future.cancel()

    def imap(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Like `map` for endless `items`: a few are begun ahead of the one that is waited for.

        A slow item stops the others only when `LOOK_AHEAD` per worker are done behind it.
        """
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                self._grow()
                waiting.append(self._threads.submit(function, item))
                if len(waiting) > LOOK_AHEAD * self.num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Wait for running jobs, then close the sandbox. Idempotent."""
        self._threads.shutdown()
        if self.processes is not None:
            self.processes.close()
        self.sandbox.close()
