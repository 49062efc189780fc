"""Reading what failing Python tests print under pytest and unittest, and the tests themselves.

All of it is text that untrusted code may have written: nothing here raises on odd input.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from selfplay.compact.failures import MAX_MESSAGE, Failure, TestBody
from selfplay.repo.languages.python_source import is_docstring, parse, split_lines
from selfplay.sandbox.base import WORKDIR

_PYTEST_SECTION = re.compile(r"_{3,} (.+?) _{3,}")
_UNITTEST_SECTION = re.compile(r"(?:FAIL|ERROR): (\w+)")
_PYTEST_LOCATION = re.compile(r"(\S+\.py):(\d+): ")
_UNITTEST_LOCATION = re.compile(r'\s+File "([^"]+\.py)", line (\d+)')
_ERROR_LINE = re.compile(r"(?:[\w.]*(?:Error|Exception|Failure|Interrupt|Exit|Iteration))(?:: .*)?")


def python_failures(output: str) -> list[Failure]:
    """The failures that a run printed, in order; text before the first heading is ignored."""
    sections: list[tuple[str, list[str]]] = []
    for line in output.splitlines():
        heading = _PYTEST_SECTION.fullmatch(line.strip()) or _UNITTEST_SECTION.match(line)
        if heading:
            sections.append((python_name(heading.group(1)), []))
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


def python_name(test_id: str) -> str:
    """Bare name of a test id: `tests/test_a.py::TestB::test_c[x-1]` -> `test_c`."""
    return re.split(r"::|\.", test_id.split("[", 1)[0].split(" ", 1)[0])[-1]


def python_bodies(_: str, source: str, test_ids: Sequence[str]) -> list[TestBody]:
    """The functions of a test file that are named like one of the tests, whatever file's."""
    return find_tests(source, list(dict.fromkeys(python_name(test) for test in test_ids)))


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


def _dedent(line: str, columns: int) -> str:
    indent = len(line) - len(line.lstrip())
    return line[min(columns, indent) :].rstrip()
