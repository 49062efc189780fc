"""Which functions are most suspicious, from which tests reach them (spectrum-based ranking)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping


def ochiai(
    failing: Iterable[str], passing: Iterable[str], reached: Mapping[str, Collection[str]]
) -> dict[str, float]:
    """Score of each function that a failing test reaches: ef / sqrt(F * (ef + ep)).

    failing, passing   test ids; F is the number of failing ones that `reached` knows
    reached            {test id: functions it reaches}
    ef, ep             failing and passing tests that reach the function

    Example: one failing test reaches f and g, one passing test reaches g:
    f scores 1 / sqrt(1 * 1) = 1.0 and g scores 1 / sqrt(1 * 2) = 0.707.
    """
    failed = [test for test in failing if test in reached]
    in_failing = Counter(f for test in failed for f in set(reached[test]))
    in_passing = Counter(f for test in passing for f in set(reached.get(test, ())))
    return {
        function: count / math.sqrt(len(failed) * (count + in_passing[function]))
        for function, count in in_failing.items()
    }


def rank(
    scores: Mapping[str, float],
    *,
    located: Collection[str] = (),
    mentioned: Collection[str] = (),
) -> list[str]:
    """Functions ("path::qualname"), most suspicious first; equal ones by name.

    `located` functions lie on the traceback of a failing test, `mentioned` names (last part of
    the qualified name) occur in a failing test: each adds a quarter to the score.
    """

    def key(function: str) -> tuple[float, str]:
        name = function.rsplit("::", 1)[-1].rsplit(".", 1)[-1]
        extra = 0.25 * (function in located) + 0.25 * (name in mentioned)
        return -(scores[function] + extra), function

    return sorted(scores, key=key)
