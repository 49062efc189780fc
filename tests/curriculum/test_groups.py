"""What solver groups are worth, by hand."""

from __future__ import annotations

import pytest

from selfplay.curriculum.groups.measures import (
    group_measures,
    is_informative,
    per_minute,
    sampled_entropy,
)
from selfplay.curriculum.scaffold import Rollout
from selfplay.curriculum.solving import Attempt, SolveOutcome
from selfplay.types import SolveTask, Trajectory

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
    row = group_measures([attempts(o) for o in ("+-", "--", "+-", "++")], num_fresh=2)
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
