"""Advantages by value and by property."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.learner.advantages import (
    peer_advantages,
    staleness,
    training_samples,
)
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
