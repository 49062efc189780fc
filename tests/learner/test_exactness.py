"""The trainer's gradients against a reference that shares nothing with it: transformers' own
forward with PyTorch's attention kernel over a padded batch, peft's adapters, the loss token by
token, all by autograd in fp32. The bar: no number more than 1e-5 apart.

`test_packing.py` compares the layers below; here it is `Trainer.accumulate`, as a step calls it.
"""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfplay.config import LossConfig, TrainerConfig
from selfplay.learner.advantages import observation_mask
from selfplay.learner.loss import LossStats, denominator, step_loss
from selfplay.learner.trainer import Trainer
from selfplay.types import TrainingSample

from .tiny import VOCABULARY, tiny_model

BAR = 1e-5
LOSS = LossConfig(entropy_coefficient=0.02, observation_weight=0.3)
RANK = 3


@st.composite
def ragged_batches(draw: st.DrawFn) -> list[TrainingSample]:
    """Groups of up to 8 answers of several turns; prompts of up to 40 tokens that may begin alike,
    equal answers, answers that begin alike, some log-probabilities far off or lost."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    system = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(12))]
    samples = []
    for _ in range(draw(st.integers(1, 3))):
        prompt = [*system, *(rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 29)))]
        opening = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(4))]
        for _ in range(draw(st.integers(1, 8))):
            ids, mask = list(prompt), [0] * len(prompt)
            for turn in range(rng.randrange(1, 4)):
                answer = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 12))]
                answer = [*opening, *answer] if turn == 0 else answer
                told = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(5))]
                ids += [*answer, *told]
                mask += [1] * len(answer) + [0] * len(told)
            advantage = rng.choice([-1.5, -0.5, 0.5, 1.5])
            far = rng.choice([-4.2, -4.2, -4.2, -6.0, -1.0, float("nan"), -20.0])
            logprobs = [rng.choice([-4.0, -4.4, far]) if m else 0.0 for m in mask]
            samples.append(
                TrainingSample(
                    token_ids=tuple(ids),
                    loss_mask=tuple(mask),
                    logprobs=tuple(logprobs),
                    advantages=tuple(advantage * m for m in mask),
                    policy_version=0,
                    temperature=rng.choice([0.9, 0.9, 0.7]),
                    observations=observation_mask(mask),
                )
            )
    return samples


def make_model() -> Any:
    """Logits of ordinary size: probabilities near those that `ragged_batches` claims."""
    model = tiny_model(seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(0.5)
    return model


def make_trainer(rank: int, **config: Any) -> Trainer:
    trainer = Trainer(make_model(), TrainerConfig(lora_rank=rank, **asdict(LOSS), **config))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, master in trainer.masters.items():
            if name.endswith("lora_B"):
                master.copy_(0.1 * torch.randn(master.shape, generator=generator))
    trainer.refresh()
    return trainer


def trained_gradients(
    trainer: Trainer, samples: list[TrainingSample]
) -> tuple[float, dict[str, torch.Tensor]]:
    """What `Trainer.step` has before it clips."""
    batches = trainer.pack(samples)
    num_total, num_told = denominator(batches, LOSS), sum(batch.num_observed for batch in batches)
    stats = LossStats()
    loss = trainer.accumulate(
        batches, lambda p, h, batch: step_loss(p, h, batch, LOSS, num_total, num_told, stats)
    )
    grads = {}
    for name, master in trainer.masters.items():
        grads[name] = torch.zeros_like(master) if master.grad is None else master.grad.clone()
        master.grad = None
    return loss, grads


def reference_model(trainer: Trainer) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    """A model of transformers (and peft) with the trainer's weights; its trained parameters."""
    model = make_model()
    model.config._attn_implementation = "sdpa"
    if not trainer.config.lora_rank:
        return model, dict(model.named_parameters())
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", lora_dropout=0.0)
    wrapped = get_peft_model(model, config)
    found = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(trainer.masters[name])
    return wrapped, found


def reference_gradients(
    trainer: Trainer, samples: list[TrainingSample]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Left-padded, nothing shared, in one batch; the loss as its definition says."""
    model, parameters = reference_model(trainer)
    width = max(len(s.token_ids) for s in samples)
    pads = [width - len(s.token_ids) for s in samples]
    ids = torch.tensor(
        [[0] * pad + list(s.token_ids) for pad, s in zip(pads, samples, strict=True)]
    )
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    temperatures = torch.tensor([s.temperature for s in samples]).view(-1, 1, 1)
    logp = torch.log_softmax(logits / temperatures, dim=-1)
    plain = torch.log_softmax(logits, dim=-1)
    total, num = logits.new_zeros(()), 0
    told = [
        -plain[row, pad + i - 1, s.token_ids[i]]
        for row, (pad, s) in enumerate(zip(pads, samples, strict=True))
        for i, observed in enumerate(s.observations)
        if observed
    ]
    for row, (pad, s) in enumerate(zip(pads, samples, strict=True)):
        for i, trained in enumerate(s.loss_mask):
            if not trained or not s.logprobs[i] >= LOSS.gibberish_logprob:
                continue
            num += 1
            distribution = logp[row, pad + i - 1]
            token = distribution[s.token_ids[i]]
            ratio, advantage = torch.exp(token - s.logprobs[i]), s.advantages[i]
            if advantage > 0:
                value = ratio.clamp(max=1 + LOSS.clip_high) * advantage
            elif float(ratio.detach()) > LOSS.importance_cap:
                value = LOSS.importance_cap * (1 + token - token.detach()) * advantage
            else:
                value = ratio.clamp(min=1 - LOSS.clip_low) * advantage
            entropy = -(distribution.exp() * distribution).sum()
            total = total - value - LOSS.entropy_coefficient * entropy
    total = total / max(num, 1)
    if told:
        total = total + LOSS.observation_weight * torch.stack(told).mean()
    grads = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return float(total.detach()), {
        name: torch.zeros_like(parameters[name]) if grad is None else grad
        for name, grad in zip(parameters, grads, strict=True)
    }


def furthest(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert set(left) == set(right)
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    samples=ragged_batches(),
    rank=st.sampled_from([0, RANK]),
    micro_batch_tokens=st.sampled_from([1, 64, 4096]),
    share_prefixes=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_gradients_equal_the_padded_unshared_reference(
    samples: list[TrainingSample],
    rank: int,
    micro_batch_tokens: int,
    share_prefixes: bool,
    order: random.Random,
) -> None:
    trainer = make_trainer(
        rank, micro_batch_tokens=micro_batch_tokens, share_prefixes=share_prefixes
    )
    shuffled = order.sample(samples, len(samples))
    loss, grads = trained_gradients(trainer, shuffled)
    want_loss, want = reference_gradients(trainer, samples)
    assert loss == pytest.approx(want_loss, abs=BAR)
    assert furthest(grads, want) <= BAR


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(samples=ragged_batches())
def test_packing_sharing_and_order_change_nothing(samples: list[TrainingSample]) -> None:
    found = [
        trained_gradients(make_trainer(0, micro_batch_tokens=tokens, share_prefixes=share), ordered)
        for tokens, share, ordered in (
            (4096, True, samples),
            (1, True, samples[::-1]),
            (100, False, samples),
            (4096, False, samples[::-1]),
        )
    ]
    for loss, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=BAR)
        assert furthest(grads, found[0][1]) <= BAR
