"""What solver groups are worth, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfplay.curriculum.groups.growing import can_matter
from selfplay.curriculum.groups.measures import (
    group_measures,
    is_informative,
    per_minute,
    sampled_entropy,
)
from selfplay.curriculum.scaffold import Rollout
from selfplay.curriculum.solving import Attempt, SolveOutcome
from selfplay.types import SolveTask, Trajectory

from .conftest import MakeGame
from .game import FIX_ROUND, NOTHING, of_role

TASK: SolveTask = None  # type: ignore[assignment]


def attempts(outcomes: str) -> list[Attempt]:
    """+ resolved, - not, ! errored; an attempt's answer is its outcome's sign."""
    return [
        Attempt(
            task=TASK,
            rollout=Rollout(trajectory=None, answer=sign, status="completed", policy_version=0),
            outcome=SolveOutcome(reason="", resolved=sign == "+", errored=sign == "!"),
        )
        for sign in outcomes
    ]


@pytest.mark.parametrize(
    ("outcomes", "informative"),
    [("+-", True), ("++", False), ("--", False), ("+!", False), ("-!+", True), ("!", False)],
)
def test_a_group_is_informative_with_both_outcomes_among_the_judged(
    outcomes: str, informative: bool
) -> None:
    assert is_informative(attempts(outcomes)) is informative


def test_fresh_groups_are_the_first_ones() -> None:
    earned = [[1.0, -1.0], [-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]]
    row = group_measures([attempts(o) for o in ("+-", "--", "+-", "++")], earned, num_fresh=2)
    assert row == {
        "solver/num_groups": 4.0,
        "solver/num_fresh_groups": 2.0,
        "solver/num_informative_groups": 2.0,
        "solver/num_informative_fresh_groups": 1.0,
        "solver/distinct_answers": 1.5,
    }
    assert per_minute(row, 30.0) == {
        "solver/informative_groups_per_min": 4.0,
        "solver/informative_fresh_groups_per_min": 2.0,
    }


def test_entropy_is_that_of_what_was_sampled() -> None:
    known = Trajectory(
        token_ids=(1, 2, 3), loss_mask=(0, 1, 1), logprobs=(0.0, -1.0, -2.0), policy_version=0
    )
    unknown = Trajectory(
        token_ids=(1, 2), loss_mask=(0, 1), logprobs=(0.0, float("nan")), policy_version=0
    )
    assert sampled_entropy([known, unknown]) == 1.5
    assert sampled_entropy([unknown]) is None


@pytest.mark.parametrize(
    ("outcomes", "probability", "matters"),
    [
        ("+---", 0.0, True),
        ("++++", 0.5, False),
        ("----", 0.03, True),
        ("----", 0.02, False),
        ("----", None, True),
    ],
)
def test_more_attempts_are_made_where_they_can_matter(
    outcomes: str, probability: float | None, matters: bool
) -> None:
    """1 - 0.97^4 = 0.115 and 1 - 0.98^4 = 0.078, on both sides of a tenth."""
    assert can_matter(attempts(outcomes), probability, later=4) is matters


def test_a_group_that_grows_has_two_baselines(game: MakeGame) -> None:
    """Both outcomes among the first two, so three more; these are peers of each other alone."""
    solve = [FIX_ROUND, NOTHING, NOTHING, FIX_ROUND, NOTHING]
    played = game(solve=solve, group_size=5)
    played.rules = replace(played.rules, first_attempts=2)
    result = played.play(0)
    assert [len(group) for group in result.attempts] == [5]
    groups = {g.group_id.rpartition("/")[2]: g.rewards for g in result.groups if g.role == "solver"}
    assert groups.pop("later") == (-1.0, 1.0, -1.0)
    assert list(groups.values()) == [(1.0, -1.0)]
    (planted,) = of_role(result, "injector")
    assert planted.info["solve_rate"] == 0.4
    assert len({e.episode_id for e in result.episodes}) == 6


def test_a_group_that_all_resolve_does_not_grow(game: MakeGame) -> None:
    played = game(solve=[FIX_ROUND], group_size=5)
    played.rules = replace(played.rules, first_attempts=2)
    assert [len(group) for group in played.play(0).attempts] == [2]
