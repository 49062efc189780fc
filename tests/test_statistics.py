"""pass@k and its intervals, against values worked out by hand and by enumeration."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_pass_at_k,
    paired_difference,
    pass_at_k,
    percentile,
)

COUNTS = st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (4, 1, 2, 0.5),  # 1 - C(3,2)/C(4,2) = 1 - 3/6
        (8, 2, 1, 0.25),
        (5, 2, 3, 0.9),  # 1 - C(3,3)/C(5,3) = 1 - 1/10
        (5, 3, 3, 1.0),  # fewer failures than draws
        (8, 0, 8, 0.0),
        (8, 8, 1, 1.0),
        (200, 1, 100, 0.5),
    ],
)
def test_pass_at_k_by_hand(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-15)


@given(task=COUNTS, k=st.integers(1, 9))
def test_pass_at_k_is_the_share_of_draws_with_a_success(task: tuple[int, int], k: int) -> None:
    n, c = task
    k = min(k, n)
    draws = list(combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(max(d) for d in draws) / len(draws))


@given(task=COUNTS)
def test_pass_at_k_grows_with_k(task: tuple[int, int]) -> None:
    n, c = task
    values = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(c / n)
    assert values[-1] == float(c > 0)


@pytest.mark.parametrize(("n", "c", "k"), [(0, 0, 1), (4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_pass_at_k_outside_its_domain(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


def test_percentile_by_hand() -> None:
    assert percentile([0.0, 1.0, 2.0], 0.25) == 0.5
    assert percentile([3.0], 0.975) == 3.0
    assert percentile([0.0, 1.0, 2.0], 1.0) == 2.0


def test_bootstrap_of_one_of_two_tasks() -> None:
    """Resampled means of (0, 1) are 0, 0.5, 1 with probability 1/4, 1/2, 1/4."""
    assert bootstrap_pass_at_k([(8, 0), (8, 8)], 1) == Interval(mean=0.5, low=0.0, high=1.0)


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    """100 tasks, 30 solved: 0.3 -+ 1.96 sqrt(0.21 / 100) = 0.3 -+ 0.0898."""
    interval = bootstrap_pass_at_k([(1, 1)] * 30 + [(1, 0)] * 70, 1)
    assert interval.mean == pytest.approx(0.3)
    assert interval.low == pytest.approx(0.21, abs=0.015)
    assert interval.high == pytest.approx(0.39, abs=0.015)


def test_equal_tasks_leave_no_width() -> None:
    assert bootstrap_pass_at_k([(4, 1)] * 7, 2) == Interval(mean=0.5, low=0.5, high=0.5)


def test_paired_difference_is_narrower_than_the_tasks_differ() -> None:
    """Half of the tasks always solved, half never; each gains nothing but one in ten a success."""
    before = [(8, 8)] * 50 + [(8, 0)] * 50
    after = [(8, 8)] * 50 + [(8, 8)] * 10 + [(8, 0)] * 40
    change = paired_difference(before, after)
    assert change.mean == pytest.approx(0.1)
    assert 0.03 < change.low < change.mean < change.high < 0.17
    assert bootstrap_pass_at_k(after, 1).low < bootstrap_pass_at_k(before, 1).high


def test_paired_difference_of_equal_evaluations_is_nothing() -> None:
    counts = [(4, 1), (4, 3), (8, 2)]
    assert paired_difference(counts, counts) == Interval(mean=0.0, low=0.0, high=0.0)


def test_paired_difference_needs_the_same_tasks() -> None:
    with pytest.raises(ValueError, match="got 1, 2"):
        paired_difference([(4, 1)], [(4, 1), (4, 2)])


def test_without_tasks_nothing_is_known() -> None:
    assert bootstrap_pass_at_k([], 1) == Interval(mean=0.0, low=0.0, high=1.0)
    assert paired_difference([], []) == Interval(mean=0.0, low=-1.0, high=1.0)


@given(tasks=st.lists(COUNTS, min_size=1, max_size=8), seed=st.integers(0, 9))
def test_intervals_hold_the_mean_and_are_reproducible(
    tasks: list[tuple[int, int]], seed: int
) -> None:
    first = bootstrap_pass_at_k(tasks, 1, num_resamples=50, seed=seed)
    assert first == bootstrap_pass_at_k(tasks, 1, num_resamples=50, seed=seed)
    assert 0 <= first.low <= first.mean <= first.high <= 1
    assert first.mean == pytest.approx(sum(c / n for n, c in tasks) / len(tasks))


@given(tasks=st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=8))
def test_paired_difference_changes_sign_with_its_order(
    tasks: list[tuple[tuple[int, int], tuple[int, int]]],
) -> None:
    before, after = [t[0] for t in tasks], [t[1] for t in tasks]
    there = paired_difference(before, after, num_resamples=50)
    back = paired_difference(after, before, num_resamples=50)
    assert there.mean == pytest.approx(-back.mean)
    assert there.low == pytest.approx(-back.high)
    assert there.high == pytest.approx(-back.low)


def test_interval_as_json() -> None:
    assert Interval(mean=0.5, low=0.25, high=1.0).to_json() == {
        "mean": 0.5,
        "low": 0.25,
        "high": 1.0,
    }
    assert bootstrap_mean([1.0], 10, 0).to_json()["low"] == 1.0


def test_clusters_are_resampled_whole_and_so_widen_the_interval() -> None:
    """Two repositories, one solved and one not: tasks alone would be far too sure of the mean."""
    counts = [(1, 1)] * 50 + [(1, 0)] * 50
    names = ["a"] * 50 + ["b"] * 50
    alone = bootstrap_pass_at_k(counts, 1)
    clustered = bootstrap_pass_at_k(counts, 1, clusters=names)
    assert alone.mean == clustered.mean == 0.5
    assert alone.low > 0.39 and alone.high < 0.61
    assert (clustered.low, clustered.high) == (0.0, 1.0)  # a quarter of the draws each


def test_clusters_of_one_task_are_tasks() -> None:
    before, after = [(4, c % 3) for c in range(40)], [(4, c % 4) for c in range(40)]
    names = [str(i) for i in range(40)]
    paired = paired_difference(before, after)
    clustered = paired_difference(before, after, clusters=names)
    assert clustered.mean == paired.mean
    assert abs(clustered.low - paired.low) < 0.05 and abs(clustered.high - paired.high) < 0.05


def test_clusters_weigh_their_tasks() -> None:
    """One drawn repository of 9 tasks and one of 1: the mean is over tasks."""
    values = bootstrap_pass_at_k([(1, 1)] * 9 + [(1, 0)], 1, clusters=["a"] * 9 + ["b"])
    assert values.mean == 0.9 and (values.low, values.high) == (0.0, 1.0)
