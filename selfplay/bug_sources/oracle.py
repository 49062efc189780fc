"""Which tests judge a mined bug: the commit's own, without those that fail here in any case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner, failed_tests, passed_tests
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.bugs.validation.checks_run import OTHER_SEED
from selfplay.bugs.validation.elsewhere import other_test_files
from selfplay.types import Layer

MAX_ROUNDS = 3
"""A test may fail only once another is left out; after that many runs it is so be it."""
MAX_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Test files, what is left out of them, and the tests that pass after the commit.

    failing    what keeps the others out: the last line of the run, "" when some pass
    """

    files: tuple[str, ...]
    deselected: tuple[str, ...] = ()
    passing: frozenset[str] = frozenset()
    failing: str = ""
    timed_out: bool = False

    @property
    def script(self) -> str:
        """The script that runs them."""
        return pytest_script(self.files, self.deselected)


def find_oracle(files: Sequence[str], runner: TestRunner, layer: Layer, timeout_s: float) -> Oracle:
    """The tests of `files` that pass in a state, twice; those that fail there are left out.

    Raises `SandboxError`.
    """
    oracle = Oracle(files=tuple(files))
    for _ in range(MAX_ROUNDS):
        parser = parser_source("pytest")
        runs = [
            runner.run(oracle.script, parser, layer, timeout_s=timeout_s, hash_seed=seed)
            for seed in (0, OTHER_SEED)
        ]
        tail = _why(runs[0].output)
        if any(run.timed_out for run in runs):
            return Oracle(files=oracle.files, failing=tail, timed_out=True)
        bad = {test for run in runs for test in failed_tests(run.table)}
        good = [t for t in passed_tests(runs[0].table) if runs[1].table.get(t) == "passed"]
        if not good:
            return Oracle(files=oracle.files, failing=tail)
        if not bad:
            return Oracle(files=oracle.files, deselected=oracle.deselected, passing=frozenset(good))
        kept = [file for file in oracle.files if _any_in(file, good)]
        left_out = [test for test in bad if any(test.startswith(f"{file}::") for file in kept)]
        more = prefixes(left_out, good)
        oracle = Oracle(files=tuple(kept), deselected=(*oracle.deselected, *more))
    return Oracle(files=oracle.files, failing=f"other tests fail each time, such as {min(bad)}")


def prefixes(tests: Iterable[str], kept: Sequence[str]) -> list[str]:
    """Few beginnings of ids that cover `tests`, and none of `kept` where that can be had.

    pytest leaves out whatever begins like a deselected id: the class, the function, then one set
    of parameters. An id that another begins with takes that one along.
    """
    found: dict[str, None] = {}
    for test in sorted(tests):
        if any(test.startswith(prefix) for prefix in found):
            continue
        address, bracket, _ = test.partition("[")
        parents = address.split("::")
        candidates = ["::".join(parents[: i + 1]) + "::" for i in range(1, len(parents) - 1)]
        candidates += [address + bracket, test]
        free = (c for c in candidates if not any(other.startswith(c) for other in kept))
        found[next(free, test)] = None
    return list(found)


def neighbour(
    oracle: Oracle, known: Sequence[str], runner: TestRunner, bug: Layer, timeout_s: float
) -> str | None:
    """The nearest other test file where all tests pass, and some do with the bug, too.

    Raises `SandboxError`.
    """
    for file in other_test_files(runner.environment.tree, known, "pytest")[:MAX_NEIGHBOURS]:
        found = find_oracle([file], runner, {}, timeout_s)
        if not found.passing or found.deselected:
            continue
        run = runner.run(found.script, parser_source("pytest"), bug, timeout_s=timeout_s)
        if any(run.table.get(test) == "passed" for test in found.passing):
            return file
    return None


def _why(output: str) -> str:
    """The last error that pytest explains, and how the run ended."""
    lines = output.strip().splitlines() or [""]
    errors = [line[1:].strip() for line in lines if line.startswith("E  ")]
    return "; ".join([*errors[-1:], lines[-1].strip(" =")])[:300]


def _any_in(file: str, tests: Iterable[str]) -> bool:
    return any(test.startswith(f"{file}::") for test in tests)
