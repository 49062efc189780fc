"""Threads of which so many work at once as are allowed, and that number may grow."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")
MOST_THREADS = 1 << 16
"""Never reached: a thread is started only where no other is idle."""


class Workers:
    """What is submitted runs in its order, `limit` at once. Thread-safe.

    A sandbox, and an interpreter that it forks from, die with the thread that started them: threads
    stay until `shutdown`, however few are needed.
    """

    def __init__(self, limit: int, name: str) -> None:
        self.limit = limit
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._working = 0

    def submit(self, function: Callable[..., R], *words: Any) -> Future[R]:
        """`function(*words)` as soon as a worker is free; `RuntimeError` after `shutdown`."""
        future: Future[R] = Future()
        with self._lock:
            self._waiting.append((future, function, words))
            self._start()
        return future

    def grow(self, limit: int) -> None:
        """Allow `limit` at once from now on; fewer than before changes nothing."""
        with self._lock:
            self.limit = max(self.limit, limit)
            self._start()

    def shutdown(self) -> None:
        """Cancel what has not begun and wait for what has. Idempotent."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for future, *_ in waiting:
            future.cancel()
        self._threads.shutdown()

    def _start(self) -> None:
        """As many workers as there is work for; the lock is held."""
        while self._waiting and self._working < self.limit:
            self._threads.submit(self._work, self._waiting.popleft())
            self._working += 1

    def _work(self, item: tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]) -> None:
        """One worker: this item, then what waits, until nothing does."""
        while True:
            future, function, words = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*words))
                except BaseException as error:
                    future.set_exception(error)
            del future, function, words, item  # an idle thread keeps nothing alive
            with self._lock:
                if not self._waiting:
                    self._working -= 1
                    return
                item = self._waiting.popleft()
