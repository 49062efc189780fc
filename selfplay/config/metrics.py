"""Where metrics go beside `metrics.jsonl`: `metrics`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """Sinks beside `metrics.jsonl`, which is always written."""

    tensorboard: bool = True
    """Write events to `tensorboard/` of the run."""
    wandb: bool = False
    """Log to Weights & Biases, as `wandb login` or WANDB_MODE has set it up."""
    wandb_project: str = "selfplay"
    """Project of the run there."""
    live: bool = True
    """Show the run in a terminal, redrawn as it goes; false: a progress bar, as elsewhere."""
    report: bool = True
    """Write report.html, a page that shows the run, when it ends."""
