"""The sampler and the learner on a device of their own: a tensor of the CPU anywhere is an error.

What the device computes is computed on the CPU, so results can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from selfplay.learner import checkpoint
from selfplay.learner.lora import lora_layers
from selfplay.learner.measures.device_check import random_samples
from selfplay.learner.measures.mismatch import measure_mismatch
from selfplay.learner.packing import MicroBatch
from selfplay.learner.publish import Publisher
from selfplay.learner.trainer import Trainer, TrainerConfig
from selfplay.modeling import row_attention
from selfplay.policy import static_decoding
from selfplay.policy.decoding import DecodePlan
from selfplay.policy.transformers import TransformersPolicy
from selfplay.sampling import SampleRequest
from selfplay.types import Trajectory
from tests.learner.tiny import VOCABULARY, tiny_model
from tests.policy.test_transformers import PlainTokenizer
from tests.pretend import MixedDevices, held, pretend_model, pretending

SAMPLES = random_samples(VOCABULARY, 2, 3, 12, 5)
REQUESTS = [
    SampleRequest(prompt_ids=(5, 6, 7, 8)[: 2 + n], num_samples=2, max_new_tokens=5 + 30 * n,
                  temperature=(0.7, 0.0, 1.0)[n], top_p=(0.9, 1.0, 1.0)[n], seed=n)
    for n in range(3)
]  # fmt: skip


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretending() as device:
        yield device


def make_trainer(rank: int, *, there: bool, checkpointing: bool = False) -> Trainer:
    torch.manual_seed(0)
    model = tiny_model(dtype=torch.bfloat16)
    config = TrainerConfig(
        lora_rank=rank,
        learning_rate=1e-2,
        micro_batch_tokens=40,
        activation_checkpointing=checkpointing,
    )
    return Trainer(pretend_model(model) if there else model, config)


def the_same_factors(trainer: Trainer) -> None:
    """As after some training; the initial ones come from a device's own generator."""
    generator = torch.Generator().manual_seed(1)
    for _, layer in lora_layers(trainer.model):
        for factor in (layer.lora_A, layer.lora_B):
            held(factor).copy_(0.1 * torch.randn(factor.shape, generator=generator))
        layer.merge()


@pytest.mark.parametrize("rank", [0, 4])
def test_training_steps_stay_on_their_device_and_equal_the_cpus(rank: int) -> None:
    rows, weights = [], []
    for there in (False, True):
        with pretending():
            trainer = make_trainer(rank, there=there, checkpointing=not rank)
            assert (trainer.device.type == "cpu") != there
            the_same_factors(trainer)
            rows.append([trainer.step(SAMPLES) for _ in range(2)])
            assert all(master.device == trainer.device for master in trainer.masters.values())
            weights.append(torch.cat([held(m).flatten() for m in trainer.masters.values()]))
    assert rows[1][1]["grad_norm"] == pytest.approx(rows[0][1]["grad_norm"], rel=0.03)
    assert rows[1][1]["loss"] == pytest.approx(rows[0][1]["loss"], rel=0.03)
    change = float((weights[1] - weights[0]).norm() / weights[0].norm())
    assert change < 0.02  # two bf16 attentions, and AdamW's first steps are all signs


def test_sampling_stays_there_and_its_logprobs_are_the_trainers(device: torch.device) -> None:
    model = pretend_model(tiny_model())
    policy = TransformersPolicy(model, PlainTokenizer())
    assert policy._static is not None
    for _ in range(2):  # the second time in what the first has left
        answers = policy.sample(REQUESTS)
    trajectories = [
        Trajectory(
            token_ids=(*r.prompt_ids, *a.token_ids),
            loss_mask=(0,) * len(r.prompt_ids) + (1,) * len(a.token_ids),
            logprobs=(0.0,) * len(r.prompt_ids) + a.logprobs,
            policy_version=0,
            temperature=r.temperature or 1.0,
        )
        for r, group in zip(REQUESTS, answers, strict=True)
        for a in group
    ]
    assert measure_mismatch(model, trajectories).max_abs < 1e-4


def test_the_plain_sampler_stays_there_too(device: torch.device) -> None:
    policy = TransformersPolicy(pretend_model(tiny_model()), PlainTokenizer())
    policy._static = None
    answers = policy.sample(REQUESTS)  # rows end at different steps: the buffers are rebuilt
    assert [len(group) for group in answers] == [2, 2, 2]


def test_publishing_and_checkpoints(device: torch.device, tmp_path: Path) -> None:
    trainer = make_trainer(4, there=True)
    trainer.step(SAMPLES)
    policy = TransformersPolicy(trainer.model, PlainTokenizer())
    assert Publisher(trainer.model, policy).publish() == 1
    state = trainer.state_dict()
    other = make_trainer(4, there=True)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    empty = other.empty_state(shapes)
    for name, value in empty.items():
        assert value.device == state[name].device, name
        held(value).copy_(held(state[name]))
    other.load_state_dict(empty)
    assert other.step(SAMPLES)["grad_norm"] == trainer.step(SAMPLES)["grad_norm"]
    assert checkpoint.latest(tmp_path) is None


def here(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same with its result left on the CPU."""
    return lambda *args, **kwargs: held(function(*args, **kwargs))


def plant_in_packing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MicroBatch, "to", lambda self, device: self)


def plant_in_attention(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(row_attention, "visible", here(row_attention.visible))


@pytest.mark.parametrize("plant", [plant_in_packing, plant_in_attention])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_cpu_tensor_in_the_learner_is_found(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, plant: Any, rank: int
) -> None:
    trainer = make_trainer(rank, there=True)
    plant(monkeypatch)
    with pytest.raises(MixedDevices):
        trainer.step(SAMPLES)


def test_a_cpu_tensor_in_the_sampler_is_found(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = TransformersPolicy(pretend_model(tiny_model()), PlainTokenizer())
    draw = static_decoding.draw_static

    def cpu_uniform(logits: Any, divisor: Any, greedy: Any, top_p: Any, uniform: Any) -> Any:
        return draw(logits, divisor, greedy, top_p, held(uniform))

    monkeypatch.setattr(static_decoding, "draw_static", cpu_uniform)
    with pytest.raises(Exception, match="MixedDevices"):
        policy.sample(REQUESTS)
    monkeypatch.undo()
    policy._static = None
    mask = DecodePlan._mask
    monkeypatch.setattr(DecodePlan, "_mask", here(mask))
    with pytest.raises(Exception, match="MixedDevices"):
        policy.sample(REQUESTS)
