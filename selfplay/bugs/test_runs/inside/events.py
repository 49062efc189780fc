"""The events of one test, as the tracers (`tracers.py`) tell them; self-contained: it runs beside a
repository's tests.

An event is a list [kind, place, line, what it tells, depth]: of "call", "line" and of "resume" (of
a generator) the locals that changed since the frame's last event (null for one that is gone), of
"return", "yield" and "exception" the value. `place` counts in `Log.places`; depth is 0 for the
frame that was called from outside.
"""

from __future__ import annotations

import time
import warnings
from _io import FileIO
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType, FunctionType
from typing import Any

from selfplay_values import literal, show, show_exception  # type: ignore[import-not-found]

MAX_CANDIDATES = 20
"""Calls of one function in one test that may become questions."""
OPTIMIZED, GENERATORS = 0x1, 0x20 | 0x80 | 0x200
_ATOMS = frozenset(map(id, (int, float, str, bytes, bool, type(None))))
_MISSING = object()


class Log:
    """The events of one test, in samples: what happens between a call from outside the chosen files
    and its end. `why` says what ended the recording early: "events", "bytes", "time", "recursion",
    "stacks" or "recorder".

    files    {file name of the code: path in the repository}
    """

    def __init__(
        self, files: dict[str, str], max_events: int, max_bytes: int, max_seconds: float
    ) -> None:
        self.files = files
        self.events_left = max_events
        self.bytes_left = max_bytes
        self.deadline = now() + max_seconds
        self.samples: list[list[list[Any]]] = []
        self.questions: list[dict[str, str]] = []
        self.places: list[tuple[str, str]] = []
        self.why = ""
        self.stop: Callable[[], None] = lambda: None
        self._place_of: dict[int, tuple[CodeType, int]] = {}
        self._stack: list[int] = []
        self._events: list[list[Any]] = []
        self._shown: dict[int, dict[str, tuple[Any, str]]] = {}
        self._asked: dict[int, dict[str, str]] = {}
        self._num_asked: dict[int, int] = {}

    def wants(self, code: CodeType) -> bool:
        """Whether the frames of this code are recorded: functions that stand in the chosen files.
        What a program compiles itself may give a file's name, and lines that are others there."""
        if code.co_filename not in self.files or not code.co_flags & OPTIMIZED:
            return False
        found = _standing_in(code.co_filename)
        return found is None or (code.co_name, code.co_firstlineno) in found

    def enter(self, frame: FrameType, begins: bool) -> None:
        """A function is called (`begins`) or a generator goes on."""
        known = id(frame)
        if self._stack and not _called_from(self._stack[-1], frame):
            self.give_up("stacks")
            return
        self._stack.append(known)
        if begins or known not in self._shown:
            self._shown[known] = {}
        if begins:
            self._note_question(frame)
        self._add("call" if begins else "resume", frame, self._changes(frame))

    def line(self, frame: FrameType) -> None:
        """A line is about to run."""
        if self._is_running(frame):
            self._add("line", frame, self._changes(frame))

    def leave(self, frame: FrameType, kind: str, value: Any = None) -> None:
        """A frame ends by "return", stops at a "yield", or is "unwound" by an exception."""
        if not self._stack or self._stack[-1] != id(frame):
            if id(frame) in self._stack:  # the end of one above it was not told
                self.give_up("recorder")
            return  # else it began before the recording did
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
        if issubclass(type(error), RecursionError):
            self.give_up("recursion")  # the tracer's own calls bring the limit nearer
        if self._is_running(frame):
            self._add("exception", frame, show_exception(error))

    def give_up(self, why: str) -> None:
        """Record nothing more of this test; a sample that is not complete is dropped."""
        self.why = self.why or why
        self.stop()

    def told(self) -> dict[str, Any]:
        """What was recorded, as plain JSON types."""
        return {"places": self.places, "samples": self.samples, "questions": self.questions}

    def _is_running(self, frame: FrameType) -> bool:
        """Whether a frame is the one that was called last. One that is waiting for that to end
        cannot go on, unless the program changes stacks (greenlets): then nothing more is known."""
        if self._stack and self._stack[-1] != id(frame) and id(frame) in self._stack:
            self.give_up("stacks")
        return bool(self._stack) and self._stack[-1] == id(frame)

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
        """The number of a function in `places`. Code is told apart by identity: that of two files
        is equal where its text and lines are. (It is kept, so that no other gets its id.)"""
        known = self._place_of.get(id(code))
        if known is None:
            known = self._place_of[id(code)] = (code, len(self.places))
            name = getattr(code, "co_qualname", code.co_name)
            self.places.append((self.files[code.co_filename], name))
        return known[1]

    def _spend(self, data: Any) -> None:
        """Count one event; the last that there is room for ends the recording."""
        self.events_left -= 1
        size = len(data) if isinstance(data, str) else sum(len(v or "") + 8 for v in data.values())
        self.bytes_left -= size + 32
        if self.events_left < 0:
            self.give_up("events")
        elif self.bytes_left < 0:
            self.give_up("bytes")
        elif self.events_left % 64 == 0 and now() > self.deadline:
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
        if code.co_flags & GENERATORS or self._num_asked.get(id(code), 0) >= MAX_CANDIDATES:
            return
        found = frame.f_globals.get(code.co_name)
        module = frame.f_globals.get("__name__")
        if type(found) is not FunctionType or found.__code__ is not code or type(module) is not str:
            return
        arguments = _arguments(frame)
        if arguments is not None:
            self._num_asked[id(code)] = self._num_asked.get(id(code), 0) + 1
            path = self.files[code.co_filename]
            asked = {"path": path, "module": module, "function": code.co_name}
            self._asked[id(frame)] = {**asked, "input": arguments}

    def _answer(self, known: int, kind: str, value: Any) -> None:
        asked = self._asked.pop(known, None)
        output = literal(value) if asked is not None and kind == "return" else None
        if asked is not None and output is not None and value is not None:
            self.questions.append({**asked, "output": output})


def now(clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds by this machine's clock, whatever a test has put in the place of `time`'s."""
    return clock()


def _called_from(known: int, frame: FrameType) -> bool:
    """Whether a frame stands above the one with this id. One of another stack (a greenlet) does
    not, while that one waits."""
    caller = frame.f_back
    while caller is not None and id(caller) != known:
        caller = caller.f_back
    return caller is not None


@cache
def _standing_in(file: str) -> frozenset[tuple[str, int]] | None:
    """(name, first line) of all functions in a file's text; None where it cannot be compiled.

    The test may have put its own functions in the place of those that read files, and may count
    warnings.
    """
    try:
        with FileIO(file) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            waiting = [compile(stream.readall(), file, "exec", dont_inherit=True)]
    except (OSError, SyntaxError, ValueError):
        return None
    found = set()
    while waiting:
        code = waiting.pop()
        found.add((code.co_name, code.co_firstlineno))
        waiting += [part for part in code.co_consts if type(part) is CodeType]
    return frozenset(found)


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
