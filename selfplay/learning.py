"""What a run asks of the learner (`learner/`): peer groups in, one optimizer step, new weights out.

Torch stays behind it: commands and curriculum know the learner by this protocol alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfplay.run_dir import RunDir
from selfplay.sampling import Policy
from selfplay.types import PeerGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The step whose checkpoint was loaded, and its row of metrics."""

    step: int
    metrics: Mapping[str, float]


class Learner(Protocol):
    """Trains the weights that `policy` samples from; other processes may have a part in it."""

    @property
    def policy(self) -> Policy:
        """Answers with the weights of the last step that was published."""
        ...

    def step(self, groups: Sequence[PeerGroup]) -> dict[str, float]:
        """One optimizer step on the groups that have variance, then publish; metrics.

        `groups_trained` is in the result: 0.0 when no group has any variance, and nothing moves.
        """
        ...

    def save(self, run_dir: RunDir, step: int, metrics: Mapping[str, float]) -> None:
        """Checkpoint of everything that `step` changes, atomically, under `checkpoints/`."""
        ...

    def restore(self, run_dir: RunDir) -> Restored | None:
        """Load the newest whole checkpoint; None when there is none."""
        ...

    def export(self, run_dir: RunDir, step: int) -> Path:
        """Write the weights after `step` below `weights/`: an adapter or a model directory."""
        ...

    def dismiss(self) -> None:
        """Let the other processes go; the last call."""
        ...
