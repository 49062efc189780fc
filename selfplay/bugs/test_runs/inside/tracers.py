"""Record calls, lines, returns and exceptions of chosen files, self-contained: it runs beside a
repository's tests. `sys.monitoring` from Python 3.12 on, `sys.settrace` before it.

`Log` (`events.py`) turns what happens into events; the two tracers only tell it.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from functools import cache
from gc import disable as gc_disable
from gc import enable as gc_enable
from gc import get_referents
from gc import isenabled as gc_isenabled
from sys import gettrace, settrace
from types import CodeType, FrameType
from typing import Any

from selfplay_events import GENERATORS, Log  # type: ignore[import-not-found]

TOOL = "selfplay"
"""What `sys.monitoring` knows the recorder by."""
_AT_END = ("FOR_ITER", "SEND", "END_SEND")
"""Where a `StopIteration` is the end of a `for`, `await` or `yield from`, and no exception."""
_ASYNC_GENERATOR = 0x200


def failed(error: BaseException) -> str:
    """What a recording ends with that its tracer could not go on with."""
    return "recursion" if issubclass(type(error), RecursionError) else "recorder"


def is_end(error: BaseException, operation: str) -> bool:
    """Whether an exception at an instruction only says that something iterated over has ended."""
    return issubclass(type(error), StopIteration) and operation in _AT_END


def yielded(code: CodeType, value: Any) -> Any:
    """What a generator yields; asynchronous ones put it into an object of the interpreter's own,
    which holds nothing else."""
    if code.co_flags & _ASYNC_GENERATOR and type(value).__name__ == "async_generator_wrapped_value":
        return next(iter(get_referents(value)), None)
    return value


class CollectorHeld:
    """No automatic garbage collection while something is recorded: most would run inside the
    recorder, which allocates more than the program, and what finalizers call would be missing.
    `gc.collect()` collects as ever."""

    def __init__(self) -> None:
        self._held = False

    def hold(self) -> None:
        """From now on."""
        self._held = gc_isenabled()
        gc_disable()

    def release(self) -> None:
        """As it was before; once."""
        if self._held:
            gc_enable()
        self._held = False


class SetTrace:
    """`sys.settrace` on one thread. `disturbed` when the test has set another trace function, and
    also when it has put this one back."""

    active: SetTrace | None = None
    """The one that records."""

    def __init__(self) -> None:
        self.log: Log | None = None
        self.disturbed = False
        self._own: Any = self._outside
        self._thread = threading.get_ident()
        self._collector = CollectorHeld()
        self._code: dict[CodeType, bytes] = {}
        self._raised: tuple[int, int] | None = None

    def start(self, log: Log) -> None:
        """Record from the next call on."""
        self.log = log
        self.disturbed = gettrace() is not None
        if self.disturbed:
            return
        log.stop = self._off
        watch_settrace()
        self._collector.hold()
        settrace(self._own)
        SetTrace.active = self

    def stop(self) -> None:
        """Record nothing more; another's trace function stays."""
        SetTrace.active = None
        self._collector.release()
        found = gettrace()
        if found is self._own:  # the test's own may define `==`
            settrace(None)
        elif found is not None or self.log is None or not self.log.why:
            self.disturbed = True

    def _off(self) -> None:
        settrace(None)
        self._collector.release()

    def note_settrace(self) -> None:
        """A trace function is about to be set: where another one is there, calls went by untold."""
        goes_on = self.log is not None and not self.log.why
        if goes_on and threading.get_ident() == self._thread and gettrace() is not self._own:
            self.disturbed = True

    def _outside(self, frame: FrameType, event: str, _: Any) -> Any:
        log = self.log
        if event != "call" or log is None or log.why or not log.wants(frame.f_code):
            return None
        try:
            log.enter(frame, self._begins(frame))
        except BaseException as error:
            log.give_up(failed(error))
            return None
        return self._inside

    def _inside(self, frame: FrameType, event: str, argument: Any) -> Any:
        log = self.log
        if log is None or log.why:
            return None
        try:
            if event == "return":
                ending = self._ending(frame)
                is_yield = ending == "yield"
                log.leave(frame, ending, yielded(frame.f_code, argument) if is_yield else argument)
            self._raised = None
            if event == "line":
                log.line(frame)
            elif event == "exception" and not is_end(argument[1], self._operation(frame)[0]):
                self._raised = (id(frame), frame.f_lasti)
                log.exception(frame, argument[1])
        except BaseException as error:
            log.give_up(failed(error))
        return self._inside

    def _operation(self, frame: FrameType) -> tuple[str, int]:
        """Name and argument of the instruction that a frame is at."""
        code = self._code.setdefault(frame.f_code, b"") or frame.f_code.co_code
        self._code[frame.f_code] = code
        return dis.opname[code[frame.f_lasti]], code[frame.f_lasti + 1]

    def _begins(self, frame: FrameType) -> bool:
        if not frame.f_code.co_flags & GENERATORS or frame.f_lasti < 0:
            return True
        return self._operation(frame) == ("RESUME", 0)

    def _ending(self, frame: FrameType) -> str:
        if self._raised == (id(frame), frame.f_lasti):
            return "unwound"
        name, argument = self._operation(frame)
        if name.startswith("RETURN"):
            return "return"
        # From Python 3.13 on a yield is told at the instruction behind it.
        behind = name == "RESUME" and argument & 3 > 0
        return "yield" if name.startswith("YIELD") or behind else "unwound"


@cache
def watch_settrace() -> None:
    """Tell who records of each `sys.settrace`, for as long as this process lives."""

    def hook(event: str, _: Any) -> None:
        if event == "sys.settrace" and SetTrace.active is not None:
            SetTrace.active.note_settrace()

    sys.addaudithook(hook)


class Monitoring:
    """`sys.monitoring` (Python 3.12 on), for the thread that started it. Its tool id is taken when
    a recording starts and given back when it stops, with every place that was switched off under
    it: a tool of the tests may want it.

    tool    a free id (`free_tool`)
    """

    def __init__(self, tool: int) -> None:
        self.log: Log | None = None
        self.disturbed = False
        self._api: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        self._tool = tool
        self._thread = threading.get_ident()
        self._collector = CollectorHeld()
        events = self._api.events
        self._events = {
            events.PY_START: self._on_start,
            events.PY_RESUME: self._on_resume,
            events.PY_THROW: self._on_throw,
            events.LINE: self._on_line,
            events.PY_RETURN: self._on_return,
            events.PY_YIELD: self._on_yield,
            events.RAISE: self._on_raise,
            events.PY_UNWIND: self._on_unwind,
        }

    def start(self, log: Log) -> None:
        """Record from the next call on."""
        self.log = log
        log.stop = self._off
        self._api.use_tool_id(self._tool, TOOL)
        for event, function in self._events.items():
            self._api.register_callback(self._tool, event, function)
        self._collector.hold()
        self._api.set_events(self._tool, sum(self._events))

    def stop(self) -> None:
        """Record nothing more."""
        self._collector.release()
        self.disturbed = self._api.get_tool(self._tool) != TOOL
        if self.disturbed:
            return
        self._off()
        for event in self._events:
            self._api.register_callback(self._tool, event, None)
        self._api.free_tool_id(self._tool)
        self._api.restart_events()

    def _off(self) -> None:
        if self._api.get_tool(self._tool) == TOOL:
            self._api.set_events(self._tool, 0)
        self._collector.release()

    def _tell(self, code: CodeType, what: Callable[[Log, FrameType], None]) -> Any:
        """Tell the log of the frame that the callback was called for."""
        log = self.log
        if log is None or log.why or threading.get_ident() != self._thread:
            return None
        if not log.wants(code):
            return self._api.DISABLE
        try:
            what(log, sys._getframe(2))
        except BaseException as error:
            log.give_up(failed(error))
        return None

    def _on_start(self, code: CodeType, _: int) -> Any:
        return self._tell(code, lambda log, frame: log.enter(frame, True))

    def _on_resume(self, code: CodeType, _: int) -> Any:
        return self._tell(code, lambda log, frame: log.enter(frame, False))

    def _on_line(self, code: CodeType, _: int) -> Any:
        return self._tell(code, lambda log, frame: log.line(frame))

    def _on_return(self, code: CodeType, _: int, value: Any) -> Any:
        return self._tell(code, lambda log, frame: log.leave(frame, "return", value))

    def _on_yield(self, code: CodeType, _: int, value: Any) -> Any:
        own = yielded(code, value)
        return self._tell(code, lambda log, frame: log.leave(frame, "yield", own))

    def _on_throw(self, code: CodeType, _: int, error: BaseException) -> None:
        self._tell(code, lambda log, frame: log.enter(frame, False))

    def _on_raise(self, code: CodeType, place: int, error: BaseException) -> None:
        def told(log: Log, frame: FrameType) -> None:
            if not is_end(error, dis.opname[code.co_code[place]]):
                log.exception(frame, error)

        self._tell(code, told)

    def _on_unwind(self, code: CodeType, _: int, error: BaseException) -> None:
        self._tell(code, lambda log, frame: log.leave(frame, "unwound"))


class ThreadWatch:
    """Notices that a test starts threads: what they do to its values depends on their timing.
    `found`: "threads"; "tracer" where the test has set a trace function for threads itself, which
    stays."""

    def __init__(self) -> None:
        self.found = ""
        self._former: Any = None
        self._own: Any = self._begun

    def start(self) -> None:
        """Watch from now on."""
        self._former = getattr(threading, "_trace_hook", None)
        threading.settrace(self._own)

    def stop(self) -> None:
        """Watch no more."""
        if getattr(threading, "_trace_hook", None) is self._own:
            threading.settrace(self._former)
        else:
            self.found = self.found or "tracer"

    def _begun(self, frame: FrameType, event: str, _: Any) -> None:
        self.found = "threads"
        settrace(None)


def free_tool() -> int | None:
    """An id that no other tool of `sys.monitoring` has; None where all are taken, and before it."""
    api: Any = getattr(sys, "monitoring", None)
    return next((n for n in (4, 3, 5, 2) if api and api.get_tool(n) is None), None)


def make_tracer(use: str = "") -> SetTrace | Monitoring:
    """The tracer of this interpreter; "settrace" or "monitoring" names one. It is made anew for
    each recording: which ids are free is seen then."""
    tool = free_tool() if use != "settrace" else None
    return SetTrace() if tool is None else Monitoring(tool)
