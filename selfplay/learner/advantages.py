"""Group-relative advantages (GRPO): reward minus the mean of the peers.

Departures from the textbook (arXiv 2402.03300): no division by the group's standard deviation
(arXiv 2503.20783), and groups without variance are left out and counted (arXiv 2503.14476).
Example: rewards +1, -1, -1, -1 have mean -0.5, so advantages +1.5, -0.5, -0.5, -0.5.

The mean includes the episode itself, so the expected gradient of a group of G is (G - 1) / G times
that of the expected reward: its direction is unbiased, and the factor is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.types import PeerGroup, TrainingSample


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


def training_samples(groups: Sequence[PeerGroup]) -> Batch:
    """Samples of all groups with variance; the advantage stands at every trained token, in every
    piece of an episode whose chat was rewritten.

    Metrics by role are of the unweighted advantages of the groups that carry signal, whose mean
    is 0: the mean size, and the largest.
    """
    assert len({group.group_id for group in groups}) == len(groups), "a group appears twice"
    samples: list[TrainingSample] = []
    sizes: dict[str, list[float]] = {}
    flat = 0
    for group in groups:
        advantages = peer_advantages(group.rewards)
        if advantages is None:
            flat += 1
            continue
        sizes.setdefault(group.role, []).extend(map(abs, advantages))
        for trajectory, advantage in zip(group.trajectories, advantages, strict=True):
            weighted = advantage * group.weight
            samples += [
                TrainingSample(
                    token_ids=piece.token_ids,
                    loss_mask=piece.loss_mask,
                    logprobs=piece.logprobs,
                    advantages=tuple(weighted if mask else 0.0 for mask in piece.loss_mask),
                    policy_version=piece.policy_version,
                    temperature=piece.temperature,
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


def staleness(samples: Sequence[TrainingSample], version: int) -> dict[str, float]:
    """How many policy versions before `version` the samples were drawn: mean and maximum."""
    ages = [float(version - sample.policy_version) for sample in samples]
    if not ages:
        return {}
    return {"staleness": math.fsum(ages) / len(ages), "staleness_max": max(ages)}
