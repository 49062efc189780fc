"""The forward pass of training: a packed row in, log-probabilities of its trained tokens out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from selfplay.learner.loss import head_scores, token_scores
from selfplay.learner.packing import MicroBatch
from selfplay.modeling.fit import fit_of, states_of
from selfplay.modeling.row_attention import make_plan


class TokenScorer(nn.Module):
    """Micro-batch to log-probability and entropy of each trained token, fp32 [N].

    One forward pass of one module: what is sharded must be entered through its own forward.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return row_scores(self.model, batch)


def row_scores(model: Any, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of each predicted token, fp32 [N + M]."""
    states = row_states(model, batch)[batch.predictors]
    head, module = fit_of(model).head, model.get_output_embeddings()
    if not head.is_product:
        given = (states, batch.targets, batch.temperatures)
        return head_scores(lambda part: head.finish(module(part)), *given)
    temperatures = batch.temperatures
    if head.scale != 1.0:
        temperatures = temperatures / head.scale
    return token_scores(states, module.weight, batch.targets, temperatures)


def row_states(model: Any, batch: MicroBatch) -> torch.Tensor:
    """Last states of the row's tokens, [tokens, size]."""
    plan = make_plan(batch, batch.token_ids.device)
    return states_of(model, batch.token_ids, batch.position_ids, plan)[0]
