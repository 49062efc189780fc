"""The agentic scaffold: many turns with tools, in a sandbox that stays for the whole episode."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.agent.driver import Places, play
from selfplay.agent.loop import AgentEpisode, AgentTask, OnTurn
from selfplay.chat import ChatRenderer
from selfplay.config import AgentLimits, PolicyConfig, ScaffoldConfig
from selfplay.curriculum.scaffold import Answer, RepoContext, Rollout, RolloutContext
from selfplay.errors import InfrastructureError
from selfplay.roles.agentic.injector import AgenticInjection, AgenticInjector
from selfplay.roles.agentic.solver import AgenticAttempt, AgenticSolver
from selfplay.roles.rejected import Rejected
from selfplay.sampling import Policy
from selfplay.scripted.agents import ScriptedAgents
from selfplay.seeds import derive_seed
from selfplay.types import BugArtifact, InjectionTask, SolveTask, Strategy


@dataclass(frozen=True, kw_only=True)
class AgenticRoles:
    """Both roles with tools, on one repository."""

    injector: AgenticInjector
    solver: AgenticSolver


@dataclass(frozen=True, kw_only=True)
class AgenticScaffold:
    """Both roles with tools; `roles` by the repository's name, `num_open` sandboxes at once, which
    all rounds that are alive share (`places`)."""

    roles: Mapping[str, AgenticRoles]
    renderer: ChatRenderer
    limits: AgentLimits
    num_open: int
    places: Places
    targeted: bool = True
    on_turn: OnTurn | None = None
    strategies: tuple[Strategy, ...] = field(
        default=("direct", "removal", "history", "feature_add", "combine")
    )

    @classmethod
    def open(
        cls,
        config: ScaffoldConfig,
        policy: Policy,
        repo_contexts: Mapping[str, RepoContext],
        on_turn: OnTurn | None = None,
    ) -> AgenticScaffold:
        """See `Scaffold.open`. Raises `UserError` for bounds that no episode can be played in."""
        agent = config.agent
        return cls(
            roles={
                name: AgenticRoles(
                    injector=AgenticInjector(
                        prepared=context.prepared, runner=context.runner, config=agent
                    ),
                    solver=AgenticSolver(
                        prepared=context.prepared,
                        sandbox=context.runner.sandbox,
                        config=agent,
                        public_share=config.public_share,
                    ),
                )
                for name, context in repo_contexts.items()
            },
            renderer=policy.tokenizer.chat(),
            limits=agent,
            num_open=agent.num_open,
            places=Places(agent.num_open),
            targeted=agent.seeded,
            on_turn=on_turn,
        )

    @classmethod
    def scripted(cls) -> Policy:
        """See `Scaffold.scripted`."""
        return ScriptedAgents()

    @classmethod
    def longest(cls, config: ScaffoldConfig, policy: PolicyConfig) -> int:
        """What the loop allows."""
        return config.agent.max_tokens

    def inject(
        self, context: RolloutContext, tasks: Sequence[InjectionTask], num_samples: int
    ) -> list[list[Answer[BugArtifact]]]:
        """See `Scaffold.inject`."""
        sampling = context.sampling
        injections, agent_tasks = [], []
        for number, task in enumerate(t for t in tasks for _ in range(num_samples)):
            role = self.roles[task.repo].injector
            injections.append(role.begin(task))
            agent_tasks.append(
                role.agent_task(
                    injections[-1],
                    name=f"{task.task_id}/injector/{number}",
                    seed=derive_seed(sampling.seed, task.task_id, number, "injector"),
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                )
            )
        answers = [
            Answer(rollout=rollout, read=functools.partial(_files, injection, rollout), key=number)
            for number, (injection, rollout) in enumerate(
                zip(injections, self._play(context, agent_tasks), strict=True)
            )
        ]
        return [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]

    def solve(
        self, context: RolloutContext, tasks: Sequence[SolveTask], num_samples: int, salt: object
    ) -> list[list[Answer[str]]]:
        """See `Scaffold.solve`. Equal patches are equal answers."""
        sampling = context.sampling
        attempts, agent_tasks = [], []
        for number, task in enumerate(t for t in tasks for _ in range(num_samples)):
            role = self.roles[task.repo].solver
            attempts.append(role.begin(task))
            agent_tasks.append(
                role.agent_task(
                    attempts[-1],
                    name=f"{task.bug_id}/solver/{number}",
                    seed=derive_seed(sampling.seed, task.bug_id, salt, number, "solver"),
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                )
            )
        answers = []
        for number, rollout in enumerate(self._play(context, agent_tasks)):
            attempt = attempts[number]
            judged = attempt.patch is not None and rollout.status != "errored"
            read = functools.partial(_patch, attempt, rollout)
            answers.append(
                Answer(rollout=rollout, read=read, key=attempt.patch if judged else number)
            )
        return [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]

    def _play(self, context: RolloutContext, tasks: Sequence[AgentTask]) -> list[Rollout]:
        """One episode for each task, in order."""
        episodes = [
            AgentEpisode(
                task=task, renderer=self.renderer, limits=self.limits, on_turn=self.on_turn
            )
            for task in tasks
        ]
        play(context, episodes, context.pool, self.places)
        return [to_rollout(episode, context.policy.version) for episode in episodes]


def to_rollout(episode: AgentEpisode, version: int) -> Rollout:
    """A finished episode with its turns as text; `version` is named where nothing was sampled."""
    trajectory = episode.trajectory
    last = episode.turns[-1] if episode.turns else None
    return Rollout(
        trajectory=trajectory,
        answer=last.thought if last else "",
        status=episode.status,
        policy_version=min(p.policy_version for p in trajectory.pieces) if trajectory else version,
        info={
            "ending": episode.ending,
            "error": episode.error,
            "system": episode.task.system,
            "user": episode.task.user,
            "turns": [dataclasses.asdict(turn) for turn in episode.turns],
        },
    )


def _files(injection: AgenticInjection, rollout: Rollout) -> BugArtifact:
    """The five files that were handed in."""
    if rollout.status != "errored" and injection.artifact is not None:
        return injection.artifact
    if rollout.status != "errored" and injection.rejected is not None:
        raise injection.rejected
    raise _nothing_handed_in(rollout)


def _patch(attempt: AgenticAttempt, rollout: Rollout) -> str:
    """What the tree that was handed in differs by."""
    if attempt.patch is None or rollout.status == "errored":
        raise _nothing_handed_in(rollout)
    return attempt.patch


def _nothing_handed_in(rollout: Rollout) -> InfrastructureError | Rejected:
    """Why: a fault of the machine, or the ending that the episode came to."""
    if rollout.status == "errored":
        return InfrastructureError(rollout.info["error"])
    ending = rollout.info["ending"]
    if ending == "no_answer":
        return Rejected(str(rollout.info["error"]))
    return Rejected("bad_calls" if ending == "bad_calls" else f"not_submitted: {ending}")
