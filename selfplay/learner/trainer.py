"""The optimizer step: micro-batches in, new live weights out.

AdamW works on fp32 master weights; the model that runs keeps its own dtype (bf16 on CPU: the only
fast path there). With `lora_rank > 0` the masters are the adapter's factors (see `lora.py`), with 0
they are all weights. Gradients of all micro-batches are summed in fp32.

In a world of several ranks (`distributed.py`) every rank has a trainer and all call the same
methods in the same order. What is trained is sharded; rank 0 keeps the whole model beside it, which
is made current after each step: `Trainer.model` is what engines and exports read.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from selfplay.config import TrainerConfig
from selfplay.errors import UserError
from selfplay.learner.lora import add_lora, lora_layers
from selfplay.learner.loss import LossStats, denominator, step_loss
from selfplay.learner.measures.memory import default_row_tokens
from selfplay.learner.packing import MicroBatch, Sample, pack
from selfplay.learner.ranks.balance import divide
from selfplay.learner.ranks.distributed import ALONE, World, whole
from selfplay.learner.ranks.sharding import shard
from selfplay.learner.scoring import TokenScorer
from selfplay.modeling.allocator import return_freed_memory
from selfplay.modeling.compiled import compile_layers
from selfplay.modeling.devices import memory_boundary
from selfplay.modeling.fit import row_limit, use_plans
from selfplay.modeling.prefix_tree import BLOCK_TOKENS
from selfplay.modeling.row_attention import prepare_kernels
from selfplay.types import TrainingSample

log = logging.getLogger(__name__)

_BETAS = (0.9, 0.95)
"""Of AdamW."""

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each weight, beside its number of steps."""

_GPU_RNG = "rng_cuda"
"""In checkpoints written on a GPU, which any device can read."""

MicroLoss = Callable[[torch.Tensor, torch.Tensor, MicroBatch], torch.Tensor]
"""(log-probabilities [N], entropy [N], micro-batch) -> its share of the loss."""

_REMEDY = "lower learner.micro_batch_tokens, or set learner.activation_checkpointing=true"

_FILLER = TrainingSample(
    token_ids=(0, 0), loss_mask=(0, 1), logprobs=(0.0, 0.0), advantages=(0.0, 0.0), policy_version=0
)
"""What a rank computes, without effect, while others still have micro-batches."""


class Trainer:
    """Owns the model's training state. The model's live weights change in place.

    On ranks other than 0 of a larger world, `model` is this rank's part of the sharded model.
    """

    def __init__(self, model: Any, config: TrainerConfig, world: World = ALONE) -> None:
        if config.lora_rank and not any(True for _ in lora_layers(model)):
            add_lora(model, config.lora_rank, alpha=2.0 * config.lora_rank)
        prepare_kernels(model, use_plans(model).shapes)
        self.model = model
        self.config = config
        self.world = world
        self.num_steps = 0
        self._trained = copy.deepcopy(model) if world.is_sharded and world.is_first else model
        self._scorer = TokenScorer(self._trained)
        if config.compile:
            compile_layers(self._trained)
        if config.activation_checkpointing:
            checkpoint_activations(self._trained)
        if world.is_sharded:
            shard(self._scorer, world)
        self._live = {n: p for n, p in self._trained.named_parameters() if p.requires_grad}
        self.masters = {
            name: param if param.dtype == torch.float32 else param.detach().float()
            for name, param in self._live.items()
        }
        tokens = config.micro_batch_tokens or default_row_tokens(self.device)
        self.row_tokens = row_limit(model, tokens)
        self._start = (
            {name: master.detach().clone() for name, master in self.masters.items()}
            if config.anchor
            else {}
        )
        self._sum_gradients()
        self.optimizer = torch.optim.AdamW(
            self.masters.values(),
            lr=config.learning_rate,
            betas=_BETAS,
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
    def device(self) -> torch.device:
        """Where this rank's weights lie."""
        device: torch.device = next(iter(self.masters.values())).device
        return device

    @property
    def learning_rate(self) -> float:
        """Of the next step: linear warm-up, then constant."""
        warmup = self.config.warmup_steps
        return self.config.learning_rate * min(1.0, (self.num_steps + 1) / max(warmup, 1))

    def step(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One optimizer step of GRPO on `samples`; metrics of the step.

        `skipped` is 1.0, and nothing moved, when there is nothing to train on or the gradient is
        not finite. In a larger world, `samples` are those of rank 0, which divides them.
        """
        begin = time.perf_counter()
        return_freed_memory()
        world = self.world
        samples = world.scatter(divide(samples, world.size)) if world.size > 1 else samples
        batches = self.pack(samples)
        own = (denominator(batches, self.config), sum(b.num_observed for b in batches))
        num_total, num_observed = map(sum, zip(*world.gather(own), strict=True))
        stats = LossStats()
        if self.config.observation_weight:
            stats.add(observation_tokens=0.0, observation_loss=0.0)
        if num_total == 0:
            return {"skipped": 1.0, **stats.means()}

        def loss(logprobs: torch.Tensor, entropy: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
            return step_loss(logprobs, entropy, batch, self.config, num_total, num_observed, stats)

        learning_rate = self.learning_rate * rate_share(num_total, self.config.learning_rate_tokens)
        self.accumulate(batches, loss)
        grad_norm = self.apply(learning_rate)
        return_freed_memory()
        seconds = time.perf_counter() - begin
        num_packed = sum(batch.num_tokens for batch in batches)
        num_given = sum(len(sample.token_ids) for sample in samples)
        parts, *counts = zip(
            *world.gather((stats, len(batches), num_packed, num_given)), strict=True
        )
        num_batches, num_packed, num_given = map(sum, counts)
        return {
            **merged(parts).means(),
            "skipped": float(not math.isfinite(grad_norm)),
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "num_micro_batches": float(num_batches),
            "num_packed_tokens": float(num_packed),
            "num_sample_tokens": float(num_given),
            "train_s": seconds,
            "train_tokens_per_s": num_packed / seconds,
        }

    def pack(self, samples: Sequence[Sample]) -> list[MicroBatch]:
        """Micro-batches as configured, on the device of the weights; none of no samples."""
        batches = pack(
            samples,
            max_tokens=self.row_tokens,
            share_prefixes=self.config.share_prefixes,
            block_tokens=BLOCK_TOKENS if self.device.type == "cpu" else 0,
            observed=self.config.observation_weight > 0,
        )
        return [batch.to(self.device) for batch in batches]

    @memory_boundary("learning", _REMEDY)
    def accumulate(self, batches: Sequence[MicroBatch], loss: MicroLoss) -> float:
        """Forward and backward over micro-batches; gradients add up, nothing moves. The loss.

        All ranks of a world go through equally many: weights and gradients travel in each.
        """
        self._scorer.train()
        total = 0.0
        given = [batch for batch in batches if len(batch.targets)]
        num_fillers = max(self.world.gather(len(given))) - len(given)
        for batch in given:
            logprobs, entropy = self.score(batch)
            value = loss(logprobs, entropy, batch)
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
        for _ in range(num_fillers):
            logprobs, _ = self.score(self.pack([_FILLER])[0])
            (0.0 * logprobs.sum()).backward()  # type: ignore[no-untyped-call]
        return total

    def score(self, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of each trained token, fp32 [N]."""
        scores: tuple[torch.Tensor, torch.Tensor] = self._scorer(batch)
        return scores

    @memory_boundary("learning", _REMEDY)
    def apply(self, learning_rate: float) -> float:
        """Clip, step and refresh the live weights; the gradient norm before clipping.

        A norm that is not finite drops the gradient and moves nothing.
        """
        masters = list(self.masters.values())
        gradients = [master.grad for master in masters if master.grad is not None]
        total = whole(nn.utils.get_total_norm(gradients))
        norm = float(total)
        if math.isfinite(norm):
            nn.utils.clip_grads_with_norm_(masters, self.config.max_grad_norm, total)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self._pull_back()
            self.num_steps += 1
            self.refresh()
        else:
            log.warning("gradient norm is %s: the step is skipped", norm)
        for master in masters:
            master.grad = None
        return norm

    @torch.no_grad()
    def _pull_back(self) -> None:
        """Move the masters a part of the way back to where they began (`config.anchor`): a slow
        reference that costs no forward pass. A resumed run begins at the same weights."""
        for name, start in self._start.items():
            self.masters[name].lerp_(start, self.config.anchor)

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the live weights from the masters: rounded copies, or the merged adapter."""
        for name, param in self._live.items():
            if self.masters[name] is not param:
                param.copy_(self.masters[name])
        for _, layer in lora_layers(self._trained):
            layer.merge()
        if self.world.is_sharded:
            self._gather()

    def _gather(self) -> None:
        """Make rank 0's whole model that of the masters; one whole weight at a time."""
        kept = dict(self.model.named_parameters()) if self.world.is_first else {}
        for name, master in self.masters.items():
            weight = whole(master)
            if name in kept:
                kept[name].copy_(weight)
        if self.world.is_first:
            for _, layer in lora_layers(self.model):
                layer.merge()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that later steps depend on, by flat names; no copies, sharded as it lies.

        The random state is that of rank 0.
        """
        state = {f"masters.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self.optimizer.state.get(master, {}).items():
                state[f"optimizer.{name}.{key}"] = value
        state["num_steps"] = torch.tensor(self.num_steps)
        if self.world.is_first:
            state["rng"] = torch.get_rng_state()
            if self.device.type == "cuda":
                state[_GPU_RNG] = torch.cuda.get_rng_state(self.device)
        return state

    def empty_state(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
        """Tensors like a stored state of these names and shapes, to be read into.

        Masters are the live ones. Raises `UserError` where the state is of another learner.
        """
        state = {f"masters.{name}": master.detach() for name, master in self.masters.items()}
        stored = {name for name in shapes if name.startswith("masters.")}
        wrong = sorted(
            [n for n, m in state.items() if n not in shapes or tuple(shapes[n]) != tuple(m.shape)]
            + [name for name in stored if name not in state]
        )
        if wrong:
            raise UserError(
                f"the checkpoint does not fit the learner ({len(wrong)} weights differ, e.g. "
                f"{wrong[0]}); resume with the same model and learner.lora_rank"
            )
        for name, master in self.masters.items():
            if f"optimizer.{name}.step" in shapes:
                state[f"optimizer.{name}.step"] = torch.zeros((), device=master.device)
                for key in _MOMENTS:
                    state[f"optimizer.{name}.{key}"] = torch.zeros_like(master)
        if _GPU_RNG in shapes and self.device.type == "cuda":
            state[_GPU_RNG] = torch.cuda.get_rng_state(self.device)
        return state | {"num_steps": torch.tensor(0), "rng": torch.get_rng_state()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a state that was read into `empty_state`."""
        self.optimizer.state.clear()
        for name, master in self.masters.items():
            values = {
                k: state.get(f"optimizer.{name}.{k}") for k in ("step", "exp_avg", "exp_avg_sq")
            }
            if values["step"] is not None:
                self.optimizer.state[master] = values
        self.num_steps = int(state["num_steps"])
        torch.set_rng_state(state["rng"])
        if _GPU_RNG in state:
            torch.cuda.set_rng_state(state[_GPU_RNG], self.device)
        self.refresh()


def checkpoint_activations(model: Any) -> None:
    """Compute each layer again in the backward pass, while the model is in training mode."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(
            f"learner.activation_checkpointing: {type(model).__name__} does not support it; "
            "leave it false"
        )
    enable = getattr(model, "activation_checkpointing_enable", None)  # transformers 5.20 and later
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


def rate_share(num_tokens: int, enough: int | None) -> float:
    """Share of the learning rate that a step of `num_tokens` trained tokens has: 1 from `enough`
    on, below it the root of their share. 100 of 400 give 0.5."""
    return 1.0 if enough is None else min(1.0, math.sqrt(num_tokens / enough))


def merged(parts: Sequence[LossStats]) -> LossStats:
    """The sums of all ranks."""
    total = LossStats()
    for part in parts:
        total.add(**part.sums)
        total.max_abs_log_ratio = max(total.max_abs_log_ratio, part.max_abs_log_ratio)
    return total


def _make_hook(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def add(param: torch.Tensor) -> None:
        assert param.grad is not None
        if master.grad is None:
            master.grad = param.grad.float()
        else:
            master.grad += param.grad
        param.grad = None

    return add
