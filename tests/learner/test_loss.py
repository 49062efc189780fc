"""The loss by hand, and the fused head against autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from selfplay.config import LossConfig
from selfplay.errors import UserError
from selfplay.learner.loss import LossStats, denominator, policy_loss, supervised_loss, token_scores
from selfplay.learner.packing import MicroBatch


def batch_of(rollout: list[float], advantages: list[float]) -> MicroBatch:
    num = len(rollout)
    return MicroBatch(
        token_ids=torch.zeros(1, num, dtype=torch.long),
        position_ids=torch.zeros(1, num, dtype=torch.long),
        stops=(),
        blocks=(),
        predictors=torch.zeros(num, dtype=torch.long),
        targets=torch.zeros(num, dtype=torch.long),
        rollout_logprobs=torch.tensor(rollout),
        advantages=torch.tensor(advantages),
        temperatures=torch.ones(num),
        samples=torch.zeros(num, dtype=torch.long),
    )


def one_token(ratio: float, advantage: float, **config: Any) -> tuple[float, float, LossStats]:
    """Loss and d loss / d logprob of a single token."""
    logprob = torch.tensor([-1.0], requires_grad=True)
    stats = LossStats()
    batch = batch_of([-1.0 - math.log(ratio)], [advantage])
    loss = policy_loss(logprob, torch.tensor([0.7]), batch, LossConfig(**config), 1, stats)
    (grad,) = torch.autograd.grad(loss, logprob)
    return float(loss.detach()), float(grad), stats


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "grad", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.1, 1.0, -1.1, -1.1, 0),
        (1.5, 1.0, -1.28, 0.0, 1),  # clip-higher
        (0.5, 1.0, -0.5, -0.5, 0),  # pessimistic side is not clipped
        (0.5, -1.0, 0.8, 0.0, 1),
        (1.5, -1.0, 1.5, 1.5, 0),
        (9.0, -1.0, 4.0, 4.0, 0),  # truncated, still pushed down
    ],
)
def test_single_token(
    ratio: float, advantage: float, loss: float, grad: float, clipped: int
) -> None:
    got_loss, got_grad, stats = one_token(ratio, advantage)
    assert got_loss == pytest.approx(loss, rel=1e-5)
    assert got_grad == pytest.approx(grad, rel=1e-5)
    assert stats.sums["clip_fraction"] == clipped


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "grad", "dropped"),
    [
        (3.9, -1.0, 3.9, 3.9, 0),
        (4.1, -1.0, 0.0, 0.0, 1),  # above the cap
        (4.1, 1.0, 0.0, 0.0, 1),  # the clip would have left the value 1.28
        (0.26, 1.0, -0.26, -0.26, 0),
        (0.24, 1.0, 0.0, 0.0, 1),  # below 1 / cap
    ],
)
def test_far_tokens_can_be_masked_instead(
    ratio: float, advantage: float, loss: float, grad: float, dropped: int
) -> None:
    got_loss, got_grad, stats = one_token(ratio, advantage, importance_mode="mask")
    assert got_loss == pytest.approx(loss, rel=1e-5)
    assert got_grad == pytest.approx(grad, rel=1e-5)
    means = stats.means()
    assert means["num_dropped_importance"] == means["capped_fraction"] == dropped
    assert means["num_tokens"] == 1  # the denominator was known before


def test_wrong_options_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match="truncate or mask"):
        LossConfig(importance_mode="drop")
    with pytest.raises(UserError, match="importance_cap"):
        LossConfig(importance_cap=0.5)
    with pytest.raises(UserError, match="clip_low"):
        LossConfig(clip_low=-0.1)


def test_log_ratio_is_clamped() -> None:
    loss, _, stats = one_token(math.exp(9), -1.0, importance_cap=math.inf, max_log_ratio=2.0)
    assert loss == pytest.approx(math.exp(2.0), rel=1e-5)
    assert stats.max_abs_log_ratio == pytest.approx(9, rel=1e-5)


def test_entropy_bonus_lowers_the_loss() -> None:
    loss, _, stats = one_token(1.0, 1.0, entropy_coefficient=0.5)
    assert loss == pytest.approx(-1.0 - 0.5 * 0.7)
    assert stats.means()["entropy"] == pytest.approx(0.7)


def test_bad_tokens_leave_loss_and_denominator() -> None:
    rollout = [-1.0, float("nan"), float("-inf"), -20.0, -1.0]
    batch = batch_of(rollout, [1.0] * 5)
    config = LossConfig()
    assert denominator([batch], config) == 2
    logprobs = torch.tensor([-1.0, -1.0, -1.0, -1.0, float("nan")], requires_grad=True)
    stats = LossStats()
    loss = policy_loss(logprobs, torch.zeros(5), batch, config, 2, stats)
    (grad,) = torch.autograd.grad(loss, logprobs)
    assert float(loss.detach()) == pytest.approx(-0.5)
    assert grad.tolist() == pytest.approx([-0.5, 0, 0, 0, 0])
    means = stats.means()
    assert means["num_dropped_nonfinite"] == 2
    assert means["num_dropped_gibberish"] == 1
    assert means["num_nonfinite_trainer"] == 1
    assert means["num_tokens"] == 1


def test_metrics_by_hand() -> None:
    stats = LossStats()
    batch = batch_of([-1.0, -1.0 - math.log(2.0)], [1.0, -1.0])
    policy_loss(torch.tensor([-1.0, -1.0]), torch.zeros(2), batch, LossConfig(), 2, stats)
    means = stats.means()
    assert means["ratio"] == pytest.approx(1.5)
    assert means["mismatch_kl"] == pytest.approx((1.0 - math.log(2.0)) / 2)
    assert means["ess"] == pytest.approx(9 / (2 * 5))
    assert means["max_abs_log_ratio"] == pytest.approx(math.log(2.0))
    assert means["loss"] == pytest.approx((-1.0 + 2.0) / 2)


def test_supervised_loss_is_the_mean() -> None:
    assert float(supervised_loss(torch.tensor([-1.0, -3.0]), 4)) == 1.0


@pytest.mark.parametrize("num", [0, 5, 1100, 2100])
def test_fused_head_equals_autograd(num: int) -> None:
    torch.manual_seed(0)
    states = torch.randn(num, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(33, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 33, (num,))
    mix = torch.randn(2, num)
    temperatures = 0.5 + torch.rand(num)
    logprobs, entropy = token_scores(states, weight, targets, temperatures)
    grads = torch.autograd.grad((mix[0] * logprobs + mix[1] * entropy).sum(), (states, weight))
    log_p = torch.log_softmax(states @ weight.t() / temperatures.unsqueeze(1), dim=-1)
    want = log_p.gather(1, targets.unsqueeze(1)).squeeze(1)
    want_entropy = -(log_p.exp() * log_p).sum(-1)
    wanted = torch.autograd.grad((mix[0] * want + mix[1] * want_entropy).sum(), (states, weight))
    torch.testing.assert_close(logprobs.double(), want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entropy.double(), want_entropy, rtol=1e-4, atol=1e-4)
    for got, expected in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
