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
    counts: Sequence[tuple[int, int]],
    k: int,
    *,
    clusters: Sequence[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean pass@k over tasks, with an interval from resampling tasks, or `clusters` of them
    (`bootstrap_clusters`).

    Without any task nothing is known: mean 0, interval 0 to 1.
    """
    if not counts:
        return Interval(mean=0.0, low=0.0, high=1.0)
    values = [pass_at_k(n, c, k) for n, c in counts]
    return _resampled(values, clusters, num_resamples, seed)


def paired_difference(
    before: Sequence[tuple[int, int]],
    after: Sequence[tuple[int, int]],
    *,
    k: int = 1,
    clusters: Sequence[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean change of pass@k on the same tasks; tasks are resampled in pairs, or `clusters` of them.

    Positive when `after` is better. Without any task: mean 0, interval -1 to 1. Raises `ValueError`
    when the lists differ in length.
    """
    rates = [[pass_at_k(*task, k) for task in tasks] for tasks in (before, after)]
    return mean_change(*rates, clusters=clusters, num_resamples=num_resamples, seed=seed)


def mean_change(
    before: Sequence[float],
    after: Sequence[float],
    *,
    clusters: Sequence[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean change of a probability on the same tasks; else as `paired_difference`."""
    if len(before) != len(after):
        raise ValueError(f"paired evaluations need equal tasks; got {len(before)}, {len(after)}")
    if not before:
        return Interval(mean=0.0, low=-1.0, high=1.0)
    changes = [new - old for old, new in zip(before, after, strict=True)]
    return _resampled(changes, clusters, num_resamples, seed)


def _resampled(
    values: Sequence[float], clusters: Sequence[str] | None, num_resamples: int, seed: int
) -> Interval:
    if clusters is None:
        return bootstrap_mean(values, num_resamples, seed)
    return bootstrap_clusters(values, clusters, num_resamples, seed)


def bootstrap_clusters(
    values: Sequence[float], clusters: Sequence[str], num_resamples: int, seed: int
) -> Interval:
    """Mean of `values` with an interval that knows which of them belong together.

    Bugs of one repository are alike, so a figure for repositories that nobody has seen must
    resample repositories: as many as there are, with replacement, and in each its bugs likewise
    (Field and Welsh 2007, two stages). Each repository weighs as many bugs as it has. With two or
    three repositories such an interval is rough: there are few ways to draw them.
    """
    assert len(values) == len(clusters) > 0 and num_resamples > 0
    rng = random.Random(seed)
    groups: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    names = list(groups)
    means = []
    for _ in range(num_resamples):
        drawn = [groups[name] for name in rng.choices(names, k=len(names))]
        total = fsum(fsum(rng.choices(group, k=len(group))) for group in drawn)
        means.append(total / sum(len(group) for group in drawn))
    return _interval(fsum(values) / len(values), sorted(means))


def bootstrap_mean(values: Sequence[float], num_resamples: int, seed: int) -> Interval:
    """Mean of `values` with the 2.5 % and 97.5 % points of resampled means."""
    assert values and num_resamples > 0
    rng = random.Random(seed)
    number = len(values)
    means = sorted(fsum(rng.choices(values, k=number)) / number for _ in range(num_resamples))
    return _interval(fsum(values) / number, means)


def _interval(mean: float, means: Sequence[float]) -> Interval:
    """The 2.5 % and 97.5 % points of sorted means around the mean itself."""
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
