"""Activation checkpointing and gradient accumulation change memory and speed, not gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from selfplay.config import TrainerConfig
from selfplay.errors import UserError
from selfplay.learner.loss import LossStats, denominator, policy_loss
from selfplay.learner.trainer import Trainer

from .ranks import FULL, LORA, batches
from .tiny import tiny_model


def gradients(
    config: TrainerConfig, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, torch.Tensor], int, int]:
    """Of one step, the bytes that autograd kept for it, and the number of micro-batches."""
    trainer = Trainer(tiny_model(dtype=dtype), config)
    rows = trainer.pack(batches()[0])
    total = denominator(rows, config)
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.accumulate(
            rows, lambda p, h, row: policy_loss(p, h, row, config, total, LossStats())
        )
    found = {name: m.grad for name, m in trainer.masters.items() if m.grad is not None}
    assert len(found) == len(trainer.masters)
    return found, kept, len(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [LORA, FULL])
def test_checkpointed_activations_give_the_same_gradients(
    config: TrainerConfig, dtype: torch.dtype
) -> None:
    want, plain, _ = gradients(config, dtype)
    got, less, _ = gradients(replace(config, activation_checkpointing=True), dtype)
    assert all(torch.equal(got[name], tensor) for name, tensor in want.items())
    assert less < plain / 2


@pytest.mark.parametrize("config", [LORA, FULL])
def test_accumulated_gradients_are_those_of_one_batch(config: TrainerConfig) -> None:
    want, _, one = gradients(replace(config, micro_batch_tokens=10_000))
    got, _, many = gradients(replace(config, micro_batch_tokens=16))
    assert one == 1 and many > 4
    for name, tensor in want.items():
        assert float((got[name] - tensor).abs().max()) <= 1e-5, name


def test_a_model_that_cannot_is_refused() -> None:
    model = tiny_model()
    model.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match="activation_checkpointing"):
        Trainer(model, replace(LORA, activation_checkpointing=True))
