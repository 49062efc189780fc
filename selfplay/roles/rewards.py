"""Rewards of both roles (arXiv 2512.18552), as plain functions of what happened."""

from __future__ import annotations

import math
from collections.abc import Callable

from selfplay.bugs.patches.diffs import reverse_patch
from selfplay.config import RewardConfig
from selfplay.errors import PatchError, UserError
from selfplay.roles.credit import partial_credit, patch_similarity

InjectorReward = Callable[[bool, float | None], float]
"""(passed validation, solve rate of its solver group) -> reward. An invalid bug has no group."""

SolverReward = Callable[[bool, str, str], float]
"""(resolved, fix patch ("" when there is none), patch of the bug) -> reward of one attempt."""

INVALID = -1.0
"""Reward of an injection that fails validation, under every variant."""


def solver_reward(resolved: bool) -> float:
    """+1 if the attempt was graded as resolved, else -1."""
    return 1.0 if resolved else -1.0


def injector_reward(s: float, alpha: float = 0.8) -> float:
    """Reward of a valid bug with solve rate `s` in [0, 1].

    -alpha when nobody or everybody solves it, else 1 - (1 + alpha) s: a bug solved once in eight
    earns 1 - 1.8 / 8 = 0.775, one solved seven times -0.575.
    """
    _check_rate(s)
    return -alpha if s in (0.0, 1.0) else 1.0 - (1.0 + alpha) * s


def band_reward(s: float, low: float, high: float) -> float:
    """+1 for a solve rate within [low, high], else -1."""
    _check_rate(s)
    return 1.0 if low <= s <= high else -1.0


def power_reward(s: float, a: float, b: float) -> float:
    """s^a (1 - s)^b, scaled so that its peak, at s = a / (a + b), is 1; 0 at both ends."""
    _check_rate(s)
    peak = a / (a + b)
    return float(s**a * (1 - s) ** b / (peak**a * (1 - peak) ** b))


def expected_reward(probability: float, group_size: int, reward: InjectorReward) -> float:
    """What a valid bug would be paid on average, were each of `group_size` attempts resolved with
    this probability: the mean of the reward over the binomial distribution.

    By hand, p = 0.5 and two attempts: rates 0, 0.5, 1 with 1/4, 1/2, 1/4.
    """
    _check_rate(probability)
    return math.fsum(
        math.comb(group_size, k)
        * probability**k
        * (1.0 - probability) ** (group_size - k)
        * reward(True, k / group_size)
        for k in range(group_size + 1)
    )


def make_injector_reward(config: RewardConfig) -> InjectorReward:
    """The configured variant: solve_rate, consistency, band or power. Raises `UserError`."""
    variants: dict[str, Callable[[float], float]] = {
        "solve_rate": lambda s: injector_reward(s, config.alpha),
        "band": lambda s: band_reward(s, config.low, config.high),
        "power": lambda s: power_reward(s, config.a, config.b),
    }
    if config.injector != "consistency" and config.injector not in variants:
        names = ", ".join(["consistency", *variants])
        raise UserError(f"reward.injector={config.injector!r} is unknown; one of: {names}")
    if config.injector == "consistency":
        return lambda valid, _: 1.0 if valid else INVALID

    def reward(valid: bool, solve_rate: float | None) -> float:
        if not valid:
            return INVALID
        if solve_rate is None:
            raise ValueError(f"the {config.injector} reward of a valid bug needs its solve rate")
        return variants[config.injector](solve_rate)

    return reward


def make_solver_reward(config: RewardConfig) -> SolverReward:
    """The configured variant: resolved, similarity or partial; under each, an attempt without a
    patch earns `no_edit`. Raises `UserError`."""
    variants: dict[str, SolverReward] = {
        "resolved": lambda resolved, patch, bug_patch: solver_reward(resolved),
        "similarity": lambda resolved, patch, bug_patch: patch_similarity_reward(
            patch, reverse_patch(bug_patch)
        ),
        "partial": lambda resolved, patch, bug_patch: partial_reward(
            resolved, patch, reverse_patch(bug_patch)
        ),
    }
    if config.solver not in variants:
        names = ", ".join(variants)
        raise UserError(f"reward.solver={config.solver!r} is unknown; one of: {names}")
    variant = variants[config.solver]

    def reward(resolved: bool, patch: str, bug_patch: str) -> float:
        return variant(resolved, patch, bug_patch) if resolved or patch else config.no_edit

    return reward


def patch_similarity_reward(predicted: str, gold: str) -> float:
    """Baseline of SWE-RL (arXiv 2502.18449): `patch_similarity`, -1 without a whole patch."""
    try:
        return patch_similarity(predicted, gold) if predicted else -1.0
    except PatchError:
        return -1.0


def partial_reward(resolved: bool, predicted: str, gold: str) -> float:
    """+1 when resolved, else -1 + `partial_credit`: below 0 unless the patch is the gold one."""
    return 1.0 if resolved else -1.0 + partial_credit(predicted, gold)


def _check_rate(s: float) -> None:
    if not 0.0 <= s <= 1.0:
        raise ValueError(f"a solve rate lies in [0, 1], got {s}")
