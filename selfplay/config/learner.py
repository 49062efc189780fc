"""The part of the configuration about the learner: `learner`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class LearnerConfig:
    """GRPO (docs/learner.md). `lora_rank=0` trains all weights.

    `importance_mode`: truncate ratios at `importance_cap`, or mask tokens beyond it. A stretch of
    `repetition_tokens` that repeats itself with a period of at most `repetition_period` is a loop
    and not trained on (0: off). `memory_check`: refuse to start what cannot fit.
    `activation_checkpointing`: less memory for a third more work; the same gradients.
    `device`: where it trains (auto: on a GPU where there is one, cpu, cuda).
    """

    enabled: bool = True
    device: str = "auto"
    lora_rank: int = 16
    learning_rate: float = 1e-4
    warmup_steps: int = 2
    clip_low: float = 0.2
    clip_high: float = 0.28
    max_log_ratio: float = 10.0
    importance_cap: float = 4.0
    importance_mode: str = "truncate"
    gibberish_logprob: float = -14.0
    repetition_tokens: int = 48
    repetition_period: int = 12
    entropy_coefficient: float = 0.0
    injector_weight: float = 1.0
    solver_weight: float = 1.0
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    micro_batch_tokens: int = 2048
    share_prefixes: bool = True
    memory_check: bool = True
    activation_checkpointing: bool = False
    save_every: int = 1
    keep_last: int = 2
