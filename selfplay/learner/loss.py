"""Token-level GRPO on log-probabilities of two policies: the trainer's and the rollout engine's.

Departures from textbook GRPO (arXiv 2402.03300), with sources:

1. No "old policy" pass: ratio = exp(trainer - rollout log-probability). One ratio corrects both for
   weights that moved since sampling and for the engine's other arithmetic (prime-rl; verl's
   bypass mode). No further importance weight is multiplied on top: that would count it twice.
2. Asymmetric clip, 1 - 0.2 .. 1 + 0.28 (clip-higher, DAPO, arXiv 2503.14476).
3. Where the clip leaves the ratio unbounded (negative advantage, ratio far above 1), it is
   truncated at `importance_cap`: value min(ratio, cap), gradient as of REINFORCE with that
   weight (truncated importance sampling, IMPALA, arXiv 1802.01561; the value is that of dual
   clip, arXiv 1912.09729).
4. One denominator, the trained tokens of the whole step (token-level loss, DAPO; Dr. GRPO,
   arXiv 2503.20783), known before the first backward pass: any split into micro-batches gives the
   same gradient.
5. No KL term (DAPO). Optional entropy bonus.
6. Tokens whose rollout log-probability is not finite, or so low that they are noise of the sampler
   ("gibberish"), leave loss and denominator and are counted. A trainer log-probability that is
   not finite makes the token's loss zero and is counted; the trainer then refuses the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from selfplay.learner.packing import MicroBatch

_CHUNK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Parameters of the loss; see the module's head."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    max_log_ratio: float = 10.0
    importance_cap: float = 4.0
    gibberish_logprob: float = -14.0
    entropy_coefficient: float = 0.0


@dataclass(slots=True)
class LossStats:
    """Sums over trained tokens, added up over micro-batches; `means` makes the step's metrics."""

    sums: dict[str, float] = field(default_factory=dict)
    max_abs_log_ratio: float = 0.0

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Mean over kept tokens; `ess` is the effective share of tokens under the ratios."""
        num = max(self.sums.get("tokens", 0.0), 1.0)
        result = {
            name: self.sums.get(name, 0.0) / num
            for name in ("loss", "mismatch_kl", "ratio", "clip_fraction", "entropy")
        }
        square = self.sums.get("ratio_square", 0.0)
        result["ess"] = self.sums.get("ratio", 0.0) ** 2 / (num * square) if square else 0.0
        result["max_abs_log_ratio"] = self.max_abs_log_ratio
        for name in ("tokens", "dropped_nonfinite", "dropped_gibberish", "nonfinite_trainer"):
            result[f"num_{name}"] = self.sums.get(name, 0.0)
        return result


def kept_tokens(rollout_logprobs: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Which trained tokens take part, bool [N]; a function of the rollout alone."""
    return torch.isfinite(rollout_logprobs) & (rollout_logprobs >= config.gibberish_logprob)


def denominator(batches: Iterable[MicroBatch], config: LossConfig) -> int:
    """Trained tokens of the whole step that take part."""
    return sum(int(kept_tokens(b.rollout_logprobs, config).sum()) for b in batches)


def policy_loss(
    logprobs: torch.Tensor,
    entropy: torch.Tensor,
    batch: MicroBatch,
    config: LossConfig,
    num_total: int,
    stats: LossStats,
) -> torch.Tensor:
    """The share of one micro-batch in the step's loss; logprobs and entropy are fp32 [N].

    Worked example: advantage 1, ratio 1.5 -> min(1.5, 1.28) = 1.28, so the token's loss is -1.28
    and its gradient 0; advantage -1, ratio 9 -> max(9 -> 4, 1.28) = 4, gradient 4 x grad log p.
    """
    finite = torch.isfinite(logprobs)
    kept = kept_tokens(batch.rollout_logprobs, config)
    used = kept & finite
    rollout = torch.where(used, batch.rollout_logprobs, 0.0)
    trainer = torch.where(used, logprobs, 0.0)
    log_ratio = (trainer - rollout).clamp(-config.max_log_ratio, config.max_log_ratio)
    ratio = log_ratio.exp()
    weight = ratio.detach().clamp(max=config.importance_cap)
    truncated = ratio.detach() > config.importance_cap
    carrier = torch.exp(trainer - trainer.detach())
    surrogate = torch.where(truncated, weight * carrier, ratio) * batch.advantages
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    clipped = ratio.clamp(low, high) * batch.advantages
    per_token = -torch.minimum(surrogate, clipped)
    safe_entropy = torch.where(used, entropy, 0.0)
    if config.entropy_coefficient:
        per_token = per_token - config.entropy_coefficient * safe_entropy
    per_token = torch.where(used, per_token, 0.0)
    with torch.no_grad():
        mask = used.float()
        infinite = ~torch.isfinite(batch.rollout_logprobs)
        stats.add(
            tokens=float(mask.sum()),
            loss=float(per_token.sum()),
            mismatch_kl=float(((ratio - log_ratio - 1.0) * mask).sum()),
            ratio=float((ratio * mask).sum()),
            ratio_square=float((ratio.square() * mask).sum()),
            clip_fraction=float(((clipped < surrogate) & used).sum()),
            entropy=float((safe_entropy * mask).sum()),
            dropped_nonfinite=float(infinite.sum()),
            dropped_gibberish=float((~kept & ~infinite).sum()),
            nonfinite_trainer=float((~finite & kept).sum()),
        )
        if bool(used.any()):
            largest = float((trainer - rollout).abs().max())
            stats.max_abs_log_ratio = max(stats.max_abs_log_ratio, largest)
    return per_token.sum() / max(num_total, 1)


def supervised_loss(logprobs: torch.Tensor, num_total: int) -> torch.Tensor:
    """The share of one micro-batch in the mean negative log-likelihood of all trained tokens."""
    return -logprobs.sum() / max(num_total, 1)


def token_scores(
    states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of `targets` [N] and entropy, both fp32 [N], from states [N, size].

    The head (weight [vocabulary, size]) runs in the model's dtype, the softmax in fp32 and in
    pieces: nothing of size N x vocabulary is kept in fp32.
    """
    logprobs, entropy = _TokenScores.apply(  # type: ignore[no-untyped-call]
        states, weight, targets, temperature
    )
    return logprobs, entropy


class _TokenScores(torch.autograd.Function):
    """With z = logits / temperature, p = softmax(z), H = entropy:

    d log p(t) / dz = onehot(t) - p;  dH / dz = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        temperature: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = functional.linear(states, weight)
        logprobs, entropies, normalisers = [], [], []
        for part, target in zip(
            torch.split(logits, _CHUNK), torch.split(targets, _CHUNK), strict=True
        ):
            scaled = part.float() / temperature
            normaliser = torch.logsumexp(scaled, dim=-1, keepdim=True)
            logprobs.append((scaled.gather(1, target.unsqueeze(1)) - normaliser).squeeze(1))
            probs = torch.exp(scaled - normaliser)
            entropies.append(normaliser.squeeze(1) - torch.linalg.vecdot(probs, scaled))
            normalisers.append(normaliser)
        normaliser = _joined(normalisers, logits.new_empty(0, 1, dtype=torch.float32))
        empty = logits.new_empty(0, dtype=torch.float32)
        entropy = _joined(entropies, empty)
        ctx.save_for_backward(states, weight, targets, logits, normaliser, entropy)
        ctx.temperature = temperature
        return _joined(logprobs, empty), entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logprob: torch.Tensor, grad_entropy: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        states, weight, targets, logits, normaliser, entropy = ctx.saved_tensors
        with_entropy = bool(grad_entropy.any())
        grads = []
        for start in range(0, len(targets), _CHUNK):
            part = slice(start, start + _CHUNK)
            log_p = logits[part].float() / ctx.temperature - normaliser[part]
            probs = torch.exp(log_p)
            factor = -grad_logprob[part].unsqueeze(1)
            if with_entropy:
                slope = grad_entropy[part].unsqueeze(1)
                grad = probs * (factor - slope * (log_p + entropy[part].unsqueeze(1)))
            else:
                grad = probs.mul_(factor)
            grad.scatter_add_(1, targets[part].unsqueeze(1), -factor)
            grads.append(grad.div_(ctx.temperature).to(logits.dtype))
        grad_logits = _joined(grads, logits.new_empty(0, logits.shape[1]))
        grad_states = grad_logits @ weight if ctx.needs_input_grad[0] else None
        grad_weight = grad_logits.t() @ states if ctx.needs_input_grad[1] else None
        return grad_states, grad_weight, None, None


def _joined(parts: Sequence[torch.Tensor], empty: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(parts)) if parts else empty
