"""Validated procedural bugs: operators on the syntax tree, held to the same validation.

They feed the warm start, held-out suites and baselines. They never stand in for the model inside a
training run.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from selfplay.bugs.artifact import solve_task
from selfplay.bugs.validation.validate import validate
from selfplay.errors import InfrastructureError
from selfplay.roles.compact.injector import CompactInjector
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import BugArtifact, InjectionTask, Limits, SolveTask, ValidationReport
from selfplay.warmstart.procedural_answers import (
    ProceduralAnswer,
    procedural_answers,
    procedural_artifact,
)

CHUNK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ProceduralBug:
    """One mutation and its verdict; `artifact` is None when no test noticed it."""

    found: ProceduralAnswer
    artifact: BugArtifact | None
    report: ValidationReport | None
    reason: str

    @property
    def task(self) -> InjectionTask:
        """The task that the mutation answers."""
        return self.found.task

    def solve_task(self) -> SolveTask | None:
        """The solver's task when the bug is valid."""
        if self.artifact is None or self.report is None or self.report.verdict != "valid":
            return None
        return solve_task(self.task.repo, self.artifact, self.report, self.task.limits)


def validated_bugs(
    injector: CompactInjector,
    pool: SandboxPool,
    *,
    num_tries: int | None = None,
    seed: int = 0,
    max_per_function: int | None = None,
    limits: Limits | None = None,
    done: Collection[str] = (),
) -> Iterator[ProceduralBug]:
    """Mutations of one repository with their verdicts, valid or not, in a reproducible order.

    `done`: ids of tasks that are left out, so that a run that was ended goes on.
    """
    answers = procedural_answers(injector, seed, max_per_function=max_per_function, limits=limits)
    if num_tries is not None:
        answers = itertools.islice(answers, num_tries)
    todo = (found for found in answers if found.task.task_id not in done)
    yield from pool.imap(lambda found: judge(injector, found), todo)


def in_turn(sources: Iterable[Iterator[ProceduralBug]]) -> Iterator[ProceduralBug]:
    """`CHUNK` of each source in turn until all are exhausted."""
    waiting = list(sources)
    while waiting:
        for source in list(waiting):
            chunk = list(itertools.islice(source, CHUNK))
            if not chunk:
                waiting.remove(source)
            yield from chunk


def judge(injector: CompactInjector, found: ProceduralAnswer) -> ProceduralBug:
    """Build the artifact of one mutation and validate it."""
    try:
        artifact = procedural_artifact(injector, found)
        if artifact is None:
            return ProceduralBug(found=found, artifact=None, report=None, reason="unnoticed")
        environment = injector.prepared.environment
        report = validate(artifact, environment, injector.runner, found.task.limits)
    except InfrastructureError as error:
        return ProceduralBug(
            found=found, artifact=None, report=None, reason=f"infrastructure: {error}"
        )
    reason = "valid" if report.verdict == "valid" else report.reason
    return ProceduralBug(found=found, artifact=artifact, report=report, reason=reason)
