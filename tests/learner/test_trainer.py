"""Steps, adapters, publishing and resuming on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfplay.config import TrainerConfig
from selfplay.errors import PolicyError, UserError
from selfplay.learner import checkpoint
from selfplay.learner.lora import (
    lora_layers,
)
from selfplay.learner.publish import Publisher, is_merged, save_hf
from selfplay.learner.trainer import Trainer
from selfplay.types import TrainingSample

from .samples import sample
from .tiny import tiny_model

CONFIG = TrainerConfig(lora_rank=3, learning_rate=0.02, warmup_steps=2)
FULL = TrainerConfig(lora_rank=0, learning_rate=0.02, warmup_steps=2)


def step_samples(seed: int = 0) -> list[TrainingSample]:
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for group in range(3):
        prompt = torch.randint(0, 60, (9,), generator=generator).tolist()
        for index in range(4):
            answer = torch.randint(0, 60, (3 + index,), generator=generator).tolist()
            samples.append(sample([1, 2, 3, group, *prompt], answer, 1.5 if index else -4.5, -3.0))
    return samples


def logits_of(model: Any) -> torch.Tensor:
    """Logits of the unchanged model code on a fixed row."""
    implementation = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            return model(torch.tensor([[1, 5, 9, 14, 3]])).logits  # type: ignore[no-any-return]
    finally:
        model.config._attn_implementation = implementation


class EnginePolicy:
    """The two fields of a policy that publishing touches."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.version = 0


@pytest.mark.parametrize("config", [CONFIG, FULL])
def test_step_raises_the_probability_of_good_answers(config: TrainerConfig) -> None:
    trainer = Trainer(tiny_model(), config)
    good = [sample([1, 2, 3], [4, 5], 1.0, -3.0), sample([1, 2, 3], [6, 7], -1.0, -3.0)]
    first = probability(trainer, good[0]), probability(trainer, good[1])
    stats = trainer.step(good)
    assert stats["skipped"] == 0 and stats["num_tokens"] == 4
    assert stats["learning_rate"] == pytest.approx(0.01)
    assert probability(trainer, good[0]) > first[0]
    assert probability(trainer, good[1]) < first[1]
    assert trainer.step(good)["learning_rate"] == pytest.approx(0.02)


def probability(trainer: Trainer, one: TrainingSample) -> float:
    from selfplay.learner.packing import pack

    (batch,) = pack([one], max_tokens=100)
    with torch.no_grad():
        return float(trainer.score(batch)[0].sum())


def test_empty_step_is_skipped() -> None:
    trainer = Trainer(tiny_model(), CONFIG)
    assert trainer.step([])["skipped"] == 1.0
    assert trainer.num_steps == 0


@pytest.mark.parametrize("config", [CONFIG, FULL])
def test_a_gradient_that_is_not_finite_moves_nothing(config: TrainerConfig) -> None:
    trainer = Trainer(tiny_model(), config)
    before = {name: master.clone() for name, master in trainer.masters.items()}
    bad = sample([1, 2], [3], float("inf"), -3.0)
    assert trainer.step([bad])["skipped"] == 1.0
    assert all(torch.equal(before[name], m) for name, m in trainer.masters.items())
    assert all(m.grad is None for m in trainer.masters.values())


def test_gradients_add_up_in_fp32_for_a_bf16_model() -> None:
    model = tiny_model(dtype=torch.bfloat16)
    trainer = Trainer(model, FULL)
    assert all(master.dtype == torch.float32 for master in trainer.masters.values())
    trainer.step(step_samples())
    for name, param in model.named_parameters():
        assert param.dtype == torch.bfloat16
        assert torch.equal(param, trainer.masters[name].bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_live_weight_is_base_plus_delta_rounded_once(dtype: torch.dtype) -> None:
    model = tiny_model(dtype=dtype)
    original = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(model, CONFIG)
    trainer.step(step_samples())
    moved = 0
    for name, layer in lora_layers(model):
        base = original[f"{name}.weight"]
        assert torch.equal(layer.base, base)
        want = (base.float() + layer.scale * (layer.lora_B @ layer.lora_A)).to(dtype)
        torch.testing.assert_close(layer.weight, want, rtol=1e-2, atol=1e-6)
        moved += int(not torch.equal(layer.weight, base))
    assert moved == 14
    assert torch.equal(model.get_input_embeddings().weight, original["model.embed_tokens.weight"])


def test_lora_gradient_equals_that_of_an_explicit_sum() -> None:
    from selfplay.learner.lora import LoraLinear

    torch.manual_seed(0)
    linear = torch.nn.Linear(7, 5, bias=False)
    layer = LoraLinear(linear, rank=2, alpha=6.0)
    torch.nn.init.normal_(layer.lora_B)
    layer.merge()
    inputs = torch.randn(2, 3, 7, requires_grad=True)
    factor_a, factor_b = layer.lora_A, layer.lora_B
    plain = inputs @ (layer.base + 3.0 * factor_b @ factor_a).t()
    weights = torch.randn_like(plain)
    leaves = (inputs, factor_a, factor_b)
    got = torch.autograd.grad((layer(inputs) * weights).sum(), leaves)
    want = torch.autograd.grad((plain * weights).sum(), leaves)
    for left, right in zip(got, want, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, FULL])
def test_publish_bumps_the_version_of_current_weights(config: TrainerConfig) -> None:
    trainer = Trainer(tiny_model(dtype=torch.bfloat16), config)
    policy = EnginePolicy(trainer.model)
    publisher = Publisher(trainer.model, policy)
    trainer.step(step_samples())
    assert publisher.publish() == policy.version == 1


def test_publish_refuses_stale_or_broken_weights() -> None:
    trainer = Trainer(tiny_model(), CONFIG)
    policy = EnginePolicy(trainer.model)
    publisher = Publisher(trainer.model, policy)
    trainer.step(step_samples())
    _, layer = next(iter(lora_layers(trainer.model)))
    with torch.no_grad():
        layer.weight.copy_(layer.base)
    assert not is_merged(layer)
    with pytest.raises(PolicyError, match="stale"):
        publisher.publish()
    layer.merge()
    with torch.no_grad():
        layer.weight[0, 0] = float("nan")
    with pytest.raises(PolicyError, match="not finite"):
        publisher.publish()
    assert policy.version == 0
    with pytest.raises(PolicyError, match="does not run"):
        Publisher(trainer.model, EnginePolicy(tiny_model()))


@pytest.mark.parametrize("config", [CONFIG, FULL])
def test_saved_model_is_an_ordinary_one(config: TrainerConfig, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    trainer = Trainer(tiny_model(), config)
    trainer.step(step_samples())
    save_hf(trainer.model, None, tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path / "model")).eval()
    torch.testing.assert_close(logits_of(again), logits_of(trainer.model), rtol=1e-5, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("config", [CONFIG, FULL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resumed_run_equals_the_uninterrupted_one(
    config: TrainerConfig, dtype: torch.dtype, tmp_path: Path
) -> None:
    straight = Trainer(tiny_model(dtype=dtype), config)
    for step in range(4):
        straight.step(step_samples(step))
    first = Trainer(tiny_model(dtype=dtype), config)
    for step in range(2):
        first.step(step_samples(step))
    path = checkpoint.save(tmp_path, 1, first, {"policy_version": 2})
    second = Trainer(tiny_model(dtype=dtype), config)
    assert checkpoint.load(path, second) == {"policy_version": 2}
    for step in range(2, 4):
        second.step(step_samples(step))
    assert second.num_steps == straight.num_steps == 4
    for name, param in straight.model.state_dict().items():
        assert torch.equal(param, second.model.state_dict()[name]), name


def test_checkpoint_of_another_learner_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 0, Trainer(tiny_model(), CONFIG), {})
    with pytest.raises(UserError, match="lora_rank"):
        checkpoint.load(path, Trainer(tiny_model(), FULL))


@pytest.mark.parametrize("config", [CONFIG, FULL])
def test_an_anchor_pulls_the_weights_back_to_where_the_run_began(config: TrainerConfig) -> None:
    """What the free step moved, times 1 - 0.25; the whole way back is no step."""
    ends = {}
    for anchor in (0.0, 0.25, 1.0):
        torch.manual_seed(0)
        trainer = Trainer(tiny_model(), replace(config, anchor=anchor))
        start = {name: master.detach().clone() for name, master in trainer.masters.items()}
        trainer.step(step_samples())
        ends[anchor] = {n: m.detach() - start[n] for n, m in trainer.masters.items()}
    for name, free in ends[0.0].items():
        torch.testing.assert_close(ends[0.25][name], 0.75 * free, rtol=1e-4, atol=1e-6)
        assert float(ends[1.0][name].abs().max()) < 1e-6
