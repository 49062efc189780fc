"""Second phase of a round: groups of solver attempts, each graded in a fresh sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.grading.public_tests import overfits, public_tests
from selfplay.curriculum.agentic import play_attempts, unsubmitted
from selfplay.curriculum.contexts import Agents, Rollout, RolloutContext, one_turn
from selfplay.errors import InfrastructureError
from selfplay.roles.compact.solver import SolverPrompt
from selfplay.roles.rejected import Rejected
from selfplay.types import Completion, EpisodeStatus, GradeReport, SolveTask


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveOutcome:
    """What became of one answer; `patch` is "" when the answer gave none. `overfit`: the tests
    that it was shown pass, and others do not."""

    reason: str
    resolved: bool = False
    patch: str = ""
    report: GradeReport | None = None
    errored: bool = False
    overfit: bool = False


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
    if context.agents is not None:
        return _solve_with_tools(context, context.agents, tasks, group_size, salt)
    prompts = context.pool.map(
        lambda task: context.repo_contexts[task.repo].solver.prompt(task), tasks
    )
    requests = [
        context.sampling.request("solver", prompt.prompt_ids, group_size, task.bug_id, salt)
        for task, prompt in zip(tasks, prompts, strict=True)
    ]
    answers = context.policy.sample(requests)
    distinct = list(
        dict.fromkeys(
            (i, c.text) for i, group in enumerate(answers) for c in group if not c.problem
        )
    )
    judged = context.pool.map(
        lambda key: judge_attempt(context, tasks[key[0]], prompts[key[0]], key[1]), distinct
    )
    verdicts = dict(zip(distinct, judged, strict=True))
    return [
        [
            Attempt(
                task=task,
                rollout=one_turn(requests[i], c),
                outcome=no_answer(c) if c.problem else verdicts[(i, c.text)],
            )
            for c in answers[i]
        ]
        for i, task in enumerate(tasks)
    ]


def _solve_with_tools(
    context: RolloutContext,
    agents: Agents,
    tasks: Sequence[SolveTask],
    group_size: int,
    salt: object,
) -> list[list[Attempt]]:
    """Roll out every task `group_size` times, then grade each distinct patch once."""
    wanted = [task for task in tasks for _ in range(group_size)]
    played = play_attempts(context, agents, wanted, salt)
    patches = {(id(a.task), a.patch): a for a, _ in played if a.patch is not None}
    graded = context.pool.map(
        lambda a: grade_patch(context, a.task, a.patch or ""), patches.values()
    )
    verdicts = dict(zip(patches, graded, strict=True))
    attempts = []
    for attempt, play in played:
        if play.status == "errored":
            verdict = SolveOutcome(reason=f"infrastructure: {play.info['error']}", errored=True)
        elif attempt.patch is None:
            verdict = SolveOutcome(reason=unsubmitted(play))
        else:
            verdict = verdicts[(id(attempt.task), attempt.patch)]
        attempts.append(Attempt(task=attempt.task, rollout=play, outcome=verdict))
    return [attempts[i : i + group_size] for i in range(0, len(attempts), group_size)]


def no_answer(completion: Completion) -> SolveOutcome:
    """Of a request that the engine could not answer: its reason, errored by a fault of its own."""
    return SolveOutcome(reason=completion.problem, errored=completion.errored)


def judge_attempt(
    context: RolloutContext, task: SolveTask, prompt: SolverPrompt, answer: str
) -> SolveOutcome:
    """Turn one answer into a fix patch and grade it; an infrastructure fault is `errored`."""
    try:
        patch = context.repo_contexts[task.repo].solver.fix_patch(prompt, answer)
    except Rejected as rejected:
        return SolveOutcome(reason=rejected.reason)
    except InfrastructureError as error:
        return SolveOutcome(reason=f"infrastructure: {error}", errored=True)
    return grade_patch(context, task, patch)


def grade_patch(context: RolloutContext, task: SolveTask, patch: str) -> SolveOutcome:
    """Grade a fix patch in a fresh sandbox; an infrastructure fault is `errored`."""
    repo_context = context.repo_contexts[task.repo]
    try:
        report = grade(task, patch, repo_context.runner)
    except InfrastructureError as error:
        return SolveOutcome(reason=f"infrastructure: {error}", patch=patch, errored=True)
    return SolveOutcome(
        reason=report.reason,
        resolved=report.resolved,
        patch=patch,
        report=report,
        overfit=overfits(report, public_tests(task, repo_context.solver.scaffold.public_share)),
    )


def solve_rate(attempts: Sequence[Attempt]) -> float | None:
    """Share of resolved attempts among those that were not errored; None when all were."""
    judged = [a.outcome.resolved for a in attempts if not a.outcome.errored]
    return sum(judged) / len(judged) if judged else None
