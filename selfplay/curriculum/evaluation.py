"""Solver evaluation: every task of a suite attempted n times, resolved or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfplay.curriculum.scaffold import RolloutContext
from selfplay.curriculum.solving import Attempt, solve
from selfplay.statistics import Interval, bootstrap_pass_at_k
from selfplay.types import SolveTask

CHUNK = 16
"""Tasks for each call of `solve`: small enough for a living progress bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """One task: c of n judged attempts resolved it; errored ones are counted apart."""

    instance_id: str
    repo: str
    num_judged: int
    num_resolved: int
    num_errored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of a suite with pass@1 and pass@n, 95 % bootstrap intervals over tasks."""

    scores: tuple[TaskScore, ...]
    num_samples: int
    pass_at_1: Interval
    pass_at_n: Interval
    reasons: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The document that `evaluate json=true` and `summary.json` hold."""
        return {
            "num_tasks": len(self.scores),
            "num_samples": self.num_samples,
            "pass@1": self.pass_at_1.to_json(),
            f"pass@{self.num_samples}": self.pass_at_n.to_json(),
            "num_errored": sum(s.num_errored for s in self.scores),
            "reasons": self.reasons,
            "tasks": [
                {
                    "instance_id": s.instance_id,
                    "repo": s.repo,
                    "n": s.num_judged,
                    "resolved": s.num_resolved,
                    "errored": s.num_errored,
                }
                for s in self.scores
            ],
        }


def evaluate(
    context: RolloutContext,
    tasks: Sequence[SolveTask],
    num_samples: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Attempt each task `num_samples` times. Draws depend on the context's seed, not on the step,
    so that two evaluations of one policy are the same."""
    groups: list[list[Attempt]] = []
    for start in range(0, len(tasks), CHUNK):
        chunk = tasks[start : start + CHUNK]
        groups += solve(context, chunk, num_samples, salt="evaluation")
        on_progress(len(groups), len(tasks))
    scores = tuple(
        TaskScore(
            instance_id=task.bug_id,
            repo=task.repo,
            num_judged=sum(not a.outcome.errored for a in group),
            num_resolved=sum(a.outcome.resolved for a in group),
            num_errored=sum(a.outcome.errored for a in group),
        )
        for task, group in zip(tasks, groups, strict=True)
    )
    counts = [(s.num_judged, s.num_resolved) for s in scores if s.num_judged]
    reasons: dict[str, int] = {}
    for attempt in (a for group in groups for a in group):
        reason = "resolved" if attempt.outcome.resolved else attempt.outcome.reason
        reasons[reason.split(":")[0]] = reasons.get(reason.split(":")[0], 0) + 1
    smallest = min((n for n, _ in counts), default=num_samples)
    return Evaluation(
        scores=scores,
        num_samples=num_samples,
        pass_at_1=bootstrap_pass_at_k(counts, k=1),
        pass_at_n=bootstrap_pass_at_k(counts, k=min(num_samples, smallest)),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
    )
