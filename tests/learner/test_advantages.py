"""Advantages by value and by property."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.config import LearnerConfig
from selfplay.errors import UserError
from selfplay.learner.advantages import (
    ESTIMATORS,
    by_deviation,
    counted_advantages,
    group_tokens,
    leave_one_out,
    pass_at_k,
    peer_advantages,
    positive_only,
    staleness,
    training_samples,
    within_budget,
)
from selfplay.learner.trainer import rate_share
from selfplay.types import PeerGroup, Trajectory


def test_mean_baseline_by_hand() -> None:
    assert peer_advantages([1, -1, -1, -1]) == [1.5, -0.5, -0.5, -0.5]


@pytest.mark.parametrize("rewards", [[], [1.0], [1.0, 1.0], [-0.8, -0.8, -0.8]])
def test_no_variance_no_signal(rewards: list[float]) -> None:
    assert peer_advantages(rewards) is None


@given(st.lists(st.sampled_from([-1.0, -0.8, 0.55, 0.775, 1.0]), min_size=2, max_size=8))
def test_advantages_sum_to_zero_and_keep_order(rewards: list[float]) -> None:
    advantages = peer_advantages(rewards)
    if advantages is None:
        assert len(set(rewards)) == 1
        return
    assert sum(advantages) == pytest.approx(0, abs=1e-9)
    pairs = sorted(zip(rewards, advantages, strict=True))
    assert [a for _, a in pairs] == sorted(advantages)


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.5, 1.0]), st.integers(1, 4)), min_size=2))
def test_counts_are_as_good_as_repetitions(pairs: list[tuple[float, int]]) -> None:
    """A trajectory that counts n times has n times the advantage of each of n copies."""
    rewards = [reward for reward, _ in pairs]
    repeated = peer_advantages([reward for reward, n in pairs for _ in range(n)])
    counted = counted_advantages(rewards, [float(n) for _, n in pairs])
    if repeated is None:
        assert counted is None
        return
    assert counted is not None
    starts = [sum(n for _, n in pairs[:i]) for i in range(len(pairs))]
    for advantage, (_, n), start in zip(counted, pairs, starts, strict=True):
        assert advantage == pytest.approx(n * repeated[start], abs=1e-9)


def test_counts_reach_the_samples() -> None:
    group = PeerGroup(
        group_id="g", trajectories=(trajectory(6), trajectory(7)), rewards=(1.0, -1.0),
        counts=(0.5, 1.5), weight=2.0,
    )  # fmt: skip
    samples = training_samples([group]).samples
    assert [sample.advantages for sample in samples] == [(0.0, 1.5), (0.0, -1.5)]


def trajectory(answer: int) -> Trajectory:
    return Trajectory(
        token_ids=(5, answer), loss_mask=(0, 1), logprobs=(0.0, -1.0), policy_version=3
    )


def test_a_rewritten_chat_is_several_samples_with_one_advantage() -> None:
    """The baseline counts the episode once; each piece keeps its own mask and version."""
    earlier = Trajectory(
        token_ids=(5, 6, 7, 8), loss_mask=(0, 1, 0, 1), logprobs=(0.0, -1.0, 0.0, -2.0),
        policy_version=2,
    )  # fmt: skip
    whole = replace(trajectory(1), earlier=(earlier,))
    peers = (whole, trajectory(2), trajectory(3))
    group = PeerGroup(group_id="g", trajectories=peers, rewards=(1.0, -1.0, -1.0), weight=3.0)
    batch = training_samples([group])
    assert [s.token_ids for s in batch.samples] == [(5, 6, 7, 8), (5, 1), (5, 2), (5, 3)]
    assert [s.loss_mask for s in batch.samples[:2]] == [(0, 1, 0, 1), (0, 1)]
    assert [s.policy_version for s in batch.samples] == [2, 3, 3, 3]
    assert batch.samples[0].advantages == pytest.approx((0.0, 4.0, 0.0, 4.0))
    assert batch.samples[1].advantages == pytest.approx((0.0, 4.0))
    assert batch.samples[2].advantages == pytest.approx((0.0, -2.0))
    assert batch.samples[0].logprobs == earlier.logprobs


def test_training_samples_carry_the_weighted_advantage() -> None:
    groups = [
        PeerGroup(
            group_id="solver/1",
            trajectories=(trajectory(1), trajectory(2)),
            rewards=(1.0, -1.0),
            weight=0.5,
            role="solver",
        ),
        PeerGroup(group_id="solver/2", trajectories=(trajectory(3),), rewards=(1.0,)),
    ]
    batch = training_samples(groups)
    assert [s.advantages for s in batch.samples] == [(0.0, 0.5), (0.0, -0.5)]
    assert [s.policy_version for s in batch.samples] == [3, 3]
    assert batch.metrics == {
        "num_groups": 2.0,
        "num_zero_variance_groups": 1.0,
        "num_samples": 2.0,
        "solver/advantage_abs": 1.0,
        "solver/advantage_max": 1.0,
    }


def test_staleness_counts_versions() -> None:
    group = PeerGroup(
        group_id="a", trajectories=(trajectory(1), trajectory(2)), rewards=(1.0, -1.0)
    )
    samples = training_samples([group]).samples
    assert staleness(samples, 5) == {"staleness": 2.0, "staleness_max": 2.0}
    assert staleness([], 5) == {}


def test_injector_advantages_by_hand() -> None:
    """Two invalid bugs, one solved by nobody, one solved once in eight: -1, -1, -0.8, 0.775."""
    assert peer_advantages([-1.0, -1.0, -0.8, 0.775]) == pytest.approx(
        [-0.49375, -0.49375, -0.29375, 1.28125]
    )


def test_other_estimators_by_hand() -> None:
    one_of_four = [1.0, -1.0, -1.0, -1.0]
    assert leave_one_out(one_of_four) == pytest.approx([2.0, -2 / 3, -2 / 3, -2 / 3])
    assert by_deviation(one_of_four) == pytest.approx([3**0.5] + [-(3**-0.5)] * 3)
    assert positive_only(one_of_four) == [1.5, 0.0, 0.0, 0.0]
    assert pass_at_k(one_of_four, k=2) == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    assert pass_at_k([1.0, 1.0, -1.0, 1.0], k=2) is None, "every pair holds a success"
    assert pass_at_k([1.0, -1.0], k=1) == pytest.approx([1.0, -1.0]), "k = 1 is by_deviation"


def test_pass_at_k_is_the_mean_over_all_sets_of_k() -> None:
    """By enumeration: a set is paid 1 where it holds a success; an attempt gets what its sets are
    above the mean, divided by the deviation over all sets."""
    rewards, k = [1.0, -1.0, -1.0, 1.0, -1.0, -1.0], 3
    sets = list(itertools.combinations(range(6), k))
    paid = {s: float(any(rewards[i] > 0 for i in s)) for s in sets}
    mean = sum(paid.values()) / len(sets)
    deviation = (mean * (1 - mean)) ** 0.5
    wanted = []
    for i in range(6):
        mine = [paid[s] for s in sets if i in s]
        wanted.append((sum(mine) / len(mine) - mean) / deviation)
    assert pass_at_k(rewards, k) == pytest.approx(wanted)


def test_every_estimator_can_be_configured_and_no_other() -> None:
    for name in ESTIMATORS:
        assert LearnerConfig(advantage=name).advantage == name
    with pytest.raises(UserError, match=r"learner.advantage='median'"):
        LearnerConfig(advantage="median")


def test_an_attempt_without_advantage_is_no_sample() -> None:
    group = PeerGroup(
        group_id="a",
        trajectories=(trajectory(1), trajectory(2)),
        rewards=(1.0, -1.0),
        role="solver",
    )
    assert [s.token_ids for s in training_samples([group], "positive").samples] == [(5, 1)]
    planted = replace(group, role="injector")
    assert len(training_samples([planted], "positive").samples) == 2, "the injector has the mean"


def planted(name: str, high: float, role: str = "injector") -> PeerGroup:
    """Two answers of one token to a prompt of one: 3 tokens."""
    return PeerGroup(
        group_id=name, trajectories=(trajectory(1), trajectory(2)), rewards=(high, -1.0), role=role
    )


def test_the_injector_learns_on_no_more_than_its_share_of_tokens() -> None:
    solved, flat = planted("s", 1.0, "solver"), planted("f", -1.0, "solver")
    small, large, middle = planted("a", -0.8), planted("b", 0.775), planted("c", 0.1)
    assert group_tokens(solved) == 3
    groups = [small, large, middle, solved, flat]
    assert within_budget(groups, None) == groups
    assert within_budget(groups, 1.0) == [large, solved, flat]
    assert within_budget(groups, 2.0) == [large, middle, solved, flat]
    assert within_budget([small, large], 1.0) == [large], "one stays where nobody solves anything"


def test_few_tokens_have_a_lower_rate() -> None:
    assert rate_share(100, 400) == 0.5
    assert rate_share(400, 400) == rate_share(900, 400) == rate_share(1, None) == 1.0
