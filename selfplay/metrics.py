"""Metrics of a run: one JSON object a step, and TensorBoard. A failure here never stops a run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from selfplay.run_dir import RunDir, append_synced, write_atomic

log = logging.getLogger(__name__)


class MetricsLog:
    """Writes `metrics.jsonl` and TensorBoard events under `logs/tensorboard`."""

    def __init__(self, run_dir: RunDir, *, tensorboard: bool = True) -> None:
        self._run_dir = run_dir
        self._file = run_dir.path / "metrics.jsonl"
        self._writer = _open_writer(run_dir) if tensorboard else None

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """One row; non-finite values are left out with a warning."""
        kept = {name: value for name, value in row.items() if math.isfinite(value)}
        if len(kept) < len(row):
            log.warning("step %d: non-finite metrics: %s", step, sorted(set(row) - set(kept)))
        try:
            append_synced(self._file, json.dumps({"step": step, **kept}) + "\n")
            if self._writer is not None:
                for name, value in kept.items():
                    self._writer.add_scalar(name, value, step)
                self._writer.flush()
        except Exception:
            log.exception("metrics of step %d could not be written", step)

    def truncate_after(self, step: int) -> None:
        """Drop rows later than `step`: those of a step that is about to be repeated."""
        rows = self._run_dir.read_metrics()
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            write_atomic(self._file, "".join(json.dumps(row) + "\n" for row in kept))

    def ensure(self, step: int, row: Mapping[str, float]) -> None:
        """Write the row of a step unless it is there (a kill fell between checkpoint and log)."""
        if all(stored["step"] != step for stored in self._run_dir.read_metrics()):
            self.log(step, row)


def _open_writer(run_dir: RunDir) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(run_dir.path / "logs" / "tensorboard"))
    except Exception as error:
        log.warning("no TensorBoard events: %s", error)
        return None
