"""Norms as one kernel, and compiled layers, against the model's own code."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from selfplay.config import TrainerConfig
from selfplay.learner.measures.device_check import random_samples
from selfplay.learner.trainer import Trainer
from selfplay.modeling import attention, compiled, variants
from selfplay.modeling.fused import fuse_norms
from tests.learner.tiny import VOCABULARY, tiny_model


def logits_and_gradients(dtype: torch.dtype, fused: bool) -> tuple[torch.Tensor, torch.Tensor]:
    model = tiny_model(dtype=dtype)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "norm" in name:
                param.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    if fused:
        fuse_norms(model)
        norms = [module for module in model.modules() if "Norm" in type(module).__name__]
        assert norms and all(module.forward.__name__ == "_norm" for module in norms)
    logits = model(torch.arange(20).unsqueeze(0)).logits
    logits.float().square().sum().backward()
    gradients = torch.cat([param.grad.flatten() for param in model.parameters()])
    return logits.detach().float(), gradients.float()


def test_fused_norms_are_the_models_norms_and_no_less_precise_in_bf16() -> None:
    exact = logits_and_gradients(torch.float32, False)
    for want, got in zip(exact, logits_and_gradients(torch.float32, True), strict=True):
        assert float((got - want).norm()) <= 1e-5 * float(want.norm())
    plain = logits_and_gradients(torch.bfloat16, False)
    fused = logits_and_gradients(torch.bfloat16, True)
    for want, two, one in zip(exact, plain, fused, strict=True):
        assert float((one - want).norm()) <= 1.2 * float((two - want).norm())


@pytest.mark.parametrize("rank", [0, 4])
def test_compiled_layers_give_the_same_step_and_are_compiled_once(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """By the compiler's front alone: the back needs a C++ compiler and a minute."""
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", functools.partial(plain, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()

    def steps(compile_it: bool) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        config = TrainerConfig(lora_rank=rank, micro_batch_tokens=60, compile=compile_it)
        trainer = Trainer(tiny_model(dtype=torch.bfloat16), config)
        lengths = (9, 12, 17)
        rows = [trainer.step(random_samples(VOCABULARY, 2, 3, n, 5)) for n in lengths]
        return [{k: row[k] for k in ("loss", "grad_norm", "entropy")} for row in rows]

    try:
        want, got = steps(False), steps(True)
        assert got == want
        assert len(counters["graph_break"]) == 1  # attention, and nothing else
        assert counters["stats"]["unique_graphs"] <= 8  # not one for each layer and length
    finally:
        from transformers import AttentionInterface

        AttentionInterface.register(variants.ATTENTION_NAME, attention.attention_function)
        torch._dynamo.reset()


def test_a_compiled_layer_samples_by_its_plain_code() -> None:
    layer = torch.nn.Linear(1, 1)
    chosen = compiled._Training(layer, lambda: "plain", lambda: "compiled")
    assert chosen() == "compiled"
    layer.eval()
    assert chosen() == "plain"
