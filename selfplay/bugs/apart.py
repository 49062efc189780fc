"""Validation and grading in one of a run's other processes (`sandbox/processes.py`): the same
functions on a runner of that process."""

from __future__ import annotations

from collections.abc import Mapping

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.shared import SharedRuns
from selfplay.bugs.validation.validate import validate
from selfplay.sandbox.base import Environment
from selfplay.sandbox.processes import Desk
from selfplay.types import BugArtifact, GradeReport, Limits, SolveTask, ValidationReport

_runners: dict[str, TestRunner] = {}
"""Of this process, by the environment's digest."""


def validate_apart(
    desk: Desk, artifact: BugArtifact, environment: Environment, limits: Limits
) -> ValidationReport:
    """As `validate`."""
    return validate(artifact, environment, _runner(desk, environment), limits)


def grade_apart(
    desk: Desk,
    task: SolveTask,
    fix_patch: str,
    environment: Environment,
    seconds: Mapping[str, float] | None,
) -> GradeReport:
    """As `grade`."""
    return grade(task, fix_patch, _runner(desk, environment), seconds)


def _runner(desk: Desk, environment: Environment) -> TestRunner:
    if environment.digest not in _runners:
        shared = SharedRuns(desk.shared)
        _runners[environment.digest] = TestRunner(desk.sandbox, environment, originals=shared)
    return _runners[environment.digest]
