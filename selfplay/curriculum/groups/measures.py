"""What the solver groups of a step were worth, and how various the answers in them are.

A group is informative when its judged attempts earned different rewards: no other tells the solver
anything. Where only the outcome is rewarded, that is when it holds both. Fresh groups are those on
bugs of the step itself; no weights have been trained on them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from selfplay.curriculum.solving import Attempt
from selfplay.types import Trajectory

PER_MINUTE = {
    "solver/num_informative_groups": "solver/informative_groups_per_min",
    "solver/num_informative_fresh_groups": "solver/informative_fresh_groups_per_min",
}
"""{count: the metric that divides it by the minutes of its step}."""

WITHIN_REACH = 0.01
"""Probability of the gold answer from which on a group of attempts is likely to be informative."""


def is_informative(group: Sequence[Attempt]) -> bool:
    """Whether both outcomes are among the attempts that were judged: more attempts may tell."""
    return len({a.outcome.resolved for a in group if not a.outcome.errored}) > 1


def group_measures(
    groups: Sequence[Sequence[Attempt]], earned: Sequence[Collection[float]], num_fresh: int
) -> dict[str, float]:
    """Counts of solver groups, the first `num_fresh` of which are fresh, and distinct answers.

    earned      rewards of the judged attempts of each group
    """
    informative = [len(set(rewards)) > 1 for rewards in earned]
    row = {
        "solver/num_groups": float(len(groups)),
        "solver/num_fresh_groups": float(num_fresh),
        "solver/num_informative_groups": float(sum(informative)),
        "solver/num_informative_fresh_groups": float(sum(informative[:num_fresh])),
    }
    if groups:
        distinct = [len({attempt.rollout.answer for attempt in group}) for group in groups]
        row["solver/distinct_answers"] = sum(distinct) / len(groups)
    return row


def probability_measures(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Of the gold answers of a step's new bugs: mean, and how many are at least 1 % likely."""
    if not probabilities:
        return {}
    values = probabilities.values()
    return {
        "curriculum/gold_probability": math.fsum(values) / len(values),
        "curriculum/num_within_reach": float(sum(value >= WITHIN_REACH for value in values)),
    }


def per_minute(row: Mapping[str, float], seconds: float) -> dict[str, float]:
    """The counts of `PER_MINUTE`, divided."""
    minutes = max(seconds, 1e-9) / 60.0
    return {name: row[count] / minutes for count, name in PER_MINUTE.items() if count in row}


def sampled_entropy(trajectories: Iterable[Trajectory]) -> float | None:
    """Nats a token: the mean of -log p over what was sampled, which estimates the entropy without
    bias; None where no log-probability is known. Logs 0.5, 0.25 give (0.693 + 1.386) / 2."""
    values = [
        -logprob
        for trajectory in trajectories
        for piece in trajectory.pieces
        for mask, logprob in zip(piece.loss_mask, piece.logprobs, strict=True)
        if mask and math.isfinite(logprob)
    ]
    return math.fsum(values) / len(values) if values else None
