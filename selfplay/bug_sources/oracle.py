"""Which tests judge a mined bug: the commit's own, without those that fail here in any case."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner, failed_tests, passed_tests
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.bugs.validation.checks_run import OTHER_SEED
from selfplay.bugs.validation.elsewhere import other_test_files
from selfplay.repo.discovery.kept_options import split_options
from selfplay.sandbox.base import Environment
from selfplay.types import Layer

log = logging.getLogger(__name__)
MAX_ROUNDS = 3
"""A test may fail only once another is left out; after that many runs it is so be it."""
MAX_NEIGHBOURS = 5
_WORD = re.compile(r"(?!(?:and|or|not)$)[\w:+\-.\[\]/]+")
"""A word of pytest's `-k`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Test files, what is left out of them, and the tests that pass after the commit.

    failing    what keeps the others out: the last line of the run, "" when some pass
    """

    files: tuple[str, ...]
    deselected: tuple[str, ...] = ()
    keywords: str = ""
    passing: frozenset[str] = frozenset()
    failing: str = ""
    timed_out: bool = False

    @property
    def script(self) -> str:
        """The script that runs them."""
        return pytest_script(self.files, self.deselected, self.keywords)


def find_oracle(files: Sequence[str], runner: TestRunner, layer: Layer, timeout_s: float) -> Oracle:
    """The tests of `files` that pass in a state, twice; those that fail there are left out.

    Raises `SandboxError`.
    """
    oracle = Oracle(files=tuple(files))
    alone: list[str] = []
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
            return replace(oracle, passing=frozenset(good))
        kept = [file for file in oracle.files if _any_in(file, good)]
        left_out = [test for test in bad if any(test.startswith(f"{file}::") for file in kept)]
        alone += [test for test in left_out if any(other.startswith(test) for other in good)]
        keywords, clumsy = names_without(alone, good, runner.environment)
        more = prefixes([test for test in left_out if test not in alone], good)
        oracle = Oracle(
            files=tuple(kept),
            deselected=(*oracle.deselected, *more, *(t for t in clumsy if t in left_out)),
            keywords=keywords,
        )
    return Oracle(files=oracle.files, failing=f"other tests fail each time, such as {min(bad)}")


def prefixes(tests: Iterable[str], kept: Sequence[str]) -> list[str]:
    """Few beginnings of ids that cover `tests`, and none of `kept`, none of which begins like one.

    pytest leaves out whatever begins like a deselected id: the class, the function, then one set
    of parameters.
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


def names_without(
    tests: Sequence[str], kept: Sequence[str], environment: Environment
) -> tuple[str, list[str]]:
    """(an expression for `-k` that leaves out `tests` and none of `kept`, tests for which there is
    none). For `test_a`, which `--deselect` would take away together with `test_ab`:

        not (test_x.py and test_a and not test_ab)

    pytest looks for a word anywhere in the names of a test, its class, its file and folders, and
    the last `-k` is the only one that counts: one of the project's own is put before it.
    """
    terms: list[str] = []
    clumsy: list[str] = []
    for test in sorted(tests):
        names = _names(test)
        wanted = [name for name in names if _WORD.fullmatch(name)]
        like = [n for n in map(_names, kept) if all(any(w in m for m in n) for w in wanted)]
        others = [next((n for n in o[::-1] if _tells(n, names)), "") for o in like]
        if names[-1] not in wanted or "" in others:
            clumsy.append(test)
            taken = [other for other in kept if other.startswith(test)]
            log.warning("%s cannot be left out without %s", test, ", ".join(taken))
            continue
        parts = [*wanted, *(f"not {name}" for name in dict.fromkeys(others))]
        terms.append(f"not ({' and '.join(parts)})")
    words = shlex.split(environment.variables.get("PYTEST_ADDOPTS", ""))
    given = split_options(words, lambda word: False)[0] if terms else ()
    own = [f"({word[2:]})" for word in given if word.startswith("-k")][-1:]
    return " and ".join([*own, *terms]), clumsy


def _names(test: str) -> list[str]:
    """Of its file, class and function without parameters, as `-k` compares them."""
    path, *names = test.partition("[")[0].lower().split("::")
    return [path.rpartition("/")[2], *names]


def _tells(name: str, others: Sequence[str]) -> bool:
    """Whether a name is a word for `-k` that is in none of the others."""
    return bool(_WORD.fullmatch(name)) and not any(name in other for other in others)


def neighbour(
    oracle: Oracle, known: Sequence[str], runner: TestRunner, bug: Layer, timeout_s: float
) -> str | None:
    """The nearest other test file where all tests pass, and some do with the bug, too.

    Raises `SandboxError`.
    """
    for file in other_test_files(runner.environment.tree, known, "pytest")[:MAX_NEIGHBOURS]:
        found = find_oracle([file], runner, {}, timeout_s)
        if not found.passing or found.deselected or found.keywords:
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
