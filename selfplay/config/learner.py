"""The learner (docs/learner.md): `learner`.

Loss, detection of loops and trainer each read the class of their own keys; `LearnerConfig` is all
of them, so that each key is said once and stands flat under `learner`.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.config.checks import above, at_least, one_of, share
from selfplay.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What `learner/loss.py` reads; see the head of that module."""

    clip_low: float = 0.2
    """The ratio is clipped below 1 - clip_low."""
    clip_high: float = 0.28
    """The ratio is clipped above 1 + clip_high."""
    max_log_ratio: float = 10.0
    """Bound of the logarithm of the ratio, on both sides."""
    importance_cap: float = 4.0
    """Largest importance weight of a token, at least 1."""
    importance_mode: str = "truncate"
    """What happens to a token beyond the cap: truncate its weight, or mask the token."""
    gibberish_logprob: float = -14.0
    """A token that was sampled with a lower log-probability is noise and not trained on."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus; 0: none."""
    observation_weight: float = 0.0
    """Weight of the mean next-token loss on what an episode was told between its answers (results
    of tools, failures of tests); 0: none of it is learnt."""

    def __post_init__(self) -> None:
        one_of(self, "learner.", "importance_mode", ("truncate", "mask"))
        at_least(self, "learner.", 1, "importance_cap")
        at_least(
            self, "learner.", 0, *("clip_low", "clip_high", "max_log_ratio", "observation_weight")
        )


@dataclass(frozen=True, kw_only=True)
class RepetitionConfig:
    """What `learner/measures/degenerate.py` reads. A loop: at least `repetition_tokens` sampled
    tokens on end, each equal to the one `p` before it, for a period p of at most
    `repetition_period`."""

    repetition_tokens: int = 48
    """Tokens of a stretch that repeats itself and is not trained on; 0 switches this off."""
    repetition_period: int = 12
    """Longest period, in tokens, of what counts as a repetition."""

    def __post_init__(self) -> None:
        if self.repetition_tokens < 0:
            raise UserError(
                f"learner.repetition_tokens={self.repetition_tokens}: must be at least 0 (off)"
            )
        at_least(self, "learner.", 1, "repetition_period")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig(LossConfig):
    """What `learner/trainer.py` reads, the loss included."""

    lora_rank: int = 16
    """Rank of the adapter that is trained; 0 trains all weights."""
    learning_rate: float = 1e-4
    """Of AdamW, after the warm-up."""
    learning_rate_tokens: int | None = None
    """Trained tokens of a step from which on it has the whole rate; with fewer it is lowered by the
    root of their share, since what few tokens say is mostly noise. null: always the whole rate."""
    warmup_steps: int = 2
    """Steps over which the learning rate rises linearly."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    weight_decay: float = 0.0
    """Of AdamW."""
    anchor: float = 0.0
    """Part of the way back to the weights that the run began with that each step goes: 0.02 keeps a
    memory of some 50 steps; 0: none."""
    micro_batch_tokens: int | None = None
    """Tokens of one row that is computed at once, a longer sample is a row of its own; null: 2048
    on a CPU, up to 16384 on a GPU."""
    share_prefixes: bool = True
    """Compute the prompt of a group once; false gives the same result for more work."""
    compile: bool = False
    """Compile the model's layers: faster on a GPU, after a minute of compiling."""
    activation_checkpointing: bool = False
    """Keep the input of each layer alone: the same gradients, less memory, a third more work."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank < 0:
            raise UserError(f"learner.lora_rank={self.lora_rank}: must be 0 (full) or positive")
        at_least(self, "learner.", 1, "micro_batch_tokens", "learning_rate_tokens")
        share(self, "learner.", "anchor")


@dataclass(frozen=True, kw_only=True)
class LearnerConfig(TrainerConfig, RepetitionConfig):
    """GRPO, one optimizer step for each step of the run."""

    enabled: bool = True
    """False plays rounds without learning."""
    device: str = "auto"
    """Where it trains: auto (a GPU where there is one), cpu or cuda."""
    injector_weight: float = 1.0
    """Weight of the injector's groups in the loss."""
    solver_weight: float = 1.0
    """Weight of the solver's groups in the loss."""
    advantage: str = "mean"
    """Of the solver's attempts (`learner/advantages.py`): mean, leave_one_out, deviation, pass_at_k
    or positive."""
    injector_tokens: float | None = None
    """Learn on at most so many tokens of the injector for each of the solver, prompts counted once,
    those of the largest advantages; null: on all."""
    memory_check: bool = True
    """Refuse to start what cannot fit into the memory."""
    keep_last: int = 2
    """Newest checkpoints that are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        RepetitionConfig.__post_init__(self)
        at_least(self, "learner.", 0, "injector_weight", "solver_weight", "injector_tokens")
        estimators = ("mean", "leave_one_out", "deviation", "pass_at_k", "positive")
        one_of(self, "learner.", "advantage", estimators)
        if self.enabled and self.injector_weight == self.solver_weight == 0:
            raise UserError(
                "learner.injector_weight and learner.solver_weight are both 0: no role would learn"
            )


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """What `learner/supervised.py` reads: linear warm-up, then cosine to a tenth."""

    seed: int = 0
    """Of the order of examples."""
    learning_rate: float = 1e-3
    """Largest of the schedule."""
    epochs: float = 1.0
    """Times that each example is learned from."""
    batch_tokens: int = 8192
    """Sequence tokens of one step, about."""
    max_minutes: float | None = 60.0
    """Minutes after which training ends, the schedule with it; null: no bound."""
    eval_every: int = 40
    """Steps between measurements of the held-out loss; 0: none."""

    def __post_init__(self) -> None:
        above(self, "", 0, "epochs", "learning_rate")
        at_least(self, "", 1, "batch_tokens")
        at_least(self, "", 0, "max_minutes", "eval_every")
