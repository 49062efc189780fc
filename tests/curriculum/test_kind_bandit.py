"""Kinds of bug that teach are asked for more often, and the others are not forgotten."""

from __future__ import annotations

import random
from collections import Counter

from selfplay.curriculum.kind_bandit import order_of_kinds

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
