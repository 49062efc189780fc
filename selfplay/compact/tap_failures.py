"""Reading what failing TAP tests print, and the statements behind them.

All of it is text that untrusted code may have written: nothing here raises on odd input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfplay.compact.failures import MAX_MESSAGE, Failure, TestBody
from selfplay.repo.discovery.tap_output import test_names
from selfplay.repo.languages.perl_tests import find_statements

_FAILED = re.compile(r"not ok \d+(?: (?:- )?(.*))?$")
_OTHER = re.compile(r"(?:ok \d+|1\.\.\d+|\S+ \.{2,})(?: |$)")
_LOCATION = re.compile(r"\bat (\S+) line (\d{1,9})\b")
_SAID = re.compile(r"#\s+((?:got|expected)\s*:.*|\S.* = .*|'[^']*'|Structures .*)$")
_DIED = re.compile(r"(.+) at \S+ line \d+\.?$")
_SECTION = re.compile(r"\S+\.t \.{2,} ?$", re.MULTILINE)


def is_tap(output: str) -> bool:
    """Whether an output has the headings of `prove`."""
    return _SECTION.search(output) is not None


def tap_failures(output: str) -> list[Failure]:
    """The failing tests in order, each with the lines up to the next test."""
    found: list[tuple[str, list[str]]] = []
    loose: list[str] = []
    open_ = False
    for line in output.splitlines():
        match = _FAILED.match(line)
        if match:
            found.append((test_names([match[1] or ""])[0], []))
            open_ = True
        elif _OTHER.match(line):
            open_ = False
        elif open_:
            found[-1][1].append(line)
        elif _DIED.match(line) and not line.startswith(("#", " ")):
            loose.append(line)
    failures = [_failure(name, lines, _messages(lines)) for name, lines in found]
    return failures + [_failure("", [line], (line,)) for line in loose]


def _failure(name: str, lines: Sequence[str], messages: Sequence[str]) -> Failure:
    shown = tuple(message[:MAX_MESSAGE] for message in messages)
    return Failure(name=name, locations=_locations(lines), messages=shown)


def tap_bodies(path: str, source: str, test_ids: Sequence[str]) -> list[TestBody]:
    """The statements behind the ids of one test file; what cannot be told is left out."""
    names = [test.partition("::")[2] for test in test_ids if test.startswith(f"{path}::")]
    bodies = []
    for name, statement in find_statements(source, names).items():
        if statement is None:
            continue
        first = source.count("\n", 0, statement.start) + 1
        lines = source[statement.start : statement.end].split("\n")
        margin = min((len(ln) - len(ln.lstrip()) for ln in lines[1:] if ln.strip()), default=0)
        kept = tuple((ln if not i else ln[margin:]).rstrip() for i, ln in enumerate(lines))
        numbers = tuple(range(first, first + len(kept)))
        bodies.append(TestBody(name=re.sub(r"#\d+$", "", name), lines=kept, numbers=numbers))
    return bodies


def tap_name(test: str) -> str:
    """A test's own name, without the number of a repetition: `t/a.t::adds: 1#2` -> `adds: 1`."""
    return re.sub(r"#\d+$", "", test.partition("::")[2])


def _locations(lines: Sequence[str]) -> tuple[tuple[str, int], ...]:
    found = (match for line in lines for match in _LOCATION.finditer(line))
    return tuple((match[1], int(match[2])) for match in found)


def _messages(lines: Sequence[str]) -> tuple[str, ...]:
    said = (match[1] for line in lines if (match := _SAID.match(line)))
    return tuple(dict.fromkeys(" ".join(text.split()) for text in said))
