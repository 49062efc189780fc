"""Tests of other files than the oracle's: what still works where every oracle test fails.

A bug that fails a whole small test file is a bug like another; one that leaves no test of the
repository passing has broken it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS, USUAL
from selfplay.bugs.test_runs.runner import passed_tests
from selfplay.bugs.test_runs.scripts import parser_source, runner_script, script_runner
from selfplay.bugs.validation.validation_state import ValidationState

MAX_FILES = 8
"""Nearest other test files that are run: enough to meet one that the bug does not reach."""


def other_test_files(tree: Path, known: Collection[str], runner: str) -> list[str]:
    """Test files beside the `known` ones, nearest first: those that share most folders with one."""
    folders = [PurePosixPath(path).parent.parts for path in known]
    is_test = FRAMEWORKS[runner].test_file
    found = [
        path.relative_to(tree).as_posix()
        for path in tree.rglob("*")
        if is_test.match(path.name) and path.is_file() and not path.is_symlink()
    ]

    def distance(path: str) -> tuple[int, int, str]:
        parts = PurePosixPath(path).parent.parts
        shared = max((_shared(parts, folder) for folder in folders), default=0)
        return -shared, len(parts), path

    return sorted((path for path in found if path not in known), key=distance)


def passing_elsewhere(state: ValidationState) -> list[str]:
    """Tests of other files that pass on the original and with the bug. Raises `SandboxError`."""
    runner = script_runner(state.artifact.test_script) or USUAL
    files = other_test_files(state.environment.tree, state.artifact.test_files, runner)
    if not files:
        return []
    script, parser = runner_script(runner, files[:MAX_FILES]), parser_source(runner)
    limit = state.limits.script_timeout_s
    original, buggy = (
        state.runs.run(script, parser, layer, timeout_s=limit).table for layer in ({}, state.bug)
    )
    return [test for test in passed_tests(original) if buggy.get(test) == "passed"]


def _shared(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    number = 0
    while number < min(len(left), len(right)) and left[number] == right[number]:
        number += 1
    return number
