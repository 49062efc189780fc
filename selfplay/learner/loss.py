"""Token-level GRPO on log-probabilities of two policies: the trainer's and the rollout engine's.

Departures from textbook GRPO (arXiv 2402.03300), with sources:

1. No "old policy" pass: ratio = exp(trainer - rollout log-probability). One ratio corrects both for
   weights that moved since sampling and for the engine's other arithmetic (prime-rl; verl's
   bypass mode). No further importance weight is multiplied on top: that would count it twice.
2. Asymmetric clip, 1 - 0.2 .. 1 + 0.28 (clip-higher, DAPO, arXiv 2503.14476).
3. Where the clip leaves the ratio unbounded (negative advantage, ratio far above 1), it is
   truncated at `importance_cap`: value min(ratio, cap), gradient as of REINFORCE with that
   weight (truncated importance sampling, IMPALA, arXiv 1802.01561; the value is that of dual
   clip, arXiv 1912.09729). With `importance_mode` mask instead, a token whose ratio lies outside
   1 / cap .. cap is taken out of the loss (IcePop, arXiv 2510.18855); it stays in the denominator,
   which is known before any ratio is.
4. One denominator, the trained tokens of the whole step (token-level loss, DAPO; Dr. GRPO,
   arXiv 2503.20783), known before the first backward pass: any split into micro-batches gives the
   same gradient.
5. No KL term (DAPO). Optional entropy bonus.
6. No division by the group's deviation (arXiv 2503.20783; `advantages.py`), groups without
   variance skipped (DAPO).
7. Tokens whose rollout log-probability is not finite, or so low that they are noise of the sampler
   ("gibberish"), leave loss and denominator and are counted. A trainer log-probability that is
   not finite makes the token's loss zero and is counted; the trainer then refuses the step.
   Loops ("repetition") are gone before (`degenerate.py`).
8. Optional next-token loss on what the environment told (`observation_weight`, off by default),
   with a denominator of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from selfplay.config import LossConfig
from selfplay.learner.packing import MicroBatch

KEPT_LOGITS = 2048
CHUNK = 256
"""On a CPU: logits that are kept for the backward pass, and are computed at once."""
GPU_KEPT_LOGITS = 2**30
GPU_CHUNK = 2**27
"""The same on a GPU, in numbers, not in tokens: many tokens at once are what it is fast at."""
_MEANS = ("loss", "mismatch_kl", "ratio", "clip_fraction", "capped_fraction", "entropy")
_COUNTS = (
    "tokens",
    "dropped_nonfinite",
    "dropped_gibberish",
    "dropped_importance",
    "nonfinite_trainer",
)


@dataclass(slots=True)
class LossStats:
    """Sums over trained tokens, added up over micro-batches; `means` makes the step's metrics."""

    sums: dict[str, float] = field(default_factory=dict)
    max_abs_log_ratio: float = 0.0

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def add_tensors(self, *, largest_log_ratio: torch.Tensor, **sums: torch.Tensor) -> None:
        """Scalars, read off their device at one go."""
        read = torch.stack([value.double() for value in (largest_log_ratio, *sums.values())])
        largest, *values = read.tolist()
        self.max_abs_log_ratio = max(self.max_abs_log_ratio, largest)
        self.add(**dict(zip(sums, values, strict=True)))

    def means(self) -> dict[str, float]:
        """Mean over kept tokens; `ess` is the effective share of tokens under the ratios."""
        num = max(self.sums.get("tokens", 0.0), 1.0)
        result = {name: self.sums.get(name, 0.0) / num for name in _MEANS}
        square = self.sums.get("ratio_square", 0.0)
        result["ess"] = self.sums.get("ratio", 0.0) ** 2 / (num * square) if square else 0.0
        result["max_abs_log_ratio"] = self.max_abs_log_ratio
        for name in _COUNTS:
            result[f"num_{name}"] = self.sums.get(name, 0.0)
        if "observation_tokens" in self.sums:
            observed = self.sums["observation_tokens"]
            result["num_observation_tokens"] = observed
            result["observation_loss"] = self.sums["observation_loss"] / max(observed, 1.0)
        return result


def kept_tokens(rollout_logprobs: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Which trained tokens take part, bool [N]; a function of the rollout alone."""
    return torch.isfinite(rollout_logprobs) & (rollout_logprobs >= config.gibberish_logprob)


def denominator(batches: Iterable[MicroBatch], config: LossConfig) -> int:
    """Trained tokens of the whole step that take part."""
    return sum(int(kept_tokens(b.rollout_logprobs, config).sum()) for b in batches)


def step_loss(
    logprobs: torch.Tensor,
    entropy: torch.Tensor,
    batch: MicroBatch,
    config: LossConfig,
    num_total: int,
    num_observed: int,
    stats: LossStats,
) -> torch.Tensor:
    """The share of one micro-batch in all of the step's loss; logprobs and entropy are fp32
    [N + M]. `num_total`, `num_observed`: trained and observed tokens of the whole step."""
    num = batch.num_trained
    if not batch.num_observed:
        return policy_loss(logprobs, entropy, batch, config, num_total, stats)
    told = observation_loss(logprobs[num:], num_observed, stats)
    acted = policy_loss(logprobs[:num], entropy[:num], batch, config, num_total, stats)
    return acted + config.observation_weight * told


def observation_loss(logprobs: torch.Tensor, num_observed: int, stats: LossStats) -> torch.Tensor:
    """The share of one micro-batch in the mean of -log p over the step's observed tokens, before
    its weight; logprobs are fp32 [M], at temperature 1.

    Worked example: a step has two such tokens, of probabilities 1/2 and 1/4. The mean is
    (0.693 + 1.386) / 2 = 1.040; with weight 0.1 the step's loss grows by 0.104, and its gradient
    in each log-probability by -0.1 / 2 = -0.05, in one micro-batch or in two. A log-probability
    that is not finite counts as in `policy_loss`.
    """
    finite = torch.isfinite(logprobs)
    per_token = -torch.where(finite, logprobs, 0.0)
    with torch.no_grad():
        told = torch.stack([per_token.sum().double(), (~finite).sum().double()])
    value, lost = told.tolist()
    stats.add(
        observation_loss=value, observation_tokens=len(logprobs) - lost, nonfinite_trainer=lost
    )
    return per_token.sum() / max(num_observed, 1)


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
    masking = config.importance_mode == "mask"
    capped = ratio.detach() > config.importance_cap
    if masking:
        capped = capped | (ratio.detach() * config.importance_cap < 1.0)
    trained = used & ~capped if masking else used
    carrier = torch.exp(trainer - trainer.detach())
    surrogate = torch.where(capped, weight * carrier, ratio) * batch.advantages
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    clipped = ratio.clamp(low, high) * batch.advantages
    per_token = -torch.minimum(surrogate, clipped)
    safe_entropy = torch.where(used, entropy, 0.0)
    if config.entropy_coefficient:
        per_token = per_token - config.entropy_coefficient * safe_entropy
    per_token = torch.where(trained, per_token, 0.0)
    with torch.no_grad():
        mask = used.float()
        infinite = ~torch.isfinite(batch.rollout_logprobs)
        stats.add_tensors(
            largest_log_ratio=(trainer - rollout).abs().max() if len(used) else mask.sum(),
            tokens=mask.sum(),
            loss=per_token.sum(),
            mismatch_kl=((ratio - log_ratio - 1.0) * mask).sum(),
            ratio=(ratio * mask).sum(),
            ratio_square=(ratio.square() * mask).sum(),
            clip_fraction=((clipped < surrogate) & trained).sum(),
            capped_fraction=(capped & used).sum(),
            entropy=(safe_entropy * mask).sum(),
            dropped_nonfinite=infinite.sum(),
            dropped_gibberish=(~kept & ~infinite).sum(),
            dropped_importance=(used & ~trained).sum(),
            nonfinite_trainer=(~finite & kept).sum(),
        )
    return per_token.sum() / max(num_total, 1)


def supervised_loss(logprobs: torch.Tensor, num_total: int) -> torch.Tensor:
    """The share of one micro-batch in the mean negative log-likelihood of all trained tokens."""
    return -logprobs.sum() / max(num_total, 1)


def token_scores(
    states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperatures: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of `targets` [N] and entropy, both fp32 [N], from states [N, size], each of
    the distribution at its temperature [N].

    The head (weight [vocabulary, size]) runs in the model's dtype, the softmax in fp32, both in
    pieces (`head_pieces`): nothing of size N x vocabulary is kept in fp32, and of long rows nothing
    at all: the backward pass computes the logits again.
    """
    logprobs, entropy = _TokenScores.apply(  # type: ignore[no-untyped-call]
        states, weight, targets, temperatures.unsqueeze(1)
    )
    return logprobs, entropy


def head_scores(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    states: torch.Tensor,
    targets: torch.Tensor,
    temperatures: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`token_scores` of a head that is more than a product: `logits_of` maps states [n, size] to
    logits [n, vocabulary]. In pieces that the backward pass computes again."""

    def piece(
        states: torch.Tensor, targets: torch.Tensor, temperatures: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = logits_of(states).float() / temperatures.unsqueeze(1)
        logprobs = torch.log_softmax(scaled, dim=-1)
        chosen = logprobs.gather(1, targets.unsqueeze(1)).squeeze(1)
        return chosen, -torch.linalg.vecdot(logprobs.exp(), logprobs)

    pieces = (slice(start, start + CHUNK) for start in range(0, len(targets), CHUNK))
    parts = [
        checkpoint(piece, states[at], targets[at], temperatures[at], use_reentrant=False)
        for at in pieces
    ]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def head_pieces(vocabulary: int, *, on_gpu: bool) -> tuple[int, int]:
    """Tokens whose logits are computed at once, and up to how many of a row they are kept."""
    if not on_gpu:
        return CHUNK, KEPT_LOGITS
    return max(CHUNK, GPU_CHUNK // vocabulary), GPU_KEPT_LOGITS // vocabulary


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
        temperatures: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.chunk, kept_tokens = head_pieces(len(weight), on_gpu=states.device.type != "cpu")
        keep = len(targets) <= kept_tokens
        logprobs, entropies, normalisers, kept = [], [], [], []
        for start in range(0, len(targets), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            logits = functional.linear(states[rows], weight)
            scaled = logits.float() / temperatures[rows]
            normaliser = torch.logsumexp(scaled, dim=-1, keepdim=True)
            chosen = scaled.gather(1, targets[rows].unsqueeze(1))
            logprobs.append((chosen - normaliser).squeeze(1))
            probs = torch.exp(scaled - normaliser)
            entropies.append(normaliser.squeeze(1) - torch.linalg.vecdot(probs, scaled))
            normalisers.append(normaliser)
            if keep:
                kept.append(logits)
        empty = states.new_empty(0, dtype=torch.float32)
        entropy = _joined(entropies, empty)
        normaliser = _joined(normalisers, empty.view(0, 1))
        ctx.save_for_backward(states, weight, targets, temperatures, normaliser, entropy, *kept)
        return _joined(logprobs, empty), entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logprob: torch.Tensor, grad_entropy: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        states, weight, targets, temperatures, normaliser, entropy, *kept = ctx.saved_tensors
        with_entropy = bool(grad_entropy.any())
        grad_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        grad_weight: torch.Tensor | None = None
        for number, start in enumerate(range(0, len(targets), ctx.chunk)):
            rows = slice(start, start + ctx.chunk)
            logits = kept[number] if kept else functional.linear(states[rows], weight)
            log_p = logits.float().div_(temperatures[rows]).sub_(normaliser[rows])
            probs = torch.exp(log_p)
            factor = -grad_logprob[rows].unsqueeze(1)
            if with_entropy:
                slope = grad_entropy[rows].unsqueeze(1)
                grad = probs * (factor - slope * (log_p + entropy[rows].unsqueeze(1)))
            else:
                grad = probs.mul_(factor)
            grad.scatter_add_(1, targets[rows].unsqueeze(1), -factor)
            grad_logits = grad.div_(temperatures[rows]).to(states.dtype)
            if grad_states is not None:
                grad_states[rows] = grad_logits @ weight
            if ctx.needs_input_grad[1]:
                part = grad_logits.t() @ states[rows]
                wide = torch.promote_types(part.dtype, torch.float32)
                grad_weight = part if grad_weight is None else grad_weight.to(wide).add_(part)
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        elif ctx.needs_input_grad[1]:
            grad_weight = torch.zeros_like(weight)
        return grad_states, grad_weight, None, None


def _joined(parts: Sequence[torch.Tensor], empty: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(parts)) if parts else empty
