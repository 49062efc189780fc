"""The last lines that a test runs, function by function, with what each of them did;
self-contained: it runs beside a repository's tests.

A row is [order, place, line, {name: value}, end]: a line of a function, the locals that it changed
(those of the function's head are its arguments), and "return VALUE", "yield VALUE" or "raise ERROR"
where it ended so. `order` counts by the ends of lines, so that a call stands behind what it called.
`place` counts in `Log.places`.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from types import FrameType
from typing import Any

from selfplay_events import Log  # type: ignore[import-not-found]

MAX_CHARACTERS = 200
"""Of one value."""
NO_BOUND = 1 << 60
_ENDS = {"return": "return", "yield": "yield", "exception": "raise"}


class Tail(Log):  # type: ignore[misc]
    """The last `num_rows` rows of each function; a recording that ends early keeps none."""

    def __init__(
        self, files: dict[str, str], num_rows: int, max_events: int, max_seconds: float
    ) -> None:
        super().__init__(files, max_events, NO_BOUND, max_seconds)
        self._num_rows = num_rows
        self._order = 0
        self._kept: dict[int, deque[list[Any]]] = {}
        self._running: dict[int, list[Any]] = {}

    def told(self) -> dict[str, Any]:
        """See `Log.told`."""
        rows = [] if self.why else sorted(chain(*self._kept.values()), key=lambda row: row[0])
        return {"places": self.places, "tail": rows}

    def leave(self, frame: FrameType, kind: str, value: Any = None) -> None:
        """See `Log.leave`."""
        super().leave(frame, kind, value)
        if kind != "yield":
            self._running.pop(id(frame), None)

    def _add(self, kind: str, frame: FrameType, data: Any) -> None:
        if self.why:
            return
        changes = data if isinstance(data, dict) else self._changes(frame)
        short = {
            name: text[:MAX_CHARACTERS]
            for name, text in changes.items()
            if text is not None and name.isidentifier()  # ".0" is what a comprehension goes through
        }
        self._order += 1
        row = None if kind == "call" else self._running.get(id(frame))
        if row is not None:
            row[0] = self._order
            row[3].update(short)
        if row is None or kind == "line":
            place = self._place(frame.f_code)
            row = [self._order, place, frame.f_lineno, {} if row else short, ""]
            self._running[id(frame)] = row
            self._kept.setdefault(place, deque(maxlen=self._num_rows)).append(row)
        if kind in _ENDS:
            row[4] = f"{_ENDS[kind]} {data}"[:MAX_CHARACTERS]
        self._spend(data)

    def _complete(self) -> None:
        """Nothing is kept by samples."""

    def _note_question(self, frame: FrameType) -> None:
        """Nothing is asked."""
