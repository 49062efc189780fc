"""Poisoned tests: the oracle tests made to fail, to see whether a fix still makes them "pass".

Source code that disarms the test runner, even for chosen tests and from inside a call, makes a
test pass that must fail; so does an answer that is equal to everything (docs/validation.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.test_edits.editors import by_editor, editor_of
from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.runner import RunsTests, passed_tests
from selfplay.bugs.test_runs.scripts import script_runner
from selfplay.types import Layer, SolveTask

MAX_TESTS = 50


def poisoned_layer(tree: Path, layer: Layer, test_ids: Iterable[str]) -> Layer:
    """`layer` with each of these tests made to fail (where they are found).

    The code under test is still called, for it may act only then.
    """
    for editor, tests in by_editor(test_ids):
        layer = editor.failing(tree, layer, tests)
    return layer


def disarmed_tests(task: SolveTask, layer: Layer, runner: RunsTests) -> list[str]:
    """FAIL_TO_PASS tests that pass on `layer` although they were made to fail.

    Tests that cannot be made to fail (they pass poisoned on the original code, too) do not count.
    One run; a second, of the original, only when something is found; none where the state is the
    original itself, of which nothing could count. Raises `SandboxError`.
    """
    if not layer:
        return []
    tree = runner.environment.tree
    tests = [test for test in task.fail_to_pass if editor_of(test).can_fail(tree, test)][:MAX_TESTS]
    if not tests:
        return []
    suspects = _passing(task, poisoned_layer(tree, layer, tests), tests, runner)
    if not suspects:
        return []
    immune = _passing(task, poisoned_layer(tree, {}, tests), tests, runner)
    return [test for test in suspects if test not in immune]


def _passing(task: SolveTask, layer: Layer, tests: list[str], runner: RunsTests) -> list[str]:
    script = task.artifact.test_script
    kind = script_runner(script)
    if kind is not None:
        framework = FRAMEWORKS[kind]
        targets = dict.fromkeys(framework.target(test) for test in tests)
        script = framework.script(target for target in targets if target)
    run = runner.run(
        script, task.artifact.test_parser, layer, timeout_s=task.limits.script_timeout_s
    )
    passed = set(passed_tests(run.table))
    return [test for test in tests if test in passed]
