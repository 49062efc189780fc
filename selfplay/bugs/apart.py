"""Validation and grading in one of a run's other processes (`sandbox/processes.py`): the same
functions, on a runner that asks the run's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRun, parsed
from selfplay.bugs.validation.validate import validate
from selfplay.sandbox.base import Environment
from selfplay.sandbox.processes import Host
from selfplay.types import (
    BugArtifact,
    GradeReport,
    Layer,
    Limits,
    SolveTask,
    TestTable,
    ValidationReport,
)


@dataclass(frozen=True, slots=True)
class AskedRunner:
    """A `TestRunner` that is lent to this process; shipped parsers answer here."""

    host: Host
    environment: Environment

    def run(
        self, script: str, parser: str, layer: Layer, *, timeout_s: float, hash_seed: int = 0
    ) -> TestRun:
        """As `TestRunner.run`."""
        run = self.host.ask("run", script, parser, layer, timeout_s=timeout_s, hash_seed=hash_seed)
        assert isinstance(run, TestRun)
        return run

    def parse(self, parser: str, text: str) -> tuple[TestTable, bool, str]:
        """As `TestRunner.parse`."""
        table = parsed(parser, text)
        if table is not None:
            return table, True, ""
        return self.host.ask("parse", parser, text)  # type: ignore[no-any-return]


def validate_apart(
    host: Host, artifact: BugArtifact, environment: Environment, limits: Limits
) -> ValidationReport:
    """As `validate`."""
    return validate(artifact, environment, AskedRunner(host, environment), limits)


def grade_apart(
    host: Host,
    task: SolveTask,
    fix_patch: str,
    environment: Environment,
    seconds: Mapping[str, float] | None,
) -> GradeReport:
    """As `grade`."""
    return grade(task, fix_patch, AskedRunner(host, environment), seconds)
