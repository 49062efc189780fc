"""Second phase of a step: groups of solver attempts, each graded in a fresh sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfplay.bug_sources.rebuild import STRATEGY
from selfplay.bugs.grading.public_tests import overfits, public_tests
from selfplay.curriculum.scaffold import Answer, Rollout, RolloutContext, judge_once
from selfplay.errors import InfrastructureError
from selfplay.roles.rejected import Rejected
from selfplay.roles.rewards import SolverReward
from selfplay.types import Episode, EpisodeStatus, GradeReport, SolveTask


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveOutcome:
    """What became of one answer; `patch` is "" when the answer gave none. `overfit`: the tests
    that it was shown pass, and others do not. `share`: of the failing tests that pass with it, None
    where not all of them were run."""

    reason: str
    resolved: bool = False
    patch: str = ""
    report: GradeReport | None = None
    errored: bool = False
    overfit: bool = False
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One solver episode."""

    task: SolveTask
    rollout: Rollout
    outcome: SolveOutcome

    @property
    def status(self) -> EpisodeStatus:
        """Errored beats truncated beats completed."""
        return "errored" if self.outcome.errored else self.rollout.status


def solve(
    context: RolloutContext, tasks: Sequence[SolveTask], group_size: int, *, salt: object = ""
) -> list[list[Attempt]]:
    """`group_size` attempts on each task, in order. `salt` separates repeated draws (the step).

    Equal answers to one task are graded once: a verdict is a function of the patch.
    """
    if not tasks:
        return []
    answers = context.scaffold.solve(context, tasks, group_size, salt)

    def judge(task: SolveTask, answer: Answer[str]) -> SolveOutcome:
        return judge_attempt(context, task, answer)

    outcomes = judge_once(context.pool, tasks, answers, judge)
    return [
        [
            Attempt(task=task, rollout=answer.rollout, outcome=outcome)
            for answer, outcome in zip(group, judged, strict=True)
        ]
        for task, group, judged in zip(tasks, answers, outcomes, strict=True)
    ]


def judge_attempt(context: RolloutContext, task: SolveTask, answer: Answer[str]) -> SolveOutcome:
    """Read one answer and grade its fix patch in a fresh sandbox; an infrastructure fault is
    `errored`."""
    patch = ""
    seconds = None if is_rebuilt(task) else context.seconds_of(task.repo)
    try:
        patch = answer.read()
        report = context.repo_contexts[task.repo].grade(task, patch, seconds)
    except Rejected as rejected:
        share = None if rejected.errored or seconds is not None else 0.0
        return SolveOutcome(reason=rejected.reason, errored=rejected.errored, share=share)
    except InfrastructureError as error:
        return SolveOutcome(reason=f"infrastructure: {error}", patch=patch, errored=True)
    return SolveOutcome(
        reason=report.reason,
        resolved=report.resolved,
        patch=patch,
        report=report,
        overfit=overfits(report, public_tests(task, context.public_share)),
        share=None if seconds is not None else test_share(report),
    )


def is_rebuilt(task: SolveTask) -> bool:
    """Whether a whole module is to be rebuilt: how far an attempt came is told, all tests run."""
    return task.artifact.meta.get("strategy") == STRATEGY


def test_share(report: GradeReport) -> float:
    """Share of FAIL_TO_PASS that passes, in [0, 1]; 0 where the run is void. It is told and never
    paid. Example: {"a": "passed", "b": "missing"} gives 0.5."""
    if report.reason not in ("", "fail_to_pass", "pass_to_pass") or not report.fail_to_pass:
        return 0.0
    return sum(s == "passed" for s in report.fail_to_pass.values()) / len(report.fail_to_pass)


test_share.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


def told_share(outcome: SolveOutcome) -> dict[str, float]:
    """The share as a part of a record; nothing where it is not known."""
    return {} if outcome.share is None else {"test_share": outcome.share}


def solve_rate(attempts: Sequence[Attempt]) -> float | None:
    """Share of resolved attempts among those that were not errored; None when all were."""
    judged = [a.outcome.resolved for a in attempts if not a.outcome.errored]
    return sum(judged) / len(judged) if judged else None


def attempt_id(step: int, bug_id: str, index: int) -> str:
    """The episode id of the attempt number `index` on a bug."""
    return f"step{step}/solver/{bug_id}/{index}"


def solver_group(step: int, bug_id: str) -> str:
    """The group id of the attempts on a bug."""
    return f"step{step}/solver/{bug_id}"


def solver_episode(
    step: int, index: int, attempt: Attempt, reward: SolverReward, part: str = ""
) -> Episode:
    """The record of one solver attempt, with its reward. `part`: of its bug's group, for one whose
    peers are not all attempts on the bug."""
    task, outcome, rollout = attempt.task, attempt.outcome, attempt.rollout
    bug_patch = task.artifact.bug_patch
    return Episode(
        episode_id=attempt_id(step, task.bug_id, index),
        group_id=f"{solver_group(step, task.bug_id)}{part}",
        role="solver",
        repo=task.repo,
        task_id=task.bug_id,
        bug_id=task.bug_id,
        status=attempt.status,
        reward=None if outcome.errored else reward(outcome.resolved, outcome.patch, bug_patch),
        reason=outcome.reason,
        trajectory=rollout.trajectory,
        answer=rollout.answer,
        policy_version=rollout.policy_version,
        info={**rollout.info, "step": step, "patch": outcome.patch, **told_share(outcome)},
    )
