"""Samples that are too old to learn from, looked at once more when a step consumes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selfplay.config.curriculum import MAX_AGE
from selfplay.types import PeerGroup, Trajectory


def oldest_version(trajectory: Trajectory) -> int:
    """Of the weights that any part of it was sampled from."""
    return min(piece.policy_version for piece in trajectory.pieces)


def young_enough(
    groups: Sequence[PeerGroup], version: int, max_age: int = MAX_AGE
) -> tuple[list[PeerGroup], int]:
    """(groups without samples that are more than `max_age` versions old, how many these were).

    Those that stay keep their rewards; a group that loses all its samples is gone.
    """
    kept, num_dropped = [], 0
    for group in groups:
        members = [
            (trajectory, reward)
            for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
            if version - oldest_version(trajectory) <= max_age
        ]
        num_dropped += len(group.rewards) - len(members)
        if len(members) == len(group.rewards):
            kept.append(group)
        elif members:
            trajectories, rewards = zip(*members, strict=True)
            kept.append(replace(group, trajectories=trajectories, rewards=rewards))
    return kept, num_dropped
