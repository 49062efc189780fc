"""Drawing tokens from logits: temperature, nucleus and log-probabilities in fp32."""

from __future__ import annotations

import torch
from torch.nn import functional

_BLOCK = 256
_NUCLEUS_GUESS = 1024


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
    tokens = draw_categorical(weights, generator)
    if bool(greedy.any()):
        tokens = torch.where(greedy, logits.argmax(-1), tokens)
    return tokens, probs.gather(1, tokens.unsqueeze(1)).squeeze(1).log()


def draw_categorical(probs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One index for each row of unnormalised weights [rows, size], by inverse cumulation.

    In two levels (blocks, then inside the block): much faster on CPU than `torch.multinomial`
    over a large vocabulary, and no long fp32 sum. A weight of 0 is never drawn. The generator is a
    CPU's, whatever the weights lie on.
    """
    rows, size = probs.shape
    padded = functional.pad(probs, (0, -size % _BLOCK)).view(rows, -1, _BLOCK)
    uniform = torch.rand(rows, 2, generator=generator, dtype=torch.float64).to(probs.device)
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
