"""One repository with everything that is needed to play on it, and the state that rounds share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfplay.bugs.testing import TestRunner
from selfplay.policy.base import Policy
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.injector import CompactInjector
from selfplay.roles.solver import CompactSolver
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import Completion, Trajectory, Turn


@dataclass(frozen=True, kw_only=True)
class Arena:
    """A prepared repository, its test runner, and the two roles on it."""

    prepared: PreparedRepo
    runner: TestRunner
    injector: CompactInjector
    solver: CompactSolver


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the policy is sampled; `seed` is the run's."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 80
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What both phases of a round need: who plays, where, and on how many workers."""

    policy: Policy
    arenas: Mapping[str, Arena]
    pool: SandboxPool
    sampling: Sampling


def trajectory(prompt_ids: tuple[int, ...], completion: Completion) -> Trajectory:
    """Prompt and answer as aligned lists.

    Example: prompt (5, 6), answer (7, 8) with logprobs (-1., -2.) gives ids (5, 6, 7, 8),
    mask (0, 0, 1, 1) and logprobs (0., 0., -1., -2.).
    """
    num_prompt, version = len(prompt_ids), completion.policy_version
    end = num_prompt + len(completion.token_ids)
    return Trajectory(
        token_ids=prompt_ids + completion.token_ids,
        loss_mask=(0,) * num_prompt + (1,) * len(completion.token_ids),
        logprobs=(0.0,) * num_prompt + completion.logprobs,
        policy_version=version,
        turns=(Turn(start=num_prompt, end=end, policy_version=version),),
    )
