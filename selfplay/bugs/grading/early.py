"""Failures that are decided early: one failing test says what the whole run would say.

Most fix patches repair nothing, and the first failing test of the whole oracle decides them. So the
failing tests (FAIL_TO_PASS) of one test function run first, those that cost least; only where they
pass does everything run. What is resolved is always decided by the whole run, with its canary and
all that follows; an early verdict is a refusal, and says what it saw: a test that failed, or a run
that did not end. Only the harness's own scripts and parsers are read so, and only tests that pass
on the original by themselves, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.runner import RunsTests, TestRun, failed_tests, passed_tests
from selfplay.bugs.test_runs.scripts import (
    on_targets,
    parser_runner,
    script_runner,
    script_targets,
)
from selfplay.types import Layer, SolveTask

UNKNOWN_S = 1.0
"""Seconds of a test that was never measured."""


def cheapest_target(task: SolveTask, seconds: Mapping[str, float]) -> str | None:
    """What is run first: the test function (under TAP the file) of FAIL_TO_PASS whose tests take
    least together; None where nothing smaller than the script can be run.

    seconds    measured durations of single tests
    """
    script, parser = task.artifact.test_script, task.artifact.test_parser
    kind = script_runner(script)
    if kind is None or parser_runner(parser) != kind:
        return None
    costs: dict[str, float] = {}
    for test in task.fail_to_pass:
        target = FRAMEWORKS[kind].target(test)
        if target:
            costs[target] = costs.get(target, 0.0) + seconds.get(test, UNKNOWN_S)
    order = {target: number for number, target in enumerate(costs)}
    found = min(costs, key=lambda target: (costs[target], order[target]), default=None)
    return None if found is None or (found,) == script_targets(script) else found


def refused_early(
    task: SolveTask, layer: Layer, runner: RunsTests, seconds: Mapping[str, float]
) -> tuple[TestRun, str] | None:
    """A run of the cheapest target alone, and why it refuses `layer`; None where only the whole
    run can tell. Raises `SandboxError`."""
    target = cheapest_target(task, seconds) if layer else None
    if target is None:
        return None
    artifact, limit = task.artifact, task.limits.script_timeout_s
    script = on_targets(artifact.test_script, [target])
    run = runner.run(script, artifact.test_parser, layer, timeout_s=limit)
    failed = set(failed_tests(run.table))
    if not failed and not run.timed_out:
        return None
    alone = set(passed_tests(runner.run(script, artifact.test_parser, {}, timeout_s=limit).table))
    if run.timed_out and alone:
        return run, "timed_out"
    return (run, "fail_to_pass") if failed & alone & set(task.fail_to_pass) else None
