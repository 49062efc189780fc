"""Kinds of bug that teach are asked for more often, and the others are not forgotten."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from selfplay.config import CurriculumConfig
from selfplay.config.curriculum import SAMPLERS
from selfplay.corpus.worth import BugWorth
from selfplay.curriculum.asking.samplers import make_sampler, order_of_kinds, under_covered
from selfplay.errors import UserError

TEACHES = {"condition": 0.3, "name": 0.1}


def asked(num_bugs: int, seed: int) -> Counter[str]:
    """Which kinds come first while the outcomes of 14 bugs a step become known."""
    rng = random.Random(seed)
    lessons: dict[tuple[str, str], tuple[int, int]] = {}
    counts: Counter[str] = Counter()
    for begin in range(0, num_bugs, 14):
        chosen = [order_of_kinds(rng, "direct", lessons)[0] for _ in range(14)]
        for kind in chosen:
            varied, flat = lessons.get(("direct", kind), (0, 0))
            lucky = rng.random() < TEACHES.get(kind, 0.0)
            lessons[("direct", kind)] = (varied + lucky, flat + (not lucky))
        counts.update(chosen if begin >= num_bugs // 2 else ())
    return counts


def test_what_teaches_is_asked_for_more_often() -> None:
    kinds = order_of_kinds(random.Random(0), "direct", {})
    for seed in range(5):
        counts = asked(308, seed)
        share = (counts["condition"] + counts["name"]) / counts.total()
        assert share > 2 * len(TEACHES) / len(kinds)
        assert len(counts) > len(TEACHES), "the others are still tried"


def test_an_order_names_every_kind_of_its_strategy_once() -> None:
    rng = random.Random(0)
    orders = {strategy: order_of_kinds(rng, strategy, {}) for strategy in ("direct", "removal")}
    for kinds in orders.values():
        assert len(set(kinds)) == len(kinds) > 3
    assert "condition" in orders["direct"] and "statement" in orders["removal"]
    assert order_of_kinds(rng, "history", {}) == ()
    firsts = {order_of_kinds(random.Random(i), "direct", {})[0] for i in range(200)}
    assert firsts == set(orders["direct"]), "without a record all are alike"


def test_a_record_is_of_its_strategy_alone() -> None:
    lessons = {("removal", "condition"): (50, 0), ("direct", "order"): (50, 0)}
    assert order_of_kinds(random.Random(1), "direct", lessons)[0] == "order"


def bug(rate: float | None, worth: float = 0.0, is_screened: bool = False) -> BugWorth:
    return BugWorth(
        strategy="direct", kind="name", repo="r", function="f", rate=rate, worth=worth,
        is_screened=is_screened,
    )  # fmt: skip


def values(name: str, found: BugWorth) -> tuple[float | None, float | None]:
    """What a sampler thinks of a bug, for its kind and for its function."""
    sampler = make_sampler(CurriculumConfig(sampler=name, replay_low=0.1, replay_high=0.6))
    assert sampler.kinds and sampler.places
    return sampler.kinds(found), sampler.places(found)


def test_what_a_bug_is_worth_to_each_sampler() -> None:
    assert values("promising", bug(0.0, 0.25)) == (0.25, None)
    assert values("promising", bug(None, 0.25, is_screened=True)) == (0.25, 0.25)
    rates = (0.0, 0.1, 0.6, 1.0, None)
    assert [values("band", bug(r))[0] for r in rates] == [0.0, 1.0, 1.0, 0.0, None]
    assert [values("failures", bug(r))[1] for r in rates] == [1.0, 0.9, 0.4, 0.0, None]
    for name in ("uniform", "least_covered"):
        sampler = make_sampler(CurriculumConfig(sampler=name))
        assert sampler.kinds is sampler.places is None
    assert {n: sorted(make_sampler(CurriculumConfig(sampler=n)).levels) for n in SAMPLERS} == {
        "uniform": [],
        "least_covered": ["file", "function", "repository", "strategy"],
        "promising": ["function", "repository"],
        "band": ["function", "repository"],
        "failures": ["function", "repository"],
    }
    with pytest.raises(UserError, match=r"curriculum\.sampler"):
        CurriculumConfig(sampler="best")


def test_a_strategy_below_its_share_is_raised() -> None:
    assert under_covered(1.0, 2.0, 0, 4) == 3.0
    assert under_covered(1.0, 2.0, 4, 4) == pytest.approx(0.6)
    assert under_covered(0.0, 2.0, 0, 4) == 0.0
