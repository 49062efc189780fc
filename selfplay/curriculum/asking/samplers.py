"""Samplers: what is wanted of the next bugs, in terms of those that are known.

A sampler says two things. At which `levels` places with few bugs come first, and by how much; and
what a known bug is worth, from 0 to 1 (None: it tells nothing), so that places and kinds of bug
with a better record are asked for more often. `curriculum.sampler` names one:

    uniform        every repository, function and strategy alike
    least_covered  repositories, files, functions and strategies with the fewest bugs
    promising      few bugs in repository and function; and bugs that were met with both outcomes
    band           the same, and bugs whose solve rate lies in [replay_low, replay_high]
    failures       the same, and bugs that the solver fails at: the injector is shown their kind

Kinds of bug (compact scaffold) are arms of a bandit, ordered by Thompson sampling: only a group
with both outcomes tells the solver anything, and which kinds give such groups depends on the model
and changes with it. A small one restores a swapped comparison and never a deleted statement. Kinds
that were hardly tried come up often enough to be known. Where new bugs are screened, the chance
that a group would have had both outcomes says more than a rare success (`corpus/worth.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from selfplay.bug_sources.procedural.propose import OPERATORS
from selfplay.config import CurriculumConfig
from selfplay.corpus.worth import BugWorth
from selfplay.types import Strategy

Value = Callable[[BugWorth], float | None]
Lessons = Mapping[tuple[str, str], tuple[float, float]]
"""{(strategy, kind): (what its bugs were worth, what they fell short)}; parts of a bug count."""
PRIOR = (1.0, 4.0)
"""Of a kind without a record: one bug in five teaches."""
COVERING = 6
"""Power of `least_covered`: a function with a bug is asked for 1/64 as often as one without. That
is never, as long as others give bugs; those that give none do not hold up the rest. With 2 about
one question in eight went to a function that had a bug while others had none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """One of the table above.

    levels         of "repository", "file", "function", "strategy"
    kinds, places  what a bug is worth for its kind and for its function, None: nothing is learned
    power          a function with n bugs weighs 1 / (1 + n)^power
    counts_asked   what was asked for in this very draw counts like a bug
    """

    levels: frozenset[str]
    kinds: Value | None = None
    places: Value | None = None
    power: int = 2
    counts_asked: bool = False


def make_sampler(shape: CurriculumConfig) -> Sampler:
    """The configured one."""
    thin = frozenset(("repository", "function"))

    def in_band(bug: BugWorth) -> float | None:
        if bug.rate is None:
            return None
        return float(shape.replay_low <= bug.rate <= shape.replay_high)

    samplers = {
        "uniform": Sampler(levels=frozenset()),
        "least_covered": Sampler(
            levels=thin | {"file", "strategy"}, power=COVERING, counts_asked=True
        ),
        "promising": Sampler(levels=thin, kinds=worth, places=screened_worth),
        "band": Sampler(levels=thin, kinds=in_band, places=in_band),
        "failures": Sampler(levels=thin, kinds=failed, places=failed),
    }
    return samplers[shape.sampler]


def worth(bug: BugWorth) -> float | None:
    """Whether its first attempts had both outcomes, or the chance of it."""
    return bug.worth


def screened_worth(bug: BugWorth) -> float | None:
    """The same of screened bugs: of single functions, others are too few to tell anything."""
    return bug.worth if bug.is_screened else None


def failed(bug: BugWorth) -> float | None:
    """Share of its first attempts that did not resolve it."""
    return None if bug.rate is None else 1.0 - bug.rate


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


def under_covered(weight: float, total_weight: float, number: int, total: int) -> float:
    """A configured weight, raised where a strategy has fewer bugs than its share, lowered where it
    has more. Weight 1 of 2, 0 of 4 bugs: expected were 2, so 1 x (1 + 2) / (1 + 0) = 3."""
    expected = total * weight / total_weight if total_weight else 0.0
    return weight * (1.0 + expected) / (1.0 + number)
