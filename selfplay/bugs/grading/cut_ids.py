"""Ids of pytest that a data set cut at a blank, as SWE-bench's parser does (SWE-bench#290, #43).

`t.py::test_x[a b-c]` stands there as `t.py::test_x[a`, which no run prints: the gold patch fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from selfplay.types import SolveTask

_CUT = re.compile(r"[^:]+\.py::[^\[]+\[(.*[^\]])?", re.DOTALL)
"""Parameters that are not closed; a whole id of pytest ends with a bracket."""


def with_whole_ids(task: SolveTask, table: Mapping[str, str]) -> SolveTask:
    """The task with every test of a run that a cut id can mean in that id's place: all of them must
    pass. An id that means none stays, and is missing."""
    if not any(map(_CUT.fullmatch, (*task.fail_to_pass, *task.pass_to_pass))):
        return task
    failing = tuple(dict.fromkeys(_whole(task.fail_to_pass, table)))
    passing = tuple(t for t in dict.fromkeys(_whole(task.pass_to_pass, table)) if t not in failing)
    return replace(task, fail_to_pass=failing, pass_to_pass=passing)


def _whole(tests: Iterable[str], table: Mapping[str, str]) -> Iterator[str]:
    for test in tests:
        cut = test not in table and _CUT.fullmatch(test)
        yield from [t for t in table if cut and t.startswith(f"{test} ")] or [test]
