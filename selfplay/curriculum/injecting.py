"""First phase of a step: the injector's answers become artifacts, and are validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfplay.bugs.artifact import solve_task
from selfplay.curriculum.groups.screening import Screening, worth_validating
from selfplay.curriculum.scaffold import Answer, Rollout, RolloutContext, judge_once
from selfplay.errors import InfrastructureError
from selfplay.roles.rejected import Rejected
from selfplay.roles.rewards import InjectorReward
from selfplay.types import (
    BugArtifact,
    Episode,
    EpisodeStatus,
    InjectionTask,
    SolveTask,
    ValidationReport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionOutcome:
    """What became of one answer. `solve_task` is set when and only when it is a valid bug;
    `is_left_out`: it was not validated, and nothing is known of it."""

    reason: str
    artifact: BugArtifact | None = None
    report: ValidationReport | None = None
    solve_task: SolveTask | None = None
    errored: bool = False
    is_left_out: bool = False


LEFT_OUT = InjectionOutcome(reason="not_validated", is_left_out=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """One injector episode before its reward is known."""

    task: InjectionTask
    rollout: Rollout
    outcome: InjectionOutcome

    @property
    def status(self) -> EpisodeStatus:
        """Errored beats truncated beats completed."""
        return "errored" if self.outcome.errored else self.rollout.status

    @property
    def bug_id(self) -> str | None:
        """Of a valid bug; it may be another's duplicate."""
        return self.outcome.solve_task.bug_id if self.outcome.solve_task else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplayed:
    """A valid bug that nobody was asked to repair: the probability of its gold answer, and what its
    injector is paid (None: nothing, its episode stays out of the loss)."""

    probability: float
    paid: float | None


def inject(
    context: RolloutContext,
    tasks: Sequence[InjectionTask],
    num_samples: int,
    screening: Screening | None = None,
) -> list[Injection]:
    """Sample every task `num_samples` times and validate each distinct answer once; with
    `screening`, those that are worth it."""
    answers = context.scaffold.inject(context, tasks, num_samples)
    wanted = None
    if screening is not None:
        wanted = worth_validating(context, tasks, answers, screening)

    def judge(task: InjectionTask, answer: Answer[BugArtifact]) -> InjectionOutcome:
        return judge_injection(context, task, answer)

    outcomes = judge_once(context.pool, tasks, answers, judge, wanted, LEFT_OUT)
    return [
        Injection(task=task, rollout=answer.rollout, outcome=outcome)
        for task, group, judged in zip(tasks, answers, outcomes, strict=True)
        for answer, outcome in zip(group, judged, strict=True)
    ]


def judge_injection(
    context: RolloutContext, task: InjectionTask, answer: Answer[BugArtifact]
) -> InjectionOutcome:
    """Read one answer and validate its artifact; an infrastructure fault, and a validation that
    came to no verdict, is `errored`."""
    repo = context.repo_contexts[task.repo]
    artifact: BugArtifact | None = None
    try:
        artifact = answer.read()
        report = repo.validate(artifact, task.limits)
    except Rejected as rejected:
        return InjectionOutcome(reason=rejected.reason, errored=rejected.errored)
    except InfrastructureError as error:
        return InjectionOutcome(reason=f"infrastructure: {error}", errored=True)
    valid = report.verdict == "valid"
    return InjectionOutcome(
        reason="valid" if valid else report.reason,
        artifact=artifact,
        report=report,
        solve_task=solve_task(task.repo, artifact, report, task.limits) if valid else None,
        errored=report.verdict == "undecided",
    )


def injector_episode(
    step: int,
    index: int,
    injection: Injection,
    *,
    solve_rate: float | None,
    is_duplicate: bool,
    reward: InjectorReward,
    unplayed: Unplayed | None = None,
) -> Episode:
    """The record of one injection with its reward.

    A duplicate is paid as an invalid bug. A valid bug whose attempts were all errored has no solve
    rate: its episode is errored too, and has no reward. One that was not played is no fault: its
    episode keeps its status, and has a reward only where the estimate pays it. What was not
    validated has none.
    """
    task, reason = injection.task, injection.outcome.reason
    status, paid = injection.status, None
    if injection.outcome.is_left_out:
        pass
    elif is_duplicate:
        reason, paid = "duplicate", reward(False, None)
    elif status != "errored" and injection.bug_id is None:
        paid = reward(False, None)
    elif status != "errored" and solve_rate is not None:
        paid = reward(True, solve_rate)
    elif status != "errored" and unplayed is not None:
        reason, paid = "not_played", unplayed.paid
    else:
        status = "errored"
    return Episode(
        episode_id=f"step{step}/injector/{index}",
        group_id=task.group_id,
        role="injector",
        repo=task.repo,
        task_id=task.task_id,
        bug_id=injection.bug_id,
        status=status,
        reward=paid,
        reason=reason,
        trajectory=injection.rollout.trajectory,
        answer=injection.rollout.answer,
        policy_version=injection.rollout.policy_version,
        info={
            **injection.rollout.info,
            "step": step,
            "strategy": task.strategy,
            "path": task.target.path,
            "function": task.target.function,
            "solve_rate": solve_rate,
            **({"gold_probability": unplayed.probability} if unplayed else {}),
        },
    )
