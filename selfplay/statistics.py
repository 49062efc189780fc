"""pass@k and its uncertainty: unbiased estimates, bootstrap over tasks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

NUM_BOOTSTRAP = 4000
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over tasks and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Rounded to four digits."""
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k draws without replacement from n attempts hold at least one of c successes.

    Example: n=4, c=1, k=2 gives 1 - C(3,2)/C(4,2) = 0.5.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} successes in {n} attempts is undefined")
    return 1.0 - comb(n - c, k) / comb(n, k)


def bootstrap_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> Interval:
    """Mean pass@k over tasks given as (attempts, successes), tasks with fewer than k left out.

    The interval resamples tasks: it covers the choice of tasks and the draws within them.
    """
    return _interval([pass_at_k(n, c, k) for n, c in counts if n >= k], _mean)


def paired_difference(
    before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]
) -> Interval:
    """Change of pass@1 on the same tasks; the pairs are resampled together."""
    if len(before) != len(after):
        raise ValueError("paired evaluations must have the same tasks")
    pairs = zip(before, after, strict=True)
    return _interval([c2 / n2 - c1 / n1 for (n1, c1), (n2, c2) in pairs], _mean)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float]
) -> Interval:
    if not values:
        return Interval(mean=0.0, low=0.0, high=0.0)
    rng = random.Random(0)
    draws = sorted(
        statistic(rng.choices(values, k=len(values))) for _ in range(NUM_BOOTSTRAP)
    )
    tail = int((1 - LEVEL) / 2 * NUM_BOOTSTRAP)
    return Interval(mean=statistic(values), low=draws[tail], high=draws[-tail - 1])
