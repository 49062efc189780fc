"""Loops of a degenerate policy leave the loss; prompts and ordinary repetition do not."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.config import RepetitionConfig
from selfplay.errors import UserError
from selfplay.learner.measures.degenerate import looping, without_loops

from .samples import sample

SMALL = RepetitionConfig(repetition_tokens=4, repetition_period=2)


def test_a_loop_by_hand() -> None:
    assert looping([7, 5, 6, 5, 6, 5, 6], [1] * 7, SMALL) == {3, 4, 5, 6}
    assert looping([7, 5, 6, 5, 6, 5, 1], [1] * 7, SMALL) == set()  # three repeated tokens
    assert looping([9, 9, 9, 9, 9, 1], [1] * 6, SMALL) == {1, 2, 3, 4}
    assert looping([1, 2, 3, 1, 2, 3, 1, 2, 3], [1] * 9, SMALL) == set()  # period 3 is too long


def test_only_sampled_stretches_count() -> None:
    ids = [5, 5, 5, 5, 5, 5, 5, 5]
    assert looping(ids, [0] * 8, SMALL) == set()
    assert looping(ids, [0, 0, 0, 0, 1, 1, 1, 1], SMALL) == set()  # its first round is sampled, too
    assert looping(ids, [1, 1, 1, 0, 1, 1, 1, 1], SMALL) == set()  # an observation between
    assert looping(ids, [0, 0, 0, 1, 1, 1, 1, 1], SMALL) == {4, 5, 6, 7}


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 6), st.integers(1, 5))
def test_looping_equals_the_definition(ids: list[int], tokens: int, period: int) -> None:
    want = set()
    for p in range(1, period + 1):
        for low in range(p, len(ids)):
            for high in range(low + tokens, len(ids) + 1):
                if all(ids[i] == ids[i - p] for i in range(low, high)):
                    want |= set(range(low, high))
    config = RepetitionConfig(repetition_tokens=tokens, repetition_period=period)
    assert looping(ids, [1] * len(ids), config) == want


def test_loops_leave_the_mask_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    samples = [sample([1, 2], [3, 4, 4, 4, 4, 4, 9]), sample([1, 2], [3, 5])]
    with caplog.at_level(logging.WARNING):
        kept, counts = without_loops(samples, SMALL)
    assert kept[0].loss_mask == (0, 0, 1, 1, 0, 0, 0, 0, 1)
    assert kept[0].token_ids == samples[0].token_ids
    assert kept[1] is samples[1]
    assert counts == {"num_dropped_repetition": 4.0, "num_looping_samples": 1.0}
    assert "4 of 9 answer tokens are loops" in caplog.text


def test_detection_can_be_switched_off() -> None:
    samples = [sample([1], [3] * 30)]
    kept, counts = without_loops(samples, RepetitionConfig(repetition_tokens=0))
    assert kept[0] is samples[0] and counts["num_dropped_repetition"] == 0
    with pytest.raises(UserError, match="repetition_period"):
        RepetitionConfig(repetition_period=0)
    with pytest.raises(UserError, match="repetition_tokens"):
        RepetitionConfig(repetition_tokens=-1)
