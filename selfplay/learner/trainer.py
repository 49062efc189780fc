"""The optimizer step: micro-batches in, new live weights out.

AdamW works on fp32 master weights; the model that runs keeps its own dtype (bf16 on CPU: the only
fast path there). With `lora_rank > 0` the masters are the adapter's factors (see `lora.py`), with 0
they are all weights. Gradients of all micro-batches are summed in fp32.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from selfplay.errors import UserError
from selfplay.learner.lora import add_lora, lora_layers
from selfplay.learner.loss import (
    LossConfig,
    LossStats,
    denominator,
    policy_loss,
    token_scores,
)
from selfplay.learner.packing import MicroBatch, Sample, pack
from selfplay.policy.attention import TreePlan, hidden_states, use_plans

log = logging.getLogger(__name__)

MicroLoss = Callable[[torch.Tensor, torch.Tensor, MicroBatch], torch.Tensor]
"""(log-probabilities [N], entropy [N], micro-batch) -> its share of the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """`lora_rank` 0 trains all weights; `lora_alpha` None means twice the rank.

    `prompt_gradient=False` treats the prompts' keys and values as constants: a biased gradient
    (cosine with the exact one 0.64 to 0.82 on SmolLM2-135M, where two batches of 8 exact ones
    have 0.25 to 0.5) for a forward pass alone instead of forward and backward over the prompts.
    """

    lora_rank: int = 16
    lora_alpha: float | None = None
    learning_rate: float = 1e-4
    warmup_steps: int = 2
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    micro_batch_tokens: int = 2048
    prompt_gradient: bool = True
    share_prefixes: bool = True
    loss: LossConfig = field(default_factory=LossConfig)


class Trainer:
    """Owns the model's training state. The model's live weights change in place."""

    def __init__(self, model: Any, config: TrainerConfig) -> None:
        if config.lora_rank < 0:
            raise UserError(f"learner.lora_rank={config.lora_rank}: must be 0 (full) or positive")
        if config.lora_rank and not any(True for _ in lora_layers(model)):
            alpha = config.lora_alpha if config.lora_alpha is not None else 2.0 * config.lora_rank
            add_lora(model, config.lora_rank, alpha)
        use_plans(model)
        self.model = model
        self.config = config
        self.num_steps = 0
        self._live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {
            name: param if param.dtype == torch.float32 else param.detach().float()
            for name, param in self._live.items()
        }
        self._sum_gradients()
        self.optimizer = torch.optim.AdamW(
            self.masters.values(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def _sum_gradients(self) -> None:
        """Add each finished gradient to its master in fp32, so that bf16 never accumulates."""
        for name, param in self._live.items():
            master = self.masters[name]
            if master is not param:
                param.register_post_accumulate_grad_hook(_make_hook(master))

    @property
    def learning_rate(self) -> float:
        """Of the next step: linear warm-up, then constant."""
        warmup = self.config.warmup_steps
        return self.config.learning_rate * min(1.0, (self.num_steps + 1) / max(warmup, 1))

    def step(self, samples: Sequence[Sample], temperature: float = 1.0) -> dict[str, float]:
        """One optimizer step of GRPO on `samples`; metrics of the step.

        `skipped` is 1.0, and nothing moved, when there is nothing to train on or the gradient is
        not finite.
        """
        begin = time.perf_counter()
        batches = self.pack(samples)
        num_total = denominator(batches, self.config.loss)
        stats = LossStats()
        if num_total == 0:
            return {"skipped": 1.0, **stats.means()}

        def loss(logprobs: torch.Tensor, entropy: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
            return policy_loss(logprobs, entropy, batch, self.config.loss, num_total, stats)

        self.accumulate(batches, loss, temperature)
        learning_rate = self.learning_rate
        grad_norm = self.apply(learning_rate)
        seconds = time.perf_counter() - begin
        num_packed = sum(batch.num_tokens for batch in batches)
        return {
            **stats.means(),
            "skipped": float(not math.isfinite(grad_norm)),
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "num_micro_batches": float(len(batches)),
            "num_packed_tokens": float(num_packed),
            "num_sample_tokens": float(sum(len(sample.token_ids) for sample in samples)),
            "train_s": seconds,
            "train_tokens_per_s": num_packed / seconds,
        }

    def pack(self, samples: Sequence[Sample]) -> list[MicroBatch]:
        """Micro-batches as configured."""
        return pack(
            samples,
            max_tokens=self.config.micro_batch_tokens,
            prompt_gradient=self.config.prompt_gradient,
            share_prefixes=self.config.share_prefixes,
        )

    def accumulate(
        self, batches: Sequence[MicroBatch], loss: MicroLoss, temperature: float = 1.0
    ) -> float:
        """Forward and backward over micro-batches; gradients add up, nothing moves. The loss."""
        self.model.train()
        total = 0.0
        for batch in batches:
            if batch.num_trained == 0:
                continue
            logprobs, entropy = self.score(batch, temperature)
            value = loss(logprobs, entropy, batch)
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
        return total

    def score(
        self, batch: MicroBatch, temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of each trained token, fp32 [N]."""
        states = row_states(self.model, batch)
        head = self.model.get_output_embeddings().weight
        predictors = batch.predictors - batch.num_context
        return token_scores(states[predictors], head, batch.targets, temperature)

    def apply(self, learning_rate: float) -> float:
        """Clip, step and refresh the live weights; the gradient norm before clipping.

        A norm that is not finite drops the gradient and moves nothing.
        """
        masters = list(self.masters.values())
        norm = float(nn.utils.clip_grad_norm_(masters, self.config.max_grad_norm))
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self.num_steps += 1
            self.refresh()
        else:
            log.warning("gradient norm is %s: the step is skipped", norm)
        for master in masters:
            master.grad = None
        return norm

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the live weights from the masters: rounded copies, or the merged adapter."""
        for name, param in self._live.items():
            if self.masters[name] is not param:
                param.copy_(self.masters[name])
        for _, layer in lora_layers(self.model):
            layer.merge()

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        return {
            "masters": {name: master.detach() for name, master in self.masters.items()},
            "optimizer": self.optimizer.state_dict(),
            "num_steps": self.num_steps,
            "rng": torch.get_rng_state(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict()`; the shapes must be those of this trainer."""
        stored = state["masters"]
        wrong = [
            n for n, m in self.masters.items() if n not in stored or stored[n].shape != m.shape
        ]
        if wrong or len(stored) != len(self.masters):
            raise UserError(
                f"the checkpoint does not fit the learner ({len(wrong)} weights differ, e.g. "
                f"{(wrong or ['none'])[0]}); resume with the same model and learner.lora_rank"
            )
        for name, master in self.masters.items():
            master.copy_(stored[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_steps = int(state["num_steps"])
        torch.set_rng_state(state["rng"])
        self.refresh()


def row_states(model: Any, batch: MicroBatch) -> torch.Tensor:
    """Last states of the row's tokens after its context, [tokens, size]."""
    num, context = batch.num_context, []
    if num:
        before = tuple(block for block in batch.blocks if block.end <= num)
        with torch.no_grad():
            plan = TreePlan(before, lambda _, key, value: context.append((key, value)))
            hidden_states(model, batch.token_ids[:, :num], batch.position_ids[:, :num], plan)
    after = tuple(block for block in batch.blocks if block.start >= num)
    plan = TreePlan(after, context=context)
    return hidden_states(model, batch.token_ids[:, num:], batch.position_ids[:, num:], plan)[0]


def _make_hook(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def add(param: torch.Tensor) -> None:
        assert param.grad is not None
        if master.grad is None:
            master.grad = param.grad.float()
        else:
            master.grad += param.grad
        param.grad = None

    return add
