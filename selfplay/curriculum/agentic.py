"""Agentic episodes of both roles, not yet judged: the other side of `contexts.one_turn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from selfplay.agent.driver import play
from selfplay.agent.loop import AgentEpisode, AgentTask
from selfplay.curriculum.contexts import AgenticRoles, Agents, Rollout, RolloutContext
from selfplay.roles.agentic.injector import AgenticInjection
from selfplay.roles.agentic.solver import AgenticAttempt
from selfplay.seeds import derive_seed
from selfplay.types import InjectionTask, SolveTask


def play_injections(
    context: RolloutContext, agents: Agents, tasks: Sequence[InjectionTask]
) -> list[tuple[AgenticInjection, Rollout]]:
    """One episode for each task, in order. Raises `PolicyError`."""
    begun, episodes = [], []
    for number, task in enumerate(tasks):
        role = _roles(context, task.repo).injector
        injection = role.begin(task)
        agent_task = role.agent_task(
            injection,
            name=f"{task.task_id}/injector/{number}",
            seed=derive_seed(context.sampling.seed, task.task_id, number, "injector"),
            temperature=context.sampling.temperature_of("injector"),
            top_p=context.sampling.top_p,
        )
        begun.append(injection)
        episodes.append(_episode(agents, agent_task))
    play(context.policy, episodes, context.pool, agents.num_open)
    return [
        (b, to_rollout(e, context.policy.version)) for b, e in zip(begun, episodes, strict=True)
    ]


def play_attempts(
    context: RolloutContext, agents: Agents, tasks: Sequence[SolveTask], salt: object
) -> list[tuple[AgenticAttempt, Rollout]]:
    """One episode for each task, in order. Raises `PolicyError`."""
    begun, episodes = [], []
    for number, task in enumerate(tasks):
        role = _roles(context, task.repo).solver
        attempt = role.begin(task)
        agent_task = role.agent_task(
            attempt,
            name=f"{task.bug_id}/solver/{number}",
            seed=derive_seed(context.sampling.seed, task.bug_id, salt, number, "solver"),
            temperature=context.sampling.temperature_of("solver"),
            top_p=context.sampling.top_p,
        )
        begun.append(attempt)
        episodes.append(_episode(agents, agent_task))
    play(context.policy, episodes, context.pool, agents.num_open)
    return [
        (b, to_rollout(e, context.policy.version)) for b, e in zip(begun, episodes, strict=True)
    ]


def to_rollout(episode: AgentEpisode, version: int) -> Rollout:
    """A finished episode with its turns as text; `version` is named where nothing was sampled."""
    trajectory = episode.trajectory
    last = episode.turns[-1] if episode.turns else None
    return Rollout(
        trajectory=trajectory,
        answer=last.thought if last else "",
        status=episode.status,
        policy_version=trajectory.policy_version if trajectory else version,
        info={
            "ending": episode.ending,
            "error": episode.error,
            "system": episode.task.system,
            "user": episode.task.user,
            "turns": [dataclasses.asdict(turn) for turn in episode.turns],
        },
    )


def unsubmitted(rollout: Rollout) -> str:
    """The reason of an episode in which nothing was handed in."""
    ending = rollout.info["ending"]
    if ending == "no_answer":
        return str(rollout.info["error"])
    return "bad_calls" if ending == "bad_calls" else f"not_submitted: {ending}"


def _episode(agents: Agents, task: AgentTask) -> AgentEpisode:
    return AgentEpisode(
        task=task, renderer=agents.renderer, limits=agents.limits, on_turn=agents.on_turn
    )


def _roles(context: RolloutContext, repo: str) -> AgenticRoles:
    roles = context.repo_contexts[repo].agentic
    assert roles is not None, "a context with agents has agentic roles in every repo_context"
    return roles
