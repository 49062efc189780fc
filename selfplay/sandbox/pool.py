"""Many sandboxes at once, without oversubscribing the cores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Job, RunResult, Sandbox

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)


class RetryingSandbox:
    """Repeats a job once when the sandbox itself failed."""

    def __init__(self, inner: Sandbox) -> None:
        self._inner = inner
        self.name = inner.name

    def run(self, job: Job) -> RunResult:
        """Like `Sandbox.run`; the second failure is raised."""
        try:
            return self._inner.run(job)
        except SandboxError as error:
            log.warning("sandbox failed, trying once more: %s", error)
            return self._inner.run(job)

    def close(self) -> None:
        """Close the sandbox behind."""
        self._inner.close()


class SandboxPool:
    """`map` runs a function over items in `num_workers` threads, results in order."""

    def __init__(self, sandbox: Sandbox, num_workers: int) -> None:
        self.sandbox: Sandbox = RetryingSandbox(sandbox)
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="sandbox")

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Ordered results; the first exception is raised."""
        return list(self._threads.map(function, items))

    def close(self) -> None:
        """Wait for running jobs, then close the sandbox. Idempotent."""
        self._threads.shutdown(cancel_futures=True)
        self.sandbox.close()
