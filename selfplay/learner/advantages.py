"""Group-relative advantages (GRPO): reward minus the mean of the peers, and other estimators.

`ESTIMATORS` are functions of the rewards of one group (`learner.advantage`); the injector's groups
always have the mean. Departures of that from the textbook (arXiv 2402.03300): no division by the
group's standard deviation (arXiv 2503.20783), and groups without variance are left out and counted
(arXiv 2503.14476).
Example: rewards +1, -1, -1, -1 have mean -0.5, so advantages +1.5, -0.5, -0.5, -0.5.

The mean includes the episode itself, so the expected gradient of a group of G is (G - 1) / G times
that of the expected reward: its direction is unbiased, and the factor is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.types import PeerGroup, TrainingSample

PASS_K = 4
"""Attempts of a set, under `pass_at_k`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Training samples of the groups that carry signal, and what was left out."""

    samples: tuple[TrainingSample, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)


def peer_advantages(rewards: Sequence[float]) -> list[float] | None:
    """Advantages inside one group, or `None` when all rewards are equal (or there is only one)."""
    assert all(math.isfinite(reward) for reward in rewards)
    if len(rewards) < 2 or max(rewards) - min(rewards) < 1e-9:
        return None
    mean = math.fsum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def counted_advantages(rewards: Sequence[float], counts: Sequence[float]) -> list[float] | None:
    """`peer_advantages` of trajectories that stand for several attempts, or for part of one: the
    mean is that of all attempts, and an advantage counts as often as its trajectory does. Equal to
    the group with each written down that often.

    Example: rewards 1 and -1 with counts 1/2 and 3/2 have mean -1/2, so 3/4 and -3/4.
    """
    if peer_advantages(rewards) is None:
        return None
    mean = math.fsum(c * r for c, r in zip(counts, rewards, strict=True)) / math.fsum(counts)
    return [c * (r - mean) for c, r in zip(counts, rewards, strict=True)]


def leave_one_out(rewards: Sequence[float]) -> list[float] | None:
    """Reward minus the mean of the *other* peers (RLOO, arXiv 2402.14740): G / (G - 1) times
    `peer_advantages`, so that groups of different sizes weigh alike. +1, -1, -1, -1 gives 2 and
    three times -2/3."""
    advantages = peer_advantages(rewards)
    scale = len(rewards) / max(1, len(rewards) - 1)
    return None if advantages is None else [scale * a for a in advantages]


def by_deviation(rewards: Sequence[float]) -> list[float] | None:
    """Divided by the group's deviation, as in the textbook: rare outcomes weigh more. +1, -1, -1,
    -1 has variance 3/4, so 1.5 becomes 1.732 and -0.5 becomes -0.577."""
    advantages = peer_advantages(rewards)
    if advantages is None:
        return None
    deviation = math.sqrt(math.fsum(a * a for a in advantages) / len(advantages))
    return [a / deviation for a in advantages]


def pass_at_k(rewards: Sequence[float], k: int = PASS_K) -> list[float] | None:
    """Advantages of the reward "one of k attempts resolves", averaged over all sets of k attempts
    of the group (arXiv 2508.10751, the analytic form): what is solved often no longer counts.

    With N attempts, F of them failed, the mean is m = 1 - C(F, k) / C(N, k), the deviation
    sqrt(m (1 - m)); success gets 1 - m, failure 1 - m - C(F - 1, k - 1) / C(N - 1, k - 1), both
    divided by the deviation. None where all sets are alike: fewer than k failures, or no success.
    Example: one success in four, k = 2: m = 1/2, success 1, failure (1/2 - 2/3) / (1/2) = -1/3.
    """
    best, num = max(rewards, default=0.0), len(rewards)
    failed = sum(best - reward > 1e-9 for reward in rewards)
    if failed in (0, num) or failed < k:
        return None
    missed = math.comb(failed, k) / math.comb(num, k)
    deviation = math.sqrt(missed * (1.0 - missed))
    alone = math.comb(failed - 1, k - 1) / math.comb(num - 1, k - 1)
    values = (missed / deviation, (missed - alone) / deviation)
    return [values[best - reward > 1e-9] for reward in rewards]


def positive_only(rewards: Sequence[float]) -> list[float] | None:
    """What is better than the mean is wanted; nothing is unlearnt. +1, -1, -1, -1 gives 1.5, 0,
    0, 0."""
    advantages = peer_advantages(rewards)
    return None if advantages is None else [max(0.0, a) for a in advantages]


ESTIMATORS: Mapping[str, Callable[[Sequence[float]], list[float] | None]] = {
    "mean": peer_advantages,
    "leave_one_out": leave_one_out,
    "deviation": by_deviation,
    "pass_at_k": pass_at_k,
    "positive": positive_only,
}
"""By the name of `learner.advantage`."""


def within_budget(groups: Sequence[PeerGroup], ratio: float | None) -> list[PeerGroup]:
    """The groups without those of the injector that are beyond `ratio` times the solver's tokens.

    Tokens are those that a step computes, each prompt once (`group_tokens`), of groups with
    variance alone. The injector's groups with the largest advantages stay; the first of them does
    in any case, so that an injector whose bugs nobody solves goes on learning. None: all stay.
    """
    if ratio is None:
        return list(groups)
    solved = [g for g in groups if g.role != "injector" and peer_advantages(g.rewards)]
    room = ratio * sum(map(group_tokens, solved))
    sizes = {
        g.group_id: max(map(abs, advantages))
        for g in groups
        if g.role == "injector" and (advantages := peer_advantages(g.rewards))
    }
    planted = sorted((g for g in groups if g.group_id in sizes), key=lambda g: -sizes[g.group_id])
    out: set[str] = set()
    for number, group in enumerate(planted):
        room -= group_tokens(group)
        if room < 0 and number:
            out.add(group.group_id)
    return [group for group in groups if group.group_id not in out]


def group_tokens(group: PeerGroup) -> int:
    """Tokens of a group with each distinct prompt counted once. A prompt of 2 tokens with answers
    of 1 and 3 counts 6."""
    prompts: set[tuple[int, ...]] = set()
    total = 0
    for piece in (piece for trajectory in group.trajectories for piece in trajectory.pieces):
        start = piece.loss_mask.index(1) if 1 in piece.loss_mask else 0
        prompts.add(piece.token_ids[:start])
        total += len(piece.token_ids) - start
    return total + sum(map(len, prompts))


def training_samples(groups: Sequence[PeerGroup], estimator: str = "mean") -> Batch:
    """Samples of all groups with variance; the advantage stands at every trained token, in every
    piece of an episode whose chat was rewritten.

    `estimator` is one of `ESTIMATORS`, for the solver's groups whose trajectories are one attempt
    each (`counted_advantages` has the mean for the others). Metrics by role are of the
    unweighted advantages of the groups that carry signal: the mean size, and the largest. Of a role
    whose weight is 0 nothing is learnt, its observations neither.
    """
    assert len({group.group_id for group in groups}) == len(groups), "a group appears twice"
    samples: list[TrainingSample] = []
    sizes: dict[str, list[float]] = {}
    flat = 0
    for group in groups:
        estimate = peer_advantages if group.role == "injector" else ESTIMATORS[estimator]
        if group.counts:
            advantages = counted_advantages(group.rewards, group.counts)
        else:
            advantages = estimate(group.rewards)
        if advantages is None:
            flat += 1
            continue
        sizes.setdefault(group.role, []).extend(map(abs, advantages))
        for trajectory, advantage in zip(group.trajectories, advantages, strict=True):
            if not advantage and estimate is positive_only:
                continue  # it would lower the step's mean loss and say nothing
            weighted = advantage * group.weight
            samples += [
                TrainingSample(
                    token_ids=piece.token_ids,
                    loss_mask=piece.loss_mask,
                    logprobs=piece.logprobs,
                    advantages=tuple(weighted if mask else 0.0 for mask in piece.loss_mask),
                    policy_version=piece.policy_version,
                    temperature=piece.temperature,
                    observations=observation_mask(piece.loss_mask) if group.weight else (),
                )
                for piece in trajectory.pieces
            ]
    metrics = {
        "num_groups": float(len(groups)),
        "num_zero_variance_groups": float(flat),
        "num_samples": float(len(samples)),
    }
    for role, values in sizes.items():
        if role:
            metrics[f"{role}/advantage_abs"] = math.fsum(values) / len(values)
            metrics[f"{role}/advantage_max"] = max(values)
    return Batch(samples=tuple(samples), metrics=metrics)


def observation_mask(loss_mask: Sequence[int]) -> tuple[int, ...]:
    """1 for each token that was told between two sampled ones, but for the first of each stretch:
    what `learner.observation_weight` learns from (as code world models do, arXiv 2510.02387).

    That first one is the chat template's: it ends the turn of an answer that was cut, and to learn
    it would be to learn to stop there. The prompt, and what no answer followed, is told to nobody.
    `loss_mask` is the trajectory's, before anything is left out of it. Example: the mask
    0 0 1 1 0 0 0 1 0 gives 0 0 0 0 0 1 1 0 0.
    """
    if 1 not in loss_mask:
        return (0,) * len(loss_mask)
    first = loss_mask.index(1)
    last = len(loss_mask) - 1 - loss_mask[::-1].index(1)
    return tuple(
        int(first < i < last and not told and not loss_mask[i - 1])
        for i, told in enumerate(loss_mask)
    )


def staleness(samples: Sequence[TrainingSample], version: int) -> dict[str, float]:
    """How many policy versions before `version` the samples were drawn: mean and maximum."""
    ages = [float(version - sample.policy_version) for sample in samples]
    if not ages:
        return {}
    return {"staleness": math.fsum(ages) / len(ages), "staleness_max": max(ages)}
