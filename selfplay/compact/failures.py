"""Reading what failing tests print (pytest, unittest, TAP) and the tests themselves.

All of it is text that untrusted code may have written: nothing here raises on odd input.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfplay.compact.tap_failures import is_tap, read_sections, tap_bodies, tap_name
from selfplay.repo.languages.python_source import is_docstring, parse, split_lines
from selfplay.sandbox.base import WORKDIR

_PYTEST_SECTION = re.compile(r"_{3,} (.+?) _{3,}")
_UNITTEST_SECTION = re.compile(r"(?:FAIL|ERROR): (\w+)")
_PYTEST_LOCATION = re.compile(r"(\S+\.py):(\d+): ")
_UNITTEST_LOCATION = re.compile(r'\s+File "([^"]+\.py)", line (\d+)')
_ERROR_LINE = re.compile(r"(?:[\w.]*(?:Error|Exception|Failure|Interrupt|Exit|Iteration))(?:: .*)?")
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


def read_failures(output: str) -> list[Failure]:
    """The failures that a test run printed, in order; text before the first heading is ignored."""
    if is_tap(output):
        return [
            Failure(
                name=name,
                locations=places,
                messages=tuple(message[:MAX_MESSAGE] for message in messages),
            )
            for name, places, messages in read_sections(output)
        ]
    sections: list[tuple[str, list[str]]] = []
    for line in output.splitlines():
        heading = _PYTEST_SECTION.fullmatch(line.strip()) or _UNITTEST_SECTION.match(line)
        if heading:
            sections.append((test_name(heading.group(1)), []))
        elif sections:
            sections[-1][1].append(line)
    return [_failure(name, lines) for name, lines in sections]


def _failure(name: str, lines: Sequence[str]) -> Failure:
    locations = []
    for line in lines:
        match = _PYTEST_LOCATION.match(line + " ") or _UNITTEST_LOCATION.match(line)
        if match:
            path = match.group(1).removeprefix(WORKDIR + "/")
            locations.append((path, int(match.group(2)[:9])))
    messages = [line[1:].strip() for line in lines if re.match(r"E\s", line)]
    if not messages:
        messages = [line.strip() for line in lines if _ERROR_LINE.fullmatch(line)]
    shown = [message[:MAX_MESSAGE] for message in messages if message]
    return Failure(name=name, locations=tuple(locations), messages=tuple(dict.fromkeys(shown)))


def test_name(test_id: str) -> str:
    """Bare name of a test id: `tests/test_a.py::TestB::test_c[x-1]` -> `test_c`.

    A TAP test's is what it calls itself: `t/a.t::adds: 1#2` -> `adds: 1`.
    """
    spoken = tap_name(test_id)
    if spoken is not None:
        return spoken
    return re.split(r"::|\.", test_id.split("[", 1)[0].split(" ", 1)[0])[-1]


test_name.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


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


def find_tests(source: str, names: Sequence[str]) -> list[TestBody]:
    """The functions of a test file with one of these names, without docstrings and blank lines."""
    tree, lines = parse(source), split_lines(source)
    wanted = set(names)
    found = []
    for node in ast.walk(tree) if tree else ():
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name not in wanted:
            continue
        assert node.end_lineno is not None
        hidden: set[int] = set()
        if is_docstring(node.body[0]) and len(node.body) > 1:
            hidden = set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        numbers = [
            number
            for number in range(node.lineno, node.end_lineno + 1)
            if lines[number - 1].strip() and (number == node.lineno or number not in hidden)
        ]
        texts = [_dedent(lines[number - 1], node.col_offset) for number in numbers]
        found.append(TestBody(name=node.name, lines=tuple(texts), numbers=tuple(numbers)))
    return found


def find_tap_tests(source: str, test_ids: Sequence[str]) -> list[TestBody]:
    """The statements behind the ids of one TAP test file; what cannot be told is left out."""
    return [
        TestBody(name=name, lines=lines, numbers=numbers)
        for name, lines, numbers in tap_bodies(source, test_ids)
    ]


def _dedent(line: str, columns: int) -> str:
    indent = len(line) - len(line.lstrip())
    return line[min(columns, indent) :].rstrip()
