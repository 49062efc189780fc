"""Processes beside the run's own, each with a sandbox of its own.

A thread that waits for a test run costs nothing, but reading patches, code and results does, and an
interpreter does that for one thread at a time. On many cores that is what bounds a run.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Sandbox
from selfplay.sandbox.scratch import Scratch

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


class Desk:
    """What a process keeps: its sandbox, and a folder that all of them share until the run ends."""

    def __init__(self, sandbox: Sandbox, shared: Path) -> None:
        self.sandbox = sandbox
        self.shared = shared


class SandboxProcesses:
    """`call` runs a function in one of `num` processes and waits. Thread-safe.

    open_sandbox   what each of them opens at its first call; can be pickled
    """

    def __init__(self, num: int, open_sandbox: Callable[[], Sandbox]) -> None:
        self.num = num
        self._open = open_sandbox
        self._scratch = Scratch()
        self._lock = threading.Lock()
        self._executor = self._begin()

    def call(
        self, function: Callable[Concatenate[Desk, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """`function(desk, ...)`; it, what it takes, returns and raises can be pickled.

        Done once more where a process died; `SandboxError` where it died again.
        """
        work = functools.partial(_at_desk, function, *args, **kwargs)
        for last in (False, True):
            executor = self._executor
            try:
                return executor.submit(work).result()
            except BrokenProcessPool as error:
                self._replace(executor)
                if last:
                    raise SandboxError(f"a process that judges died twice: {error}") from error
                log.warning("a process that judges died, trying once more: %s", error)
        raise AssertionError

    def close(self) -> None:
        """Wait for what runs, then end them all. Idempotent."""
        self._executor.shutdown(cancel_futures=True)
        self._scratch.close()

    def _begin(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.num,
            mp_context=multiprocessing.get_context("spawn"),  # this process has threads
            initializer=_open_desk,
            initargs=(self._open, self._scratch.path),
        )

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """New processes for those of a pool that broke, once for all who noticed."""
        with self._lock:
            if self._executor is broken:
                self._executor = self._begin()
        broken.shutdown(wait=False)


_desk: Desk | None = None


def _open_desk(open_sandbox: Callable[[], Sandbox], shared: Path) -> None:
    """In a new process: its sandbox. An interrupt is the run's to handle; where the run dies
    without a word, its processes end, too."""
    global _desk
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _desk = Desk(open_sandbox(), shared)
    Finalize(None, _desk.sandbox.close, exitpriority=10)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _at_desk(function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    assert _desk is not None
    return function(_desk, *args, **kwargs)
