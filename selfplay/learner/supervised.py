"""Supervised training on answers: the warm start without which a small model earns no reward."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from selfplay.config import SupervisedConfig
from selfplay.errors import UserError
from selfplay.learner.loss import supervised_loss
from selfplay.learner.packing import MicroBatch
from selfplay.learner.trainer import Trainer
from selfplay.types import TrainingSample

WARMUP_SHARE, FINAL_SHARE = 0.05, 0.1
"""Of the run, and of the learning rate at its end."""

Progress = Callable[["SupervisedStep"], None]


class Kept(Protocol):
    """Training that goes on where it was killed."""

    def restore(self) -> tuple[list[SupervisedStep], float]:
        """Put the trainer back; the steps that it has made, and the seconds they took."""
        ...

    def keep(self, history: Sequence[SupervisedStep], seconds: float) -> None:
        """Called after each step; stores what it likes."""
        ...


class Example(Protocol):
    """A token sequence and which of its tokens are to be learnt."""

    @property
    def token_ids(self) -> tuple[int, ...]: ...
    @property
    def loss_mask(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedStep:
    """What `progress` is told; `held_out_loss` only on the steps that measure it."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    held_out_loss: float | None = None


def train_supervised(
    trainer: Trainer,
    examples: Sequence[Example],
    config: SupervisedConfig,
    *,
    held_out: Sequence[Example] = (),
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> list[SupervisedStep]:
    """Minimise the mean negative log-likelihood of the trained tokens; the record of all steps.

    Examples with equal prompts stay together, so that their prompt is run once. With
    `max_minutes` the schedule is stretched or cut to the clock instead of the data.
    """
    history, before_s = kept.restore() if kept is not None else ([], 0.0)
    max_s = None if config.max_minutes is None else config.max_minutes * 60
    if not examples:
        raise UserError("supervised training was given no examples")
    plan = _batches(examples, config)
    begin = time.monotonic() - before_s
    for step, batch in list(enumerate(plan))[len(history) :]:
        elapsed = time.monotonic() - begin
        if max_s is not None and elapsed >= max_s:
            break
        done = step / len(plan)
        if max_s is not None:
            done = max(done, elapsed / max_s)
        rate = scheduled_rate(config, done)
        start = time.perf_counter()
        loss, norm, tokens = _one_step(trainer, batch, rate)
        seconds = time.perf_counter() - start
        last = step == len(plan) - 1
        measure = bool(held_out) and (last or _due(step, config.eval_every))
        record = SupervisedStep(
            step=step,
            num_steps=len(plan),
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens_per_s=tokens / seconds,
            held_out_loss=mean_loss(trainer, held_out) if measure else None,
        )
        history.append(record)
        if kept is not None:
            kept.keep(history, time.monotonic() - begin)
        if progress is not None:
            progress(record)
    return history


@torch.no_grad()
def mean_loss(trainer: Trainer, examples: Sequence[Example]) -> float:
    """Mean negative log-likelihood of the trained tokens of `examples`."""
    trainer.model.eval()
    batches = _pack(trainer, examples)
    total = sum(float(trainer.score(b)[0].sum()) for b in batches if b.num_trained)
    return -total / max(sum(batch.num_trained for batch in batches), 1)


def scheduled_rate(config: SupervisedConfig, done: float) -> float:
    """Learning rate at share `done` of the run."""
    if done < WARMUP_SHARE:
        return config.learning_rate * (0.1 + 0.9 * done / WARMUP_SHARE)
    share = min(1.0, (done - WARMUP_SHARE) / max(1.0 - WARMUP_SHARE, 1e-9))
    cosine = 0.5 * (1.0 + math.cos(math.pi * share))
    return config.learning_rate * (FINAL_SHARE + (1.0 - FINAL_SHARE) * cosine)


def _one_step(trainer: Trainer, batch: Sequence[Example], rate: float) -> tuple[float, float, int]:
    """Loss, gradient norm and packed tokens."""
    packed = _pack(trainer, batch)
    num_total = sum(micro.num_trained for micro in packed)

    def loss(logprobs: torch.Tensor, entropy: torch.Tensor, micro: MicroBatch) -> torch.Tensor:
        return supervised_loss(logprobs, num_total)

    value = trainer.accumulate(packed, loss)
    return value, trainer.apply(rate), sum(micro.num_tokens for micro in packed)


def _pack(trainer: Trainer, examples: Sequence[Example]) -> list[MicroBatch]:
    scored = []
    for example in examples:
        zeros = (0.0,) * len(example.token_ids)
        scored.append(
            TrainingSample(
                token_ids=example.token_ids,
                loss_mask=example.loss_mask,
                logprobs=zeros,
                advantages=zeros,
                policy_version=0,
            )
        )
    return trainer.pack(scored)


def _batches(examples: Sequence[Example], config: SupervisedConfig) -> list[list[Example]]:
    """Shuffled prompts, cut into batches of about `batch_tokens` (a shared prompt counts once)."""
    by_prompt: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        if not any(example.loss_mask):
            raise UserError("an example has no token to learn (loss mask all 0)")
        prompt = example.token_ids[: example.loss_mask.index(1)]
        by_prompt.setdefault(prompt, []).append(example)
    rng = random.Random(config.seed)
    prompts = list(by_prompt)
    order: list[tuple[int, ...]] = []
    while len(order) < round(config.epochs * len(prompts)):
        rng.shuffle(prompts)
        order.extend(prompts)
    order = order[: max(1, round(config.epochs * len(prompts)))]
    batches: list[list[Example]] = []
    size = config.batch_tokens
    for prompt in order:
        group = by_prompt[prompt]
        if size >= config.batch_tokens:
            batches.append([])
            size = 0
        batches[-1].extend(group)
        size += len(prompt) + sum(len(example.token_ids) - len(prompt) for example in group)
    return batches


def _due(step: int, every: int) -> bool:
    return every > 0 and (step + 1) % every == 0


def total_trained_tokens(examples: Sequence[Example]) -> int:
    """Number of tokens that one epoch learns from."""
    return sum(sum(example.loss_mask) for example in examples)
