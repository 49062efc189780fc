"""How far an engine's log-probabilities are from the trainer's on the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from selfplay.learner.packing import pack
from selfplay.learner.scoring import row_scores
from selfplay.modeling.devices import device_of
from selfplay.modeling.fit import row_limit, use_plans
from selfplay.types import TrainingSample, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """Over all sampled tokens: `kl` is the mean of r - log r - 1 with r = p_trainer / p_engine,
    an unbiased estimate of KL(engine, trainer); the others are of |log r|, in nats."""

    kl: float
    mean_abs: float
    max_abs: float
    num_tokens: int


@torch.no_grad()
def measure_mismatch(model: Any, trajectories: Sequence[Trajectory]) -> Mismatch:
    """Score the sampled tokens by the trainer's forward pass (packed, shared prefixes once)."""
    use_plans(model)
    samples = [
        TrainingSample(
            token_ids=t.token_ids,
            loss_mask=t.loss_mask,
            logprobs=t.logprobs,
            advantages=(0.0,) * len(t.token_ids),
            policy_version=t.policy_version,
            temperature=t.temperature,
        )
        for t in trajectories
    ]
    ratios = []
    for batch in pack(samples, max_tokens=row_limit(model, 2048)):
        batch = batch.to(device_of(model))
        logprobs, _ = row_scores(model, batch)
        ratios.append(logprobs - batch.rollout_logprobs)
    log_ratio = torch.cat(ratios).double()
    return Mismatch(
        kl=float((log_ratio.exp() - log_ratio - 1.0).mean()),
        mean_abs=float(log_ratio.abs().mean()),
        max_abs=float(log_ratio.abs().max()),
        num_tokens=len(log_ratio),
    )
