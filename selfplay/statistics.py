"""Statistics of evaluations: unbiased pass@k, bootstrap intervals over tasks, paired differences.

A task is a pair (n, c): n judged attempts, c of them resolved.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, fsum

NUM_RESAMPLES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over tasks with a 95 % percentile interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """`{"mean", "low", "high"}`."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n attempts, drawn without replacement, hold one of the c resolved.

    1 - C(n-c, k) / C(n, k), the unbiased estimator of Chen et al. 2021 (Codex).
    Example: n=4, c=1, k=2 gives 1 - 3/6 = 0.5. Raises `ValueError` unless 1 <= k <= n, 0 <= c <= n.
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n; got n={n}, c={c}, k={k}")
    return float(1 - Fraction(comb(n - c, k), comb(n, k)))


def bootstrap_pass_at_k(
    counts: Sequence[tuple[int, int]], k: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval:
    """Mean pass@k over tasks, with an interval from resampling tasks.

    Without any task nothing is known: mean 0, interval 0 to 1.
    """
    if not counts:
        return Interval(mean=0.0, low=0.0, high=1.0)
    return bootstrap_mean([pass_at_k(n, c, k) for n, c in counts], num_resamples, seed)


def paired_difference(
    before: Sequence[tuple[int, int]],
    after: Sequence[tuple[int, int]],
    *,
    k: int = 1,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean change of pass@k on the same tasks; tasks are resampled in pairs.

    Positive when `after` is better. Without any task: mean 0, interval -1 to 1. Raises `ValueError`
    when the lists differ in length.
    """
    if len(before) != len(after):
        raise ValueError(f"paired evaluations need equal tasks; got {len(before)}, {len(after)}")
    if not before:
        return Interval(mean=0.0, low=-1.0, high=1.0)
    changes = [
        pass_at_k(*new, k) - pass_at_k(*old, k) for old, new in zip(before, after, strict=True)
    ]
    return bootstrap_mean(changes, num_resamples, seed)


def bootstrap_mean(values: Sequence[float], num_resamples: int, seed: int) -> Interval:
    """Mean of `values` with the 2.5 % and 97.5 % points of resampled means."""
    assert values and num_resamples > 0
    rng = random.Random(seed)
    number = len(values)
    means = sorted(fsum(rng.choices(values, k=number)) / number for _ in range(num_resamples))
    mean = fsum(values) / number
    return Interval(
        mean=mean,
        low=min(mean, percentile(means, 0.025)),
        high=max(mean, percentile(means, 0.975)),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation in sorted values. Example: ([0, 1, 2], 0.25) gives 0.5."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
