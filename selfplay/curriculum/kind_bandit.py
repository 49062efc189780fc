"""Which kind of bug is asked for next: one of whose bugs the solver fixes some, not none or all.

Only a group with both outcomes tells the solver anything, and which kinds give such groups depends
on the model and changes with it: a small one restores a swapped comparison and never a deleted
statement. So each kind is an arm of a bandit. Its record is how many of its bugs were met with both
outcomes by their first group of attempts, and how many were not; Thompson sampling orders the arms.
Kinds that were hardly tried come up often enough to be known.

Where new bugs are screened, the probability of a bug's gold answer says more than a rare success: a
bug counts by the chance that a group on it would have had both outcomes, played or not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from selfplay.bug_sources.procedural.propose import OPERATORS
from selfplay.types import Strategy

Lessons = Mapping[tuple[str, str], tuple[float, float]]
"""{(strategy, kind): (bugs that were met with both outcomes, other bugs)}; parts of a bug count."""
PRIOR = (1.0, 4.0)
"""Of a kind without a record: one bug in five teaches."""


def order_of_kinds(rng: random.Random, strategy: Strategy, lessons: Lessons) -> tuple[str, ...]:
    """The kinds of a strategy, the most promising first; () where kinds play no part."""
    if strategy not in ("direct", "removal"):
        return ()
    kinds = sorted({o.kind for o in OPERATORS if o.removal == (strategy == "removal")})
    drawn = {}
    for kind in kinds:
        varied, flat = lessons.get((strategy, kind), (0, 0))
        drawn[kind] = rng.betavariate(PRIOR[0] + varied, PRIOR[1] + flat)
    return tuple(sorted(kinds, key=lambda kind: -drawn[kind]))
