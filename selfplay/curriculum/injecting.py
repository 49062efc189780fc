"""First phase of a round: the injector answers, its answers become artifacts, and are validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.validation.validate import validate
from selfplay.curriculum.agentic import play_injections, unsubmitted
from selfplay.curriculum.contexts import Agents, Rollout, RolloutContext, one_turn
from selfplay.errors import InfrastructureError
from selfplay.roles.agentic.injector import AgenticInjection
from selfplay.roles.compact.injector import InjectorPrompt
from selfplay.roles.rejected import Rejected
from selfplay.types import (
    BugArtifact,
    EpisodeStatus,
    InjectionTask,
    SolveTask,
    ValidationReport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionOutcome:
    """What became of one answer. `solve_task` is set when and only when it is a valid bug."""

    reason: str
    artifact: BugArtifact | None = None
    report: ValidationReport | None = None
    solve_task: SolveTask | None = None
    errored: bool = False


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


def inject(
    context: RolloutContext, tasks: Sequence[InjectionTask], num_samples: int
) -> list[Injection]:
    """Sample every task `num_samples` times and validate each distinct answer once."""
    if context.agents is not None:
        return _inject_with_tools(context, context.agents, tasks, num_samples)
    prompts = [context.repo_contexts[task.repo].injector.prompt(task) for task in tasks]
    requests = [
        context.sampling.request("injector", prompt.prompt_ids, num_samples, task.task_id)
        for task, prompt in zip(tasks, prompts, strict=True)
    ]
    answers = context.policy.sample(requests)
    distinct = list(dict.fromkeys((i, c.text) for i, group in enumerate(answers) for c in group))
    outcomes = dict(
        zip(
            distinct,
            context.pool.map(
                lambda key: judge_injection(context, tasks[key[0]], prompts[key[0]], key[1]),
                distinct,
            ),
            strict=True,
        )
    )
    return [
        Injection(task=task, rollout=one_turn(requests[i], c), outcome=outcomes[(i, c.text)])
        for i, task in enumerate(tasks)
        for c in answers[i]
    ]


def _inject_with_tools(
    context: RolloutContext, agents: Agents, tasks: Sequence[InjectionTask], num_samples: int
) -> list[Injection]:
    """Roll out every task `num_samples` times, then validate what was handed in."""
    wanted = [task for task in tasks for _ in range(num_samples)]
    played = play_injections(context, agents, wanted)
    outcomes = context.pool.map(lambda pair: judge_submission(context, *pair), played)
    return [
        Injection(task=task, rollout=play, outcome=outcome)
        for task, (_, play), outcome in zip(wanted, played, outcomes, strict=True)
    ]


def judge_submission(
    context: RolloutContext, injection: AgenticInjection, rollout: Rollout
) -> InjectionOutcome:
    """Validate the five files that an agent handed in, if it did."""
    if rollout.status == "errored":
        return InjectionOutcome(reason=f"infrastructure: {rollout.info['error']}", errored=True)
    if injection.artifact is None:
        rejected = injection.rejected
        return InjectionOutcome(reason=rejected.reason if rejected else unsubmitted(rollout))
    return judge_artifact(context, injection.task, injection.artifact)


def judge_injection(
    context: RolloutContext, task: InjectionTask, prompt: InjectorPrompt, answer: str
) -> InjectionOutcome:
    """Turn one answer into an artifact and validate it; an infrastructure fault is `errored`."""
    try:
        artifact = context.repo_contexts[task.repo].injector.artifact(prompt, answer)
    except Rejected as rejected:
        return InjectionOutcome(reason=rejected.reason)
    except InfrastructureError as error:
        return InjectionOutcome(reason=f"infrastructure: {error}", errored=True)
    return judge_artifact(context, task, artifact)


def judge_artifact(
    context: RolloutContext, task: InjectionTask, artifact: BugArtifact
) -> InjectionOutcome:
    """Validate an artifact; an infrastructure fault is `errored`."""
    repo_context = context.repo_contexts[task.repo]
    try:
        report = validate(
            artifact, repo_context.prepared.environment, repo_context.runner, task.limits
        )
    except InfrastructureError as error:
        return InjectionOutcome(reason=f"infrastructure: {error}", errored=True)
    if report.verdict == "undecided":
        return InjectionOutcome(
            reason=report.reason, artifact=artifact, report=report, errored=True
        )
    if report.verdict == "invalid":
        return InjectionOutcome(reason=report.reason, artifact=artifact, report=report)
    return InjectionOutcome(
        reason="valid",
        artifact=artifact,
        report=report,
        solve_task=solve_task(task.repo, artifact, report, task),
    )


def solve_task(
    repo: str, artifact: BugArtifact, report: ValidationReport, task: InjectionTask
) -> SolveTask:
    """The solver's task that a valid artifact specifies."""
    return SolveTask(
        bug_id=artifact_id(artifact),
        repo=repo,
        artifact=artifact,
        fail_to_pass=report.fail_to_pass,
        pass_to_pass=report.pass_to_pass,
        failure_output=report.failure_output,
        limits=task.limits,
    )
