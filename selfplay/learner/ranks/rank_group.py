"""One trainer on every rank: what rank 0 calls, the others do, in the same order.

Rank 0 plays, grades and keeps the run directory; between its calls the others wait in `follow`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.learner import checkpoint
from selfplay.learner.packing import Sample
from selfplay.learner.trainer import Trainer


class RankGroup:
    """The calls that all ranks take part in. In a world of one process they are plain calls."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._world = trainer.world

    def step(self, samples: Sequence[Sample]) -> dict[str, float]:
        """`Trainer.step` on the samples of rank 0."""
        self._tell("step", ())
        return self.trainer.step(samples)

    def save(self, directory: Path, step: int, extra: Mapping[str, Any], *, keep_last: int) -> Path:
        """`checkpoint.save`; every rank writes its pieces."""
        self._tell("save", directory.absolute(), step, dict(extra), keep_last=keep_last)
        return checkpoint.save(directory, step, self.trainer, extra, keep_last=keep_last)

    def load(self, path: Path) -> dict[str, Any]:
        """`checkpoint.load`; every rank reads its pieces."""
        self._tell("load", path.absolute())
        return checkpoint.load(path, self.trainer)

    def dismiss(self) -> None:
        """The others leave `follow`."""
        self._tell("")

    def follow(self) -> None:
        """Do what rank 0 tells, until it dismisses."""
        assert not self._world.is_first
        while True:
            name, positional, named = self._world.broadcast()
            if not name:
                return
            getattr(self, name)(*positional, **named)

    def _tell(self, name: str, *positional: Any, **named: Any) -> None:
        if self._world.is_first:
            self._world.broadcast((name, positional, named))
