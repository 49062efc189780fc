"""How a run is shown: redrawn in a terminal (`live.py`), else as lines of a progress bar.

Neither ever stops a run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from tqdm import tqdm

from selfplay.commands.live import LiveView
from selfplay.config import TrainConfig
from selfplay.curriculum.step import StepResult


def open_watcher(config: TrainConfig) -> RunWatcher | LiveView:
    """The picture where stderr is a terminal that can redraw and `metrics.live` is on."""
    console = Console(file=sys.stderr)
    if config.metrics.live and console.is_terminal and not console.is_dumb_terminal:
        return LiveView(config.name, config.steps, console)
    return RunWatcher(config.name, config.steps)


class RunWatcher:
    """A tqdm bar on stderr over the steps of a run."""

    def __init__(self, name: str, steps: int) -> None:
        self._name = name
        self._steps = steps
        self._bar: tqdm[Any] | None = None
        self._last: dict[str, str] = {}
        self._began = time.monotonic()
        self.use_of_sandboxes: Callable[[], tuple[int, int]] | None = None

    def __enter__(self) -> RunWatcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def phase(self, step: int, name: str) -> None:
        """A phase of a step begins."""
        bar = self._open(step)
        bar.set_description_str(f"{self._name} step {step + 1}/{self._steps} {name:<6}")

    def round_done(self, number: int, result: StepResult) -> None:
        """The bar has no place for it."""

    def step_done(self, step: int, row: Mapping[str, float]) -> None:
        """A step is on disk; show its figures."""
        bar = self._open(step)
        tokens = row.get("play/num_tokens", 0.0) / max(1e-9, row.get("curriculum/step_s", 0.0))
        bar.set_postfix_str(
            f"valid {row.get('injector/valid_rate', 0.0):.0%}, "
            f"solved {row.get('solver/solve_rate', 0.0):.0%}, {tokens:.0f} tok/s"
        )
        bar.update(1)

    def evaluating(self, when: str, done: int, total: int) -> None:
        """An evaluation before or after training moves on."""
        if self._bar is not None:
            self._bar.set_description_str(f"{self._name} evaluate {when} {done}/{total}")
        else:
            tqdm.write(f"selfplay: evaluate {when} training: {done}/{total} tasks")

    def _open(self, step: int) -> tqdm[Any]:
        if self._bar is None:
            self._bar = tqdm(
                total=self._steps, initial=step, unit="step", dynamic_ncols=True, mininterval=0.5
            )
        bar: tqdm[Any] = self._bar
        return bar
