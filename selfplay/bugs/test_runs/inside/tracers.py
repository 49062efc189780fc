"""Records calls, lines, returns and exceptions of chosen files, self-contained: it runs beside a
repository's tests. `sys.monitoring` from Python 3.12 on, `sys.settrace` before it.

`Log` turns what happens into events; the two tracers only tell it. An event is a list [kind, place,
line, what it tells, depth]: of "call", "line" and of "resume" (of a generator) the locals that
changed since the frame's last event (null for one that is gone), of "return", "yield" and
"exception" the value. `place` counts in `Log.places`; depth is 0 for the frame that was called from
outside.
"""

from __future__ import annotations

import dis
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any

from selfplay_values import literal, show, show_exception  # type: ignore[import-not-found]

MAX_CANDIDATES = 20
"""Calls of one function in one test that may become questions."""
OPTIMIZED, GENERATORS = 0x1, 0x20 | 0x80 | 0x200
_ATOMS = frozenset(map(id, (int, float, str, bytes, bool, type(None))))
_MISSING = object()
TOOL = "selfplay"
"""What `sys.monitoring` knows the recorder by."""


class Log:
    """The events of one test, in samples: what happens between a call from outside the chosen files
    and its end. `why` says what ended the recording early: "events", "bytes", "time" or "recorder".

    files    {file name of the code: path in the repository}
    """

    def __init__(
        self, files: dict[str, str], max_events: int, max_bytes: int, max_seconds: float
    ) -> None:
        self.files = files
        self.events_left = max_events
        self.bytes_left = max_bytes
        self.deadline = time.perf_counter() + max_seconds
        self.samples: list[list[list[Any]]] = []
        self.questions: list[dict[str, str]] = []
        self.places: list[tuple[str, str]] = []
        self.why = ""
        self.stop: Callable[[], None] = lambda: None
        self._place_of: dict[CodeType, int] = {}
        self._stack: list[int] = []
        self._events: list[list[Any]] = []
        self._shown: dict[int, dict[str, tuple[Any, str]]] = {}
        self._asked: dict[int, dict[str, str]] = {}
        self._num_asked: dict[CodeType, int] = {}

    def wants(self, code: CodeType) -> bool:
        """Whether the frames of this code are recorded: functions of the chosen files."""
        return code.co_filename in self.files and bool(code.co_flags & OPTIMIZED)

    def enter(self, frame: FrameType, begins: bool) -> None:
        """A function is called (`begins`) or a generator goes on."""
        known = id(frame)
        self._stack.append(known)
        if begins or known not in self._shown:
            self._shown[known] = {}
        if begins:
            self._note_question(frame)
        self._add("call" if begins else "resume", frame, self._changes(frame))

    def line(self, frame: FrameType) -> None:
        """A line is about to run."""
        if self._stack and self._stack[-1] == id(frame):
            self._add("line", frame, self._changes(frame))

    def leave(self, frame: FrameType, kind: str, value: Any = None) -> None:
        """A frame ends by "return", stops at a "yield", or is "unwound" by an exception."""
        if not self._stack or self._stack[-1] != id(frame):
            return  # it began before the recording did
        if kind != "unwound":
            self._add(kind, frame, show(value))
        self._stack.pop()
        if kind != "yield":
            self._shown.pop(id(frame), None)
            self._answer(id(frame), kind, value)
        if not self._stack and not self.why:
            self._complete()

    def exception(self, frame: FrameType, error: BaseException) -> None:
        """An exception is raised in a frame, or comes into it from a call."""
        if self._stack and self._stack[-1] == id(frame):
            self._add("exception", frame, show_exception(error))

    def give_up(self, why: str) -> None:
        """Record nothing more of this test; a sample that is not complete is dropped."""
        self.why = self.why or why
        self.stop()

    def told(self) -> dict[str, Any]:
        """What was recorded, as plain JSON types."""
        return {"places": self.places, "samples": self.samples, "questions": self.questions}

    def _complete(self) -> None:
        """The call from outside has ended."""
        self.samples.append(self._events)
        self._events = []

    def _add(self, kind: str, frame: FrameType, data: Any) -> None:
        if self.why:
            return
        place = self._place(frame.f_code)
        self._events.append([kind, place, frame.f_lineno, data, len(self._stack) - 1])
        self._spend(data)

    def _place(self, code: CodeType) -> int:
        """The number of a function in `places`."""
        place = self._place_of.get(code)
        if place is None:
            place = self._place_of[code] = len(self.places)
            name = getattr(code, "co_qualname", code.co_name)
            self.places.append((self.files[code.co_filename], name))
        return place

    def _spend(self, data: Any) -> None:
        """Count one event; the last that there is room for ends the recording."""
        self.events_left -= 1
        size = len(data) if isinstance(data, str) else sum(len(v or "") + 8 for v in data.values())
        self.bytes_left -= size + 32
        if self.events_left < 0:
            self.give_up("events")
        elif self.bytes_left < 0:
            self.give_up("bytes")
        elif self.events_left % 64 == 0 and time.perf_counter() > self.deadline:
            self.give_up("time")

    def _changes(self, frame: FrameType) -> dict[str, str | None]:
        """Locals that are shown differently than at the frame's last event.

        Only atoms are kept, to tell at once that they are the same: to hold anything else would
        lengthen its life.
        """
        before = self._shown.setdefault(id(frame), {})
        now = frame.f_locals
        changes: dict[str, str | None] = {}
        for name, value in now.items():
            former, text = before.get(name, (_MISSING, ""))
            if former is value:
                continue
            fresh = show(value)
            kept = value if id(type(value)) in _ATOMS else _MISSING
            if name not in before or fresh != text:
                changes[name] = fresh
            before[name] = (kept, fresh)
        gone = [name for name in before if name not in now] if len(before) > len(now) else ()
        for name in gone:
            del before[name]
            changes[name] = None
        return changes

    def _note_question(self, frame: FrameType) -> None:
        """Keep the arguments of a call that may become a question: of a function that its module
        knows by its name, as it is, with exact arguments."""
        code = frame.f_code
        self._asked.pop(id(frame), None)
        if code.co_flags & GENERATORS or self._num_asked.get(code, 0) >= MAX_CANDIDATES:
            return
        found = frame.f_globals.get(code.co_name)
        module = frame.f_globals.get("__name__")
        if type(found) is not FunctionType or found.__code__ is not code or type(module) is not str:
            return
        arguments = _arguments(frame)
        if arguments is not None:
            self._num_asked[code] = self._num_asked.get(code, 0) + 1
            path = self.files[code.co_filename]
            asked = {"path": path, "module": module, "function": code.co_name}
            self._asked[id(frame)] = {**asked, "input": arguments}

    def _answer(self, known: int, kind: str, value: Any) -> None:
        asked = self._asked.pop(known, None)
        output = literal(value) if asked is not None and kind == "return" else None
        if asked is not None and output is not None and value is not None:
            self.questions.append({**asked, "output": output})


def _arguments(frame: FrameType) -> str | None:
    """The text between the brackets of a call, None where a value has no exact text."""
    code = frame.f_code
    names = code.co_varnames
    num_all = code.co_argcount + code.co_kwonlyargcount
    values = dict(frame.f_locals)
    parts = [literal(values.get(name)) for name in names[: code.co_argcount]]
    rest = num_all
    if code.co_flags & 0x4:
        parts += [literal(item) for item in values[names[rest]]]
        rest += 1
    for name in names[code.co_argcount : num_all]:
        exact = literal(values.get(name))
        parts.append(None if exact is None else f"{name}={exact}")
    if code.co_flags & 0x8:
        for name, item in values[names[rest]].items():
            exact = literal(item)
            parts.append(f"{name}={exact}" if exact is not None and name.isidentifier() else None)
    known = [part for part in parts if part is not None]
    return ", ".join(known) if len(known) == len(parts) else None


class SetTrace:
    """`sys.settrace` on one thread. `disturbed` when the test has set another trace function."""

    def __init__(self) -> None:
        self.log: Log | None = None
        self.disturbed = False
        self._code: dict[CodeType, bytes] = {}
        self._raised: tuple[int, int] | None = None

    def start(self, log: Log) -> None:
        """Record from the next call on."""
        self.log = log
        self.disturbed = sys.gettrace() is not None
        if self.disturbed:
            return
        log.stop = lambda: sys.settrace(None)
        sys.settrace(self._outside)

    def stop(self) -> None:
        """Record nothing more; another's trace function stays."""
        found = sys.gettrace()
        if found == self._outside:
            sys.settrace(None)
        elif found is not None or self.log is None or not self.log.why:
            self.disturbed = True

    def _outside(self, frame: FrameType, event: str, _: Any) -> Any:
        log = self.log
        if event != "call" or log is None or log.why or not log.wants(frame.f_code):
            return None
        try:
            log.enter(frame, self._begins(frame))
        except BaseException:
            log.give_up("recorder")
            return None
        return self._inside

    def _inside(self, frame: FrameType, event: str, argument: Any) -> Any:
        log = self.log
        if log is None or log.why:
            return None
        try:
            if event == "return":
                log.leave(frame, self._ending(frame), argument)
            self._raised = None
            if event == "line":
                log.line(frame)
            elif event == "exception":
                self._raised = (id(frame), frame.f_lasti)
                log.exception(frame, argument[1])
        except BaseException:
            log.give_up("recorder")
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
        name, _ = self._operation(frame)
        if name.startswith("RETURN"):
            return "return"
        return "yield" if name.startswith("YIELD") else "unwound"


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
        self._api.set_events(self._tool, sum(self._events))

    def stop(self) -> None:
        """Record nothing more."""
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

    def _tell(self, code: CodeType, what: Callable[[Log, FrameType], None]) -> Any:
        """Tell the log of the frame that the callback was called for."""
        log = self.log
        if log is None or log.why or threading.get_ident() != self._thread:
            return None
        if not log.wants(code):
            return self._api.DISABLE
        try:
            what(log, sys._getframe(2))
        except BaseException:
            log.give_up("recorder")
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
        return self._tell(code, lambda log, frame: log.leave(frame, "yield", value))

    def _on_throw(self, code: CodeType, _: int, error: BaseException) -> None:
        self._tell(code, lambda log, frame: log.enter(frame, False))

    def _on_raise(self, code: CodeType, _: int, error: BaseException) -> None:
        self._tell(code, lambda log, frame: log.exception(frame, error))

    def _on_unwind(self, code: CodeType, _: int, error: BaseException) -> None:
        self._tell(code, lambda log, frame: log.leave(frame, "unwound"))


class ThreadWatch:
    """Notices that a test starts threads: what they do to its values depends on their timing."""

    def __init__(self) -> None:
        self.found = ""
        self._former: Any = None

    def start(self) -> None:
        """Watch from now on."""
        self._former = getattr(threading, "_trace_hook", None)
        threading.settrace(self._begun)

    def stop(self) -> None:
        """Watch no more."""
        threading.settrace(self._former)

    def _begun(self, frame: FrameType, event: str, _: Any) -> None:
        self.found = "threads"
        sys.settrace(None)


def free_tool() -> int | None:
    """An id that no other tool of `sys.monitoring` has; None where all are taken, and before it."""
    api: Any = getattr(sys, "monitoring", None)
    return next((n for n in (4, 3, 5, 2) if api and api.get_tool(n) is None), None)


def make_tracer(use: str = "") -> SetTrace | Monitoring:
    """The tracer of this interpreter; "settrace" or "monitoring" names one. It is made anew for
    each recording: which ids are free is seen then."""
    tool = free_tool() if use != "settrace" else None
    return SetTrace() if tool is None else Monitoring(tool)
