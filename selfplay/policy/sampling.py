"""Drawing tokens from logits: temperature, nucleus and log-probabilities in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from selfplay.sampling import SampleRequest, end_of

_BLOCK = 256
_NUCLEUS_GUESS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the rows of a batch were asked for, each [rows]: most tokens, id of the token that ends
    an answer, temperature, top-p."""

    limit: torch.Tensor
    end: torch.Tensor
    temperature: torch.Tensor
    top_p: torch.Tensor

    @classmethod
    def of(
        cls, requests: Sequence[SampleRequest], end_of_turn_id: int, device: torch.device
    ) -> Asked:
        """`requests`: of each row."""
        return cls(
            limit=torch.tensor([r.max_new_tokens for r in requests], device=device),
            end=torch.tensor([end_of(r, end_of_turn_id) for r in requests], device=device),
            temperature=torch.tensor([float(r.temperature) for r in requests], device=device),
            top_p=torch.tensor([float(r.top_p) for r in requests], device=device),
        )


def draw_tokens(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_p: torch.Tensor,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token for each row; its log-probability is at the temperature, before top-p.

    logits [rows, vocabulary], any float dtype; temperature and top_p [rows]. Temperature 0 takes
    the most likely token, with its log-probability at temperature 1.
    """
    greedy = temperature == 0
    divisor = torch.where(greedy, 1.0, temperature)
    if bool((divisor != 1).any()):
        logits = logits.float() / divisor.unsqueeze(1)
    probs = torch.softmax(logits, dim=-1, dtype=torch.float32)
    nucleus = top_p < 1
    weights = probs
    if bool(nucleus.any()):
        weights = probs.clone()
        weights[nucleus] = keep_nucleus(probs[nucleus], top_p[nucleus])
    uniform = torch.rand(len(weights), 2, generator=generator, dtype=torch.float64)
    tokens = draw_categorical(weights, uniform.to(weights.device))
    if bool(greedy.any()):
        tokens = torch.where(greedy, logits.argmax(-1), tokens)
    return tokens, probs.gather(1, tokens.unsqueeze(1)).squeeze(1).log()


def draw_static(
    logits: torch.Tensor,
    divisor: torch.Tensor,
    greedy: torch.Tensor,
    top_p: torch.Tensor | None,
    uniform: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `draw_tokens`, by the same operations whatever the values are, so that it can be recorded.

    divisor: the temperature, 1 where `greedy`; top_p: infinite where nothing is left out, None
    where that is everywhere; uniform: fp64 [rows, 2].
    """
    probs = torch.softmax(logits.float() / divisor.unsqueeze(1), dim=-1)
    weights = probs
    if top_p is not None:
        values, indices = probs.sort(dim=-1, descending=True)
        weights = _scattered(values, indices, top_p, probs)
    drawn = draw_categorical(weights, uniform)
    tokens = torch.where(greedy, logits.argmax(-1), drawn)
    return tokens, probs.gather(1, tokens.unsqueeze(1)).squeeze(1).log()


def draw_categorical(probs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """One index for each row of unnormalised weights [rows, size], by inverse cumulation.

    In two levels (blocks, then inside the block): much faster on CPU than `torch.multinomial`
    over a large vocabulary, and no long fp32 sum. A weight of 0 is never drawn. uniform: fp64
    numbers below 1, [rows, 2].
    """
    rows, size = probs.shape
    padded = functional.pad(probs, (0, -size % _BLOCK)).view(rows, -1, _BLOCK)
    block = _invert(padded.sum(-1).double(), uniform[:, 0])
    inside = padded[torch.arange(rows, device=probs.device), block].double()
    return block * _BLOCK + _invert(inside, uniform[:, 1])


def keep_nucleus(probs: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zero all but the smallest set of likeliest tokens whose mass reaches `top_p`."""
    size = probs.shape[1]
    num = min(_NUCLEUS_GUESS, size)
    values, indices = probs.topk(num, dim=-1)
    if num < size and bool((values.sum(-1) < top_p).any()):
        values, indices = probs.sort(dim=-1, descending=True)
    return _scattered(values, indices, top_p, probs)


def _scattered(
    values: torch.Tensor, indices: torch.Tensor, top_p: torch.Tensor, probs: torch.Tensor
) -> torch.Tensor:
    """The likeliest probabilities, sorted, back in their places, up to the mass `top_p`."""
    before = values.cumsum(-1) - values
    values = values.masked_fill(before >= top_p.unsqueeze(1), 0.0)
    return torch.zeros_like(probs).scatter_(1, indices, values)


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """First index whose cumulated weight exceeds uniform x total; never one of weight 0."""
    cumulated = weights.cumsum(-1)
    point = (uniform * cumulated[:, -1]).unsqueeze(1)
    index = torch.searchsorted(cumulated, point, right=True).squeeze(1)
    last = (weights > 0).long().cumsum(-1).argmax(-1)
    return torch.minimum(index, last)
