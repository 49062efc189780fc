"""Supervised training that is kept now and then, so that one that was killed goes on.

What is kept belongs to one set of examples and settings (`key`); where these are others, training
begins anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfplay.files import encode_json
from selfplay.records import from_plain, to_plain

if TYPE_CHECKING:
    from selfplay.learner.supervised import Example, SupervisedStep
    from selfplay.learner.trainer import Trainer

EVERY_S = 60.0
"""Seconds of work that a kill may cost."""


@dataclasses.dataclass
class KeptTraining:
    """A `learner.supervised.Kept` in `folder`, which `end` removes."""

    trainer: Trainer
    folder: Path
    key: str
    every_s: float = EVERY_S
    _last: float = dataclasses.field(default_factory=time.monotonic)

    def restore(self) -> tuple[list[SupervisedStep], float]:
        """See `Kept`."""
        from selfplay.learner import checkpoint
        from selfplay.learner.supervised import SupervisedStep

        newest = checkpoint.latest(self.folder)
        if newest is None:
            return [], 0.0
        if checkpoint.extra(newest).get("key") != self.key:
            self.end()
            return [], 0.0
        extra = checkpoint.load(newest, self.trainer)
        history = [from_plain(SupervisedStep, step) for step in extra["history"]]
        return history, float(extra["seconds"])

    def keep(self, history: Sequence[SupervisedStep], seconds: float) -> None:
        """See `Kept`."""
        from selfplay.learner import checkpoint

        if time.monotonic() - self._last < self.every_s:
            return
        extra = {"key": self.key, "seconds": seconds, "history": [to_plain(s) for s in history]}
        checkpoint.save(self.folder, len(history), self.trainer, extra, keep_last=1)
        self._last = time.monotonic()

    def end(self) -> None:
        """The training is over."""
        shutil.rmtree(self.folder, ignore_errors=True)


def training_key(examples: Sequence[Example], settings: object) -> str:
    """Of what decides the steps of a training: its examples and its settings (plain types)."""
    digest = hashlib.sha256(encode_json(settings))
    for example in examples:
        digest.update(repr((example.token_ids, example.loss_mask)).encode())
    return digest.hexdigest()
