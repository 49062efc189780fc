"""The packed computation equals the plain one: every sample alone, eager attention, no sharing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfplay.config import LossConfig
from selfplay.errors import UserError
from selfplay.learner.loss import LossStats, denominator, policy_loss, token_scores
from selfplay.learner.packing import MicroBatch, num_trained_tokens, pack
from selfplay.modeling.attention import TreePlan, hidden_states
from selfplay.modeling.fit import use_plans
from selfplay.types import TrainingSample

from .samples import ragged_groups, sample
from .tiny import tiny_model

CONFIG = LossConfig(entropy_coefficient=0.1)


def packed_gradients(
    model: Any, samples: list[TrainingSample], max_tokens: int, block_tokens: int
) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and metrics by the packed path."""
    use_plans(model)
    model.zero_grad()
    batches = pack(samples, max_tokens=max_tokens, block_tokens=block_tokens)
    num_total = denominator(batches, CONFIG)
    stats, total = LossStats(), 0.0
    for batch in batches:
        states = hidden_states(model, batch.token_ids, batch.position_ids, TreePlan(batch.blocks))
        head = model.get_output_embeddings().weight
        scores = token_scores(states[0, batch.predictors], head, batch.targets, batch.temperatures)
        loss = policy_loss(*scores, batch, CONFIG, num_total, stats)
        loss.backward()
        total += float(loss.detach())
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    return total, grads, stats.means()


def reference_gradients(
    model: Any, samples: list[TrainingSample]
) -> tuple[float, dict[str, torch.Tensor]]:
    """A right-padded batch through the unchanged model, softmax by autograd."""
    model.config._attn_implementation = "eager"
    model.zero_grad()
    width = max(len(s.token_ids) for s in samples)
    ids = torch.tensor([[*s.token_ids, *[0] * (width - len(s.token_ids))] for s in samples])
    mask = torch.tensor(
        [[1] * len(s.token_ids) + [0] * (width - len(s.token_ids)) for s in samples]
    )
    temperatures = torch.tensor([s.temperature for s in samples]).view(-1, 1, 1)
    logits = model(input_ids=ids, attention_mask=mask).logits / temperatures
    logp = torch.log_softmax(logits, dim=-1)
    total, num = torch.zeros(()), 0
    for row, s in enumerate(samples):
        for i in range(1, len(s.token_ids)):
            if not s.loss_mask[i]:
                continue
            num += 1
            token = logp[row, i - 1, s.token_ids[i]]
            entropy = -(logp[row, i - 1].exp() * logp[row, i - 1]).sum()
            ratio = torch.exp(token - s.logprobs[i])
            advantage = s.advantages[i]
            if float(ratio.detach()) > CONFIG.importance_cap:
                plain = CONFIG.importance_cap * torch.exp(token - token.detach()) * advantage
            else:
                plain = ratio * advantage
            clipped = ratio.clamp(1 - CONFIG.clip_low, 1 + CONFIG.clip_high) * advantage
            total = total - torch.minimum(plain, clipped) - CONFIG.entropy_coefficient * entropy
    total = total / num
    total.backward()
    return float(total.detach()), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(
    left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], atol: float = 1e-5
) -> None:
    for name, grad in left.items():
        torch.testing.assert_close(grad, right[name], rtol=1e-4, atol=atol, msg=name)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    samples=ragged_groups(),
    max_tokens=st.sampled_from([1, 12, 30, 500]),
    block_tokens=st.sampled_from([1, 3, 8, 256]),
    tied=st.booleans(),
)
def test_loss_and_gradients_equal_the_unshared_reference(
    samples: list[TrainingSample], max_tokens: int, block_tokens: int, tied: bool
) -> None:
    model = tiny_model(tied=tied)
    loss, grads, _ = packed_gradients(model, samples, max_tokens, block_tokens)
    want_loss, want_grads = reference_gradients(model, samples)
    # What rounding does to a log-probability counts as often as its ratio exp(own - rollout's).
    ratio = math.exp(-min(min(s.logprobs) for s in samples))
    assert loss == pytest.approx(want_loss, abs=1e-5 * ratio)
    assert_same(grads, want_grads, atol=1e-5 * ratio)


@settings(max_examples=20, deadline=None)
@given(samples=ragged_groups())
def test_any_split_into_micro_batches_gives_the_same_step(samples: list[TrainingSample]) -> None:
    model = tiny_model()
    one, grads_one, metrics_one = packed_gradients(model, samples, 10_000, 256)
    many, grads_many, metrics_many = packed_gradients(model, samples, 1, 256)
    assert one == pytest.approx(many, abs=1e-5)
    assert_same(grads_one, grads_many)
    assert metrics_one == pytest.approx(metrics_many, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(samples=ragged_groups(), max_tokens=st.integers(1, 60))
def test_packing_keeps_every_trained_token_once(
    samples: list[TrainingSample], max_tokens: int
) -> None:
    batches = pack(samples, max_tokens=max_tokens)
    assert sum(batch.num_trained for batch in batches) == num_trained_tokens(samples)
    found: dict[int, list[int]] = {}
    for batch in batches:
        assert batch.num_tokens <= max(max_tokens, max(len(s.token_ids) for s in samples))
        for index in set(batch.samples.tolist()):
            found[index] = batch.targets[batch.samples == index].tolist()
    for index, s in enumerate(samples):
        trained = [t for t, m in zip(s.token_ids, s.loss_mask, strict=True) if m]
        assert found[index] == trained


def test_worked_example_of_the_docstring() -> None:
    batch: MicroBatch
    (batch,) = pack([sample([7, 8], [1]), sample([7, 8], [2, 3])], max_tokens=100)
    assert batch.token_ids.tolist() == [[7, 8, 1, 2, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2, 3]]
    assert batch.predictors.tolist() == [1, 1, 3]
    assert batch.targets.tolist() == [1, 2, 3]


def test_a_group_of_eight_shares_its_prompt() -> None:
    prompt = list(range(50))
    samples = [sample(prompt, [index, index, 60]) for index in range(8)]
    (batch,) = pack(samples, max_tokens=100)
    assert batch.num_tokens == 50 + 8 * 3


def test_first_token_cannot_be_trained() -> None:
    bad = TrainingSample(
        token_ids=(1, 2), loss_mask=(1, 1), logprobs=(0, 0), advantages=(1, 1), policy_version=0
    )
    with pytest.raises(UserError, match="nothing predicts"):
        pack([bad], max_tokens=10)


def test_micro_batch_budget_must_be_positive() -> None:
    with pytest.raises(UserError, match="micro_batch_tokens=0"):
        pack([sample([1], [2])], max_tokens=0)


def test_attention_that_is_computed_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [sample(list(range(20)), [1 + index, 2, 3]) for index in range(3)]
    kept = packed_gradients(tiny_model(), samples, 1000, 8)
    monkeypatch.setattr("selfplay.modeling.attention.KEPT_KEYS", 12)
    again = packed_gradients(tiny_model(), samples, 1000, 8)
    assert kept[0] == again[0]
    assert all(torch.equal(grad, again[1][name]) for name, grad in kept[1].items())
