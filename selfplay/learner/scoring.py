"""The forward pass of training: a packed row in, log-probabilities of its trained tokens out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from selfplay.learner.loss import token_scores
from selfplay.learner.packing import MicroBatch
from selfplay.modeling.attention import hidden_states
from selfplay.modeling.row_attention import make_plan


class TokenScorer(nn.Module):
    """Micro-batch to log-probability and entropy of each trained token, fp32 [N].

    One forward pass of one module: what is sharded must be entered through its own forward.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        states = row_states(self.model, batch)
        head = self.model.get_output_embeddings().weight  # type: ignore[operator]
        return token_scores(states[batch.predictors], head, batch.targets, batch.temperatures)


def row_states(model: Any, batch: MicroBatch) -> torch.Tensor:
    """Last states of the row's tokens, [tokens, size]."""
    plan = make_plan(batch, batch.token_ids.device)
    return hidden_states(model, batch.token_ids, batch.position_ids, plan)[0]
