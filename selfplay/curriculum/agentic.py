"""Agentic episodes of both roles, played but not yet judged: the other side of `arena.one_turn`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from selfplay.agent.driver import play
from selfplay.agent.loop import AgentEpisode, AgentTask
from selfplay.curriculum.arena import AgenticRoles, Agents, Play, Stage
from selfplay.roles.agentic.injector import AgenticInjection
from selfplay.roles.agentic.solver import AgenticAttempt
from selfplay.seeds import derive_seed
from selfplay.types import InjectionTask, SolveTask


def play_injections(
    stage: Stage, agents: Agents, tasks: Sequence[InjectionTask]
) -> list[tuple[AgenticInjection, Play]]:
    """One episode for each task, in order. Raises `PolicyError`."""
    begun, episodes = [], []
    for number, task in enumerate(tasks):
        role = _roles(stage, task.repo).injector
        injection = role.begin(task)
        agent_task = role.agent_task(
            injection,
            name=f"{task.task_id}/injector/{number}",
            seed=derive_seed(stage.sampling.seed, task.task_id, number, "injector"),
            temperature=stage.sampling.temperature_of("injector"),
            top_p=stage.sampling.top_p,
        )
        begun.append(injection)
        episodes.append(_episode(agents, agent_task))
    play(stage.policy, episodes, stage.pool, agents.num_open)
    return [(b, to_play(e, stage.policy.version)) for b, e in zip(begun, episodes, strict=True)]


def play_attempts(
    stage: Stage, agents: Agents, tasks: Sequence[SolveTask], salt: object
) -> list[tuple[AgenticAttempt, Play]]:
    """One episode for each task, in order. Raises `PolicyError`."""
    begun, episodes = [], []
    for number, task in enumerate(tasks):
        role = _roles(stage, task.repo).solver
        attempt = role.begin(task)
        agent_task = role.agent_task(
            attempt,
            name=f"{task.bug_id}/solver/{number}",
            seed=derive_seed(stage.sampling.seed, task.bug_id, salt, number, "solver"),
            temperature=stage.sampling.temperature_of("solver"),
            top_p=stage.sampling.top_p,
        )
        begun.append(attempt)
        episodes.append(_episode(agents, agent_task))
    play(stage.policy, episodes, stage.pool, agents.num_open)
    return [(b, to_play(e, stage.policy.version)) for b, e in zip(begun, episodes, strict=True)]


def to_play(episode: AgentEpisode, version: int) -> Play:
    """A finished episode with its turns as text; `version` is named where nothing was sampled."""
    trajectory = episode.trajectory
    last = episode.turns[-1] if episode.turns else None
    return Play(
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


def unsubmitted(play: Play) -> str:
    """The reason of an episode in which nothing was handed in."""
    ending = play.info["ending"]
    return "bad_calls" if ending == "bad_calls" else f"not_submitted: {ending}"


def _episode(agents: Agents, task: AgentTask) -> AgentEpisode:
    return AgentEpisode(
        task=task, renderer=agents.renderer, limits=agents.limits, on_turn=agents.on_turn
    )


def _roles(stage: Stage, repo: str) -> AgenticRoles:
    roles = stage.arenas[repo].agentic
    assert roles is not None, "a stage with agents has agentic roles in every arena"
    return roles
