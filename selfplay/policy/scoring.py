"""How likely given answers are: one forward pass over rows that hold every shared prefix once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from selfplay.errors import PolicyError
from selfplay.modeling.devices import device_of
from selfplay.modeling.fit import fit_of, row_limit, states_of
from selfplay.modeling.prefix_tree import BLOCK_TOKENS, build_tree, common_prefix
from selfplay.modeling.row_attention import make_plan
from selfplay.sampling import ScoreRequest, logprob_temperature

ROW_TOKENS = 4096
"""Tokens of a row, a longer sequence is a row of its own."""


@torch.inference_mode()
def answer_logprobs(
    model: Any, requests: Sequence[ScoreRequest], row_tokens: int = ROW_TOKENS
) -> list[tuple[float, ...]]:
    """Log-probability of each token of each request's answer, in order."""
    found: list[tuple[float, ...]] = [()] * len(requests)
    for row in _rows(requests, row_limit(model, min(row_tokens, ROW_TOKENS))):
        values = _row_logprobs(model, [requests[index] for index in row])
        for index, value in zip(row, values, strict=True):
            found[index] = value
    return found


def _rows(requests: Sequence[ScoreRequest], limit: int) -> Iterator[list[int]]:
    """Indices of requests, in rows of at most `limit` tokens without shared prefixes."""
    tokens = [request.prompt_ids + request.answer_ids for request in requests]
    row: list[int] = []
    size = 0
    for index in sorted(range(len(requests)), key=lambda i: tokens[i]):
        if not requests[index].prompt_ids or not requests[index].answer_ids:
            raise PolicyError("a score needs a prompt and an answer")
        new = len(tokens[index])
        if row:
            new -= common_prefix(tokens[row[-1]], tokens[index])
            if size + new > limit:
                yield row
                row, size, new = [], 0, len(tokens[index])
        row.append(index)
        size += new
    if row:
        yield row


def _row_logprobs(model: Any, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
    device = device_of(model)
    tree = build_tree(
        [request.prompt_ids + request.answer_ids for request in requests],
        block_tokens=BLOCK_TOKENS if device.type == "cpu" else 0,
    )
    states = states_of(
        model,
        torch.tensor([tree.token_ids], device=device),
        torch.tensor([tree.position_ids], device=device),
        make_plan(tree, device),
    )[0]
    head = fit_of(model).head
    found = []
    for place, request in enumerate(requests):
        rows = tree.rows(place)[len(request.prompt_ids) - 1 : -1]
        logits = head.of(model, states[torch.tensor(rows, device=device)]).float()
        logprobs = torch.log_softmax(logits / logprob_temperature(request.temperature), dim=-1)
        targets = torch.tensor(request.answer_ids, device=device).unsqueeze(1)
        found.append(tuple(logprobs.gather(1, targets)[:, 0].tolist()))
    return found
