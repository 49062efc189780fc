"""Who computes where: `split` (docs/gpu.md)."""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.config.checks import at_least


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How GPUs are shared between learner and vLLM servers; null: derived from what is there."""

    learner: int | None = None
    """GPUs of the learner, one process each."""
    servers: int | None = None
    """vLLM servers that are started, where there are GPUs."""
    gpus_per_server: int = 1
    """GPUs of each server (tensor parallel)."""
    min_gpus: int = 0
    """Refuse to start on a machine with fewer."""

    def __post_init__(self) -> None:
        at_least(self, "split.", 1, "learner", "servers", "gpus_per_server")
        at_least(self, "split.", 0, "min_gpus")
