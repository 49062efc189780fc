"""First phase of a round: the injector answers, its answers become artifacts, and are validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.validation.validate import validate
from selfplay.curriculum.agentic import play_injections, unsubmitted
from selfplay.curriculum.arena import Agents, Play, Stage, one_turn
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
class Outcome:
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
    play: Play
    outcome: Outcome

    @property
    def status(self) -> EpisodeStatus:
        """Errored beats truncated beats completed."""
        return "errored" if self.outcome.errored else self.play.status


def inject(stage: Stage, tasks: Sequence[InjectionTask], num_samples: int) -> list[Injection]:
    """Sample every task `num_samples` times and validate each distinct answer once."""
    if stage.agents is not None:
        return _inject_with_tools(stage, stage.agents, tasks, num_samples)
    prompts = [stage.arenas[task.repo].injector.prompt(task) for task in tasks]
    requests = [
        stage.sampling.request("injector", prompt.prompt_ids, num_samples, task.task_id)
        for task, prompt in zip(tasks, prompts, strict=True)
    ]
    answers = stage.policy.sample(requests)
    distinct = list(dict.fromkeys((i, c.text) for i, group in enumerate(answers) for c in group))
    outcomes = dict(
        zip(
            distinct,
            stage.pool.map(
                lambda key: judge_injection(stage, tasks[key[0]], prompts[key[0]], key[1]),
                distinct,
            ),
            strict=True,
        )
    )
    return [
        Injection(task=task, play=one_turn(requests[i], c), outcome=outcomes[(i, c.text)])
        for i, task in enumerate(tasks)
        for c in answers[i]
    ]


def _inject_with_tools(
    stage: Stage, agents: Agents, tasks: Sequence[InjectionTask], num_samples: int
) -> list[Injection]:
    """Play every task `num_samples` times, then validate what was handed in."""
    wanted = [task for task in tasks for _ in range(num_samples)]
    played = play_injections(stage, agents, wanted)
    outcomes = stage.pool.map(lambda pair: judge_submission(stage, *pair), played)
    return [
        Injection(task=task, play=play, outcome=outcome)
        for task, (_, play), outcome in zip(wanted, played, outcomes, strict=True)
    ]


def judge_submission(stage: Stage, injection: AgenticInjection, play: Play) -> Outcome:
    """Validate the five files that an agent handed in, if it did."""
    if play.status == "errored":
        return Outcome(reason=f"infrastructure: {play.info['error']}", errored=True)
    if injection.artifact is None:
        rejected = injection.rejected
        return Outcome(reason=rejected.reason if rejected else unsubmitted(play))
    return judge_artifact(stage, injection.task, injection.artifact)


def judge_injection(
    stage: Stage, task: InjectionTask, prompt: InjectorPrompt, answer: str
) -> Outcome:
    """Turn one answer into an artifact and validate it; an infrastructure fault is `errored`."""
    try:
        artifact = stage.arenas[task.repo].injector.artifact(prompt, answer)
    except Rejected as rejected:
        return Outcome(reason=rejected.reason)
    except InfrastructureError as error:
        return Outcome(reason=f"infrastructure: {error}", errored=True)
    return judge_artifact(stage, task, artifact)


def judge_artifact(stage: Stage, task: InjectionTask, artifact: BugArtifact) -> Outcome:
    """Validate an artifact; an infrastructure fault is `errored`."""
    arena = stage.arenas[task.repo]
    try:
        report = validate(artifact, arena.prepared.environment, arena.runner, task.limits)
    except InfrastructureError as error:
        return Outcome(reason=f"infrastructure: {error}", errored=True)
    if report.verdict == "undecided":
        return Outcome(reason=report.reason, artifact=artifact, report=report, errored=True)
    if report.verdict == "invalid":
        return Outcome(reason=report.reason, artifact=artifact, report=report)
    return Outcome(
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
