"""Processes that take Python work off a run's own, and ask it for whatever needs a sandbox.

A thread that waits for a test run costs nothing, but reading patches, code and results does, and an
interpreter does that for one thread at a time. On many cores that is what bounds a run. Sandboxes,
their loaded interpreters and what is known of earlier runs stay where they are: with the run.
"""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from selfplay.errors import SandboxError

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)
_CONTEXT = multiprocessing.get_context("spawn")
"""A run has threads, which a forked process would find half-way through what they do."""


class Host:
    """The run as its processes see it: `ask` calls a method of what was lent to the call."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Returns and raises what the method does, in the run's own process."""
        self._connection.send(("ask", (method, args, kwargs)))
        kind, value = self._connection.recv()
        if kind == "raised":
            raise value
        return value


class Processes:
    """`call` runs a function in one of `num` processes and waits; from any thread."""

    def __init__(self, num: int) -> None:
        self._all = [_Process() for _ in range(num)]
        self._lock = threading.Lock()
        self._closed = False
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in self._all:
            self._idle.put(process)

    def call(
        self,
        function: Callable[Concatenate[Host, P], R],
        lent: object,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """`function(host, ...)`, whose `host.ask(NAME, ...)` is `lent.NAME(...)` here.

        All that goes to and fro can be pickled. Done once more where the process died;
        `SandboxError` where that one died, too, or the processes are closed.
        """
        for last in (False, True):
            process = self._idle.get()
            try:
                kind, value = process.call(lent, function, args, kwargs)
            except (EOFError, OSError) as error:
                if self._closed or last:
                    why = "are closed" if self._closed else "died, two of them"
                    raise SandboxError(f"the processes that judge {why}") from error
                log.warning("a process that judges died, trying once more")
            else:
                if kind == "raised":
                    raise value
                return value  # type: ignore[no-any-return]
            finally:
                self._idle.put(process if process.is_ready else self._replace(process))
        raise AssertionError

    def close(self) -> None:
        """End them all, whatever they do. Idempotent."""
        with self._lock:
            self._closed = True
            for process in self._all:
                process.end()

    def _replace(self, broken: _Process) -> _Process:
        """A new process for one whose call broke off; none is begun where they are closed."""
        with self._lock:
            broken.end()
            if self._closed:
                return broken
            self._all.remove(broken)
            self._all.append(_Process())
            return self._all[-1]


class _Process:
    """One of them, started by its first call; `is_ready` unless a call of it broke off."""

    def __init__(self) -> None:
        self._connection, self._theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(self._theirs,), daemon=True)
        self.is_ready = True

    def call(
        self, lent: object, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> tuple[str, Any]:
        """("returned", value) or ("raised", error). Raises `EOFError` or `OSError` where the
        process is gone."""
        self.is_ready = False
        if self._process.pid is None:
            self._process.start()
            self._theirs.close()
        self._connection.send((function, args, kwargs))
        kind, value = self._connection.recv()
        while kind == "ask":
            method, args, kwargs = value
            try:
                answer = ("returned", getattr(lent, method)(*args, **kwargs))
            except Exception as error:
                answer = ("raised", error)
            _send(self._connection, answer)
            kind, value = self._connection.recv()
        self.is_ready = True
        return kind, value

    def end(self) -> None:
        """Idempotent."""
        self.is_ready = False
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._connection.close()
        self._theirs.close()


def _send(connection: Connection, answer: tuple[str, Any]) -> None:
    """An answer that cannot be pickled is a fault of its own, and so is an error that pickle writes
    and cannot read, since its class wants more than it keeps."""
    kind, value = answer
    try:
        if kind == "raised":
            pickle.loads(pickle.dumps(value))
        connection.send(answer)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
        why = f"{kind}, and cannot be sent: {type(value).__name__}: {value} ({error})"
        connection.send(("raised", SandboxError(why)))


def _serve(connection: Connection) -> None:
    """The whole life of a process: calls, until the run that it serves is gone. An interrupt is
    the run's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = Host(connection)
    while True:
        try:
            function, args, kwargs = connection.recv()
            try:
                answer = ("returned", function(host, *args, **kwargs))
            except (EOFError, ConnectionError):
                raise
            except Exception as error:
                answer = ("raised", error)
            _send(connection, answer)
        except (EOFError, ConnectionError):
            return
