"""A failing test as a run tells it, and the code of a test."""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE = 100
"""Characters of one assertion line that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failing test in the output: its bare name, its traceback and what was complained of.

    `locations` are (path relative to the repository, 1-based line), outermost first.
    """

    name: str
    locations: tuple[tuple[str, int], ...]
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestBody:
    """The code of one test: dedented lines, with the 1-based line of the file for each."""

    __test__ = False

    name: str
    lines: tuple[str, ...]
    numbers: tuple[int, ...]

    def cut(self, max_lines: int, focus: int | None = None) -> tuple[str, ...]:
        """At most `max_lines`: the header, and the lines that end at file line `focus`.

        Lines after the one that failed say nothing about the failure and go first.
        """
        end = len(self.lines)
        if focus is not None and focus in self.numbers[1:]:
            end = self.numbers.index(focus) + 1
        if end <= max_lines:
            return self.lines[:end]
        if focus is None:
            return self.lines[:max_lines]
        return (self.lines[0], *self.lines[end - max_lines + 1 : end])
