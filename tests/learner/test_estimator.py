"""The gradient estimator is unbiased up to (G - 1) / G, shown on a policy that can be enumerated.

The policy is a softmax over four one-token answers, its parameters are the logits themselves.
For G answers drawn from b the estimator is sum_i ratio_i (r_i - mean r) grad log p(a_i) / G. In the
product with answer i's score, the mean counts r_i itself with weight 1 / G, which shrinks its part
by (G - 1) / G; the others' rewards are independent of it and drop out, because the mean score is 0:

    E[estimate] = (G - 1) / G  x  grad E[r]

for on-policy answers, and for answers of another policy as long as no ratio is clipped or capped.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from selfplay.config import LossConfig
from selfplay.learner.advantages import training_samples
from selfplay.learner.loss import LossStats, denominator, policy_loss, token_scores
from selfplay.learner.packing import pack
from selfplay.types import PeerGroup, Trajectory

REWARDS = (1.0, -1.0, 0.55, -0.8)
LOGITS = torch.tensor([0.3, -0.2, 0.8, 0.0], dtype=torch.float64)
OTHER = torch.tensor([0.1, 0.4, 0.2, -0.3], dtype=torch.float64)
UNCLIPPED = LossConfig(clip_low=math.inf, clip_high=math.inf, importance_cap=math.inf)
"""Low -inf, high +inf: nothing is clipped."""


def exact_gradient() -> torch.Tensor:
    """grad E[r] by autograd."""
    logits = LOGITS.clone().requires_grad_()
    expected = (torch.softmax(logits, 0) * torch.tensor(REWARDS, dtype=torch.float64)).sum()
    (grad,) = torch.autograd.grad(expected, logits)
    return grad


def estimate(answers: tuple[int, ...], behaviour: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Minus the gradient of the learner's loss on one group, by the code that trains."""
    logprobs = torch.log_softmax(behaviour, 0)
    group = PeerGroup(
        group_id="g",
        trajectories=tuple(
            Trajectory(
                token_ids=(9, answer),
                loss_mask=(0, 1),
                logprobs=(0.0, float(logprobs[answer])),
                policy_version=0,
            )
            for answer in answers
        ),
        rewards=tuple(REWARDS[answer] for answer in answers),
    )
    samples = training_samples([group]).samples
    if not samples:  # no variance: skipped, and its gradient is 0 anyway
        return torch.zeros(4, dtype=torch.float64)
    (batch,) = pack(samples, max_tokens=100)
    weight = LOGITS.clone().unsqueeze(1).requires_grad_()
    states = torch.ones(batch.num_trained, 1, dtype=torch.float64)
    scores, entropy = token_scores(states, weight, batch.targets, batch.temperatures)
    num_total = denominator([batch], config)
    loss = policy_loss(scores, entropy, batch, config, num_total, LossStats())
    (grad,) = torch.autograd.grad(loss, weight)
    return -grad.squeeze(1)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("behaviour", [LOGITS, OTHER], ids=["on-policy", "off-policy"])
def test_the_expectation_over_all_groups_is_the_gradient(
    size: int, behaviour: torch.Tensor
) -> None:
    probs = torch.softmax(behaviour, 0)
    total = torch.zeros(4, dtype=torch.float64)
    for answers in itertools.product(range(4), repeat=size):
        total += math.prod(float(probs[a]) for a in answers) * estimate(
            answers, behaviour, UNCLIPPED
        )
    want = exact_gradient() * (size - 1) / size
    torch.testing.assert_close(total, want, rtol=1e-5, atol=1e-6)


def test_the_mean_over_drawn_groups_is_the_gradient() -> None:
    """500 groups of 8 with the default configuration, on-policy: every component within four
    standard errors, and the whole mean closer than half its length."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.multinomial(torch.softmax(LOGITS, 0), 4000, True, generator=generator)
    groups = drawn.view(500, 8).tolist()
    found = torch.stack([estimate(tuple(group), LOGITS, LossConfig()) for group in groups])
    want = exact_gradient() * 7 / 8
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - want).abs() < 4 * error).all())
    assert float((found.mean(0) - want).norm() / want.norm()) < 0.5


def test_the_cap_biases_and_the_test_would_see_it() -> None:
    """Answers of a far policy with the cap in force: no longer the gradient."""
    far = torch.tensor([-2.5, 1.0, -2.5, 1.0], dtype=torch.float64)
    probs = torch.softmax(far, 0)
    for config, unbiased in ((UNCLIPPED, True), (LossConfig(), False)):
        total = torch.zeros(4, dtype=torch.float64)
        for answers in itertools.product(range(4), repeat=2):
            total += math.prod(float(probs[a]) for a in answers) * estimate(answers, far, config)
        off = float((total - exact_gradient() / 2).norm() / exact_gradient().norm())
        assert (off < 1e-4) == unbiased
