"""One repository with everything that is needed to play on it, and the state that rounds share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfplay.agent.loop import OnTurn
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.chat import ChatRenderer
from selfplay.config import AgentLimits
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.agentic.injector import AgenticInjector
from selfplay.roles.agentic.solver import AgenticSolver
from selfplay.roles.compact.injector import CompactInjector
from selfplay.roles.compact.solver import CompactSolver
from selfplay.sampling import Policy, SampleRequest, logprob_temperature
from selfplay.sandbox.pool import SandboxPool
from selfplay.seeds import derive_seed
from selfplay.types import Completion, EpisodeStatus, Role, Trajectory, Turn


@dataclass(frozen=True, kw_only=True)
class AgenticRoles:
    """Both roles with tools, on one repository."""

    injector: AgenticInjector
    solver: AgenticSolver


@dataclass(frozen=True, kw_only=True)
class RepoContext:
    """A prepared repository, its test runner, and the two roles on it. The compact roles are there
    always: they know which functions a seed may name, and the self-check plays with them."""

    prepared: PreparedRepo
    runner: TestRunner
    injector: CompactInjector
    solver: CompactSolver
    agentic: AgenticRoles | None = None


@dataclass(frozen=True, kw_only=True)
class Agents:
    """How agentic episodes are played; `on_turn` sees every turn as it happens."""

    renderer: ChatRenderer
    limits: AgentLimits
    num_open: int
    on_turn: OnTurn | None = None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the policy is sampled; `seed` is the run's. `injector_temperature`: None for the same."""

    temperature: float = 1.0
    injector_temperature: float | None = None
    top_p: float = 1.0
    max_new_tokens: int = 80
    seed: int = 0

    def temperature_of(self, role: Role) -> float:
        """The temperature of a role's answers."""
        own = self.injector_temperature if role == "injector" else None
        return self.temperature if own is None else own

    def request(
        self, role: Role, prompt_ids: tuple[int, ...], num_samples: int, *key: object
    ) -> SampleRequest:
        """What to sample for a role that answers in one turn; `key` makes its seed."""
        return SampleRequest(
            prompt_ids=prompt_ids,
            num_samples=num_samples,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature_of(role),
            top_p=self.top_p,
            seed=derive_seed(self.seed, *key, role),
        )


@dataclass(frozen=True, kw_only=True)
class RolloutContext:
    """What both phases of a round need: who plays, where, and on how many workers. With `agents`
    the roles have tools; without, they answer in one turn."""

    policy: Policy
    repo_contexts: Mapping[str, RepoContext]
    pool: SandboxPool
    sampling: Sampling
    agents: Agents | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What was sampled for one task, before it is judged. `info` goes into the episode's record;
    `trajectory` is None when nothing was sampled."""

    trajectory: Trajectory | None
    answer: str
    status: EpisodeStatus
    policy_version: int
    info: Mapping[str, Any] = field(default_factory=dict)


def one_turn(request: SampleRequest, completion: Completion) -> Rollout:
    """The play of a role that answers once."""
    return Rollout(
        trajectory=trajectory(request, completion),
        answer=completion.text,
        status="truncated" if completion.finish_reason == "length" else "completed",
        policy_version=completion.policy_version,
    )


def trajectory(request: SampleRequest, completion: Completion) -> Trajectory:
    """Prompt and answer as aligned lists.

    Example: prompt (5, 6), answer (7, 8) with logprobs (-1., -2.) gives ids (5, 6, 7, 8),
    mask (0, 0, 1, 1) and logprobs (0., 0., -1., -2.).
    """
    prompt_ids = request.prompt_ids
    num_prompt, version = len(prompt_ids), completion.policy_version
    end = num_prompt + len(completion.token_ids)
    return Trajectory(
        token_ids=prompt_ids + completion.token_ids,
        loss_mask=(0,) * num_prompt + (1,) * len(completion.token_ids),
        logprobs=(0.0,) * num_prompt + completion.logprobs,
        policy_version=version,
        turns=(Turn(start=num_prompt, end=end, policy_version=version),),
        temperature=logprob_temperature(request.temperature),
    )
