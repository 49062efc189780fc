"""Drawing tokens: exact log-probabilities, right frequencies, nucleus."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.policy.sampling import (
    draw_categorical,
    draw_static,
    draw_tokens,
    keep_nucleus,
)


def uniform(rows: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(rows, 2, generator=generator, dtype=torch.float64)


def draw(
    logits: torch.Tensor, temperature: float, top_p: float, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = len(logits)
    generator = torch.Generator().manual_seed(seed)
    return draw_tokens(
        logits, torch.full((rows,), temperature), torch.full((rows,), top_p), generator
    )


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_frequencies_and_logprobs(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, float("-inf")])
    num = 20_000
    tokens, logprobs = draw(logits.expand(num, -1), temperature, 1.0)
    want = torch.log_softmax(logits / temperature, dim=-1)
    torch.testing.assert_close(logprobs, want[tokens])
    share = torch.bincount(tokens, minlength=5) / num
    assert torch.allclose(share, want.exp(), atol=0.015)
    assert share[4] == 0


def test_large_vocabulary_is_drawn_in_two_levels() -> None:
    weights = torch.zeros(1, 1000)
    weights[0, [3, 255, 256, 999]] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    generator = torch.Generator().manual_seed(1)
    drawn = draw_categorical(weights.expand(20_000, -1), uniform(20_000, generator))
    share = torch.bincount(drawn, minlength=1000) / 20_000
    assert share[[3, 255, 256, 999]].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.015)
    assert share.sum() == pytest.approx(1.0)


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    tokens, logprobs = draw(logits, 0.0, 1.0)
    assert tokens.tolist() == [1]
    torch.testing.assert_close(logprobs[0], torch.log_softmax(logits, -1)[0, 1])


def test_nucleus_by_hand() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    for top_p, kept in ((0.4, 1), (0.5, 1), (0.6, 2), (0.9, 3), (0.99, 4)):
        left = keep_nucleus(probs, torch.tensor([top_p]))
        assert int((left > 0).sum()) == kept


def test_nucleus_beyond_the_guess() -> None:
    flat = torch.full((1, 3000), 1 / 3000)
    left = keep_nucleus(flat, torch.tensor([0.9]))
    assert int((left > 0).sum()) == pytest.approx(2700, abs=5)


def test_top_p_does_not_change_the_logprob() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(500, -1)
    tokens, logprobs = draw(logits, 1.0, 0.7)
    assert set(tokens.tolist()) == {0, 1}
    torch.testing.assert_close(logprobs, torch.log_softmax(logits[0], -1)[tokens])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=600).filter(any), st.integers(0, 99)
)
def test_a_weight_of_zero_is_never_drawn(weights: list[float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.tensor([weights]).expand(20, -1)
    assert all(
        weights[index] > 0
        for index in draw_categorical(rows, uniform(len(rows), generator)).tolist()
    )


def test_static_draws_are_the_same_draws() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(500, 1500, generator=generator)
    temperature = torch.tensor([0.0, 0.5, 1.0, 1.0]).repeat(125)
    top_p = torch.tensor([1.0, 0.9, 0.9, 1.0]).repeat(125)
    want = draw_tokens(logits, temperature, top_p, torch.Generator().manual_seed(4))
    drawn = uniform(500, torch.Generator().manual_seed(4))
    limit = torch.where(top_p < 1, top_p, float("inf"))
    divisor = torch.where(temperature == 0, 1.0, temperature)
    got = draw_static(logits, divisor, temperature == 0, limit, drawn)
    assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
    everything = draw_static(logits, divisor, temperature == 0, None, drawn)
    assert torch.equal(everything[0][3::4], want[0][3::4])
