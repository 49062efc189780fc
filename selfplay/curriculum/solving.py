"""Second phase of a round: groups of solver attempts, each graded in a fresh sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfplay.bugs.grading import grade
from selfplay.bugs.oracle import overfits, public_tests
from selfplay.curriculum.arena import Stage
from selfplay.errors import InfrastructureError
from selfplay.policy.base import SampleRequest
from selfplay.roles.rejected import Rejected
from selfplay.roles.solver import SolverPrompt
from selfplay.seeds import derive_seed
from selfplay.types import Completion, EpisodeStatus, GradeReport, SolveTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
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
    prompt_ids: tuple[int, ...]
    completion: Completion
    judgement: Judgement

    @property
    def status(self) -> EpisodeStatus:
        """Errored beats truncated beats completed."""
        if self.judgement.errored:
            return "errored"
        return "truncated" if self.completion.finish_reason == "length" else "completed"


def solve(
    stage: Stage, tasks: Sequence[SolveTask], group_size: int, *, salt: object = ""
) -> list[list[Attempt]]:
    """`group_size` attempts on each task, in order. `salt` separates repeated draws (the step).

    Equal answers to one task are graded once: a verdict is a function of the patch.
    """
    prompts = stage.pool.map(lambda task: stage.arenas[task.repo].solver.prompt(task), tasks)
    answers = stage.policy.sample(
        [
            SampleRequest(
                prompt_ids=prompt.prompt_ids,
                num_samples=group_size,
                max_new_tokens=stage.sampling.max_new_tokens,
                temperature=stage.sampling.temperature,
                top_p=stage.sampling.top_p,
                seed=derive_seed(stage.sampling.seed, task.bug_id, salt, "solver"),
            )
            for task, prompt in zip(tasks, prompts, strict=True)
        ]
    )
    distinct = list(dict.fromkeys((i, c.text) for i, group in enumerate(answers) for c in group))
    judged = stage.pool.map(
        lambda key: judge_attempt(stage, tasks[key[0]], prompts[key[0]], key[1]), distinct
    )
    verdicts = dict(zip(distinct, judged, strict=True))
    return [
        [
            Attempt(
                task=task,
                prompt_ids=prompts[i].prompt_ids,
                completion=c,
                judgement=verdicts[(i, c.text)],
            )
            for c in answers[i]
        ]
        for i, task in enumerate(tasks)
    ]


def judge_attempt(stage: Stage, task: SolveTask, prompt: SolverPrompt, answer: str) -> Judgement:
    """Turn one answer into a fix patch and grade it; an infrastructure fault is `errored`."""
    arena = stage.arenas[task.repo]
    patch = ""
    try:
        patch = arena.solver.fix_patch(prompt, answer)
        report = grade(task, patch, arena.runner)
    except Rejected as rejected:
        return Judgement(reason=rejected.reason)
    except InfrastructureError as error:
        return Judgement(reason=f"infrastructure: {error}", patch=patch, errored=True)
    return Judgement(
        reason=report.reason,
        resolved=report.resolved,
        patch=patch,
        report=report,
        overfit=overfits(report, public_tests(task, arena.solver.scaffold.public_share)),
    )


def solve_rate(attempts: Sequence[Attempt]) -> float | None:
    """Share of resolved attempts among those that were not errored; None when all were."""
    judged = [a.judgement.resolved for a in attempts if not a.judgement.errored]
    return sum(judged) / len(judged) if judged else None
