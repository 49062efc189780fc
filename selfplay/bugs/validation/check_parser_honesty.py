"""The check `parser_honesty`: parsers only repeat what the output says (docs/validation.md)."""

from __future__ import annotations

import random
import re

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.junit import read_junit, unsupported_passes
from selfplay.bugs.test_runs.runner import TestRun, passed_tests
from selfplay.bugs.test_runs.scripts import parser_runner, script_runner
from selfplay.bugs.validation.validation_state import CheckFailed, ValidationState


def check_parser_honesty(state: ValidationState) -> str:
    """Doctored output must give no new passes; an independent reading must agree."""
    assert state.original_run is not None and state.bug_run is not None
    full = state.original_passes
    text = state.original_run.output
    if _passes(state, ""):
        raise CheckFailed("passes_on_empty", "the parser reports passes on empty output")
    lines = text.splitlines(keepends=True)
    for share in (0.34, 0.67):
        cut = "".join(lines[: int(len(lines) * share)])
        _only(state, cut, full, "passes_on_truncated")
    shuffled = list(lines)
    random.Random(0).shuffle(shuffled)
    _only(state, "".join(shuffled), full, "passes_on_shuffled")
    if parser_runner(state.artifact.test_parser) is None:
        _check_erasure(state, text, sorted(full))
    second = _independent(state, state.original_run) + _independent(state, state.bug_run)
    return second or "no independent reading"


def _passes(state: ValidationState, text: str) -> set[str]:
    table, ok, _ = state.runner.parse(state.artifact.test_parser, text)
    return set(passed_tests(table)) if ok else set()


def _only(state: ValidationState, text: str, allowed: set[str], reason: str) -> None:
    """Passes on doctored output must pass on the whole one, and be named in the doctored one."""
    for test in _passes(state, text):
        if test not in allowed or not _named(test, text):
            raise CheckFailed(reason, f"{test}: reported passed, the output does not say so")


def _check_erasure(state: ValidationState, text: str, passes: list[str]) -> None:
    """A test whose lines are taken out of the output must not pass any more."""
    for test in passes:
        if not _named(test, text):
            raise CheckFailed("unsupported_pass", f"{test}: does not occur in the output")
    chosen = passes[len(passes) // 2]
    word = _last_word(chosen)
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    rest = "".join(line for line in text.splitlines(keepends=True) if not pattern.search(line))
    if chosen in _passes(state, rest):
        raise CheckFailed("unsupported_pass", f"{chosen}: passes without a line that names it")


def _named(test: str, text: str) -> bool:
    return test in text or _last_word(test) in text


def _last_word(test: str) -> str:
    words = re.findall(r"\w+", test)
    return words[-1] if words else test


def _independent(state: ValidationState, run: TestRun) -> str:
    """Compare with JUnit XML and the exit status, where the script is the harness's own."""
    runner = script_runner(state.artifact.test_script)
    if runner is None:
        return ""
    failing = any(status == "failed" for status in run.table.values())
    if failing != (run.exit_code != 0):
        raise CheckFailed(
            "exit_status_disagrees", f"exit status {run.exit_code}, failures reported: {failing}"
        )
    if not FRAMEWORKS[runner].writes_junit:
        return "exit status agrees; "
    passed = passed_tests(run.table)
    if parser_runner(state.artifact.test_parser) == runner:
        wrong = unsupported_passes(passed, run.junit)
        if wrong:
            raise CheckFailed("junit_disagrees", f"not passed in JUnit XML: {wrong[:5]}")
        return "JUnit XML agrees; "
    table = read_junit(run.junit or b"")
    num_passed = sum(status == "passed" for status in (table or {}).values())
    if len(passed) > num_passed:
        raise CheckFailed("junit_disagrees", f"{len(passed)} passes, {num_passed} in JUnit XML")
    return "JUnit XML agrees; "
