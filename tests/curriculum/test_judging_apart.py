"""Verdicts are the same in whatever process they come about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from selfplay.bugs.patches.diffs import reverse_patch
from selfplay.commands.compose import make_rollout_context, sandbox_pool
from selfplay.config import SandboxConfig
from selfplay.curriculum.injecting import inject
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.repo.prepare import PreparedRepo
from selfplay.types import BugArtifact, Check, InjectionTask, SolveTask, Target, ValidationReport

from .conftest import PLACES
from .game import REPO, SCAFFOLD, Book


@pytest.fixture(scope="module")
def apart(prepared: PreparedRepo) -> Iterator[RolloutContext]:
    config = SandboxConfig(name="bubblewrap", num_workers=2, num_judges=2)
    with sandbox_pool(config) as pool:
        yield make_rollout_context(Book(), {REPO: prepared}, pool, SCAFFOLD, Sampling())


def told(report: ValidationReport) -> object:
    """All but durations, those of the tests' own report too, and how many runs no cache knew."""
    checks: list[Check] = [replace(check, duration_s=0.0) for check in report.checks]
    return replace(report, checks=tuple(checks), num_runs=0, failure_output="")


def test_reports_are_equal(
    context: RolloutContext, apart: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    here, there = context.repo_contexts[REPO], apart.repo_contexts[REPO]
    assert here.processes is None and there.processes is not None
    for task in bugs.values():
        broken = replace(task.artifact, weakening_patch="")
        for artifact in (task.artifact, broken):
            reports = [each.validate(artifact, task.limits) for each in (here, there)]
            assert told(reports[0]) == told(reports[1])
        for fix in fixes(task.artifact):
            for seconds in (None, context.seconds_of(REPO)):
                assert here.grade(task, fix, seconds) == there.grade(task, fix, seconds)


def fixes(artifact: BugArtifact) -> list[str]:
    """The gold patch, nothing, what is no patch, and one that changes a word elsewhere."""
    return [reverse_patch(artifact.bug_patch), "", "--- a/x\n", artifact.bug_patch]


def test_bugs_are_planted_and_judged_as_ever(
    context: RolloutContext, apart: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    path, move = PLACES["round_to"]
    task = InjectionTask(
        task_id="bugs/round_to",
        repo=REPO,
        strategy="direct",
        target=Target(path=path, function="round_to"),
    )
    (injection,) = inject(replace(apart, policy=Book([move])), [task], 1)
    planted = injection.outcome.solve_task
    assert planted is not None
    assert replace(planted, failure_output="") == replace(bugs["round_to"], failure_output="")
