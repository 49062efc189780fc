"""Metrics of a run: one JSON object a step, and TensorBoard events. Never stops training."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from selfplay.errors import InfrastructureError
from selfplay.files import append_json_lines, encode_json, read_json_lines, write_atomic
from selfplay.run_dir import RunDir

log = logging.getLogger(__name__)


class MetricsLog:
    """Rows of `metrics.jsonl`; the row of a step is an object with `step` first.

    Each sink that fails is reported once and left out from then on.
    """

    def __init__(self, run_dir: RunDir, *, tensorboard: bool = True) -> None:
        self._file = run_dir.metrics
        self._failed: set[str] = set()
        self._last = run_dir.next_step() - 1
        self._events = TensorBoard(run_dir) if tensorboard else None

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Write the row of `step`; one of the same or a later step that is there is replaced."""
        clean = {name: value for name, value in row.items() if math.isfinite(value)}
        if len(clean) < len(row):
            names = ", ".join(sorted(set(row) - set(clean)))
            log.warning("step %d: metrics that are not finite were left out: %s", step, names)
        try:
            if step <= self._last:
                self.truncate_after(step - 1)
            append_json_lines(self._file, [{"step": step, **clean}])
            self._last = step
        except InfrastructureError as error:
            self._report("metrics.jsonl", error)
        try:
            if self._events is not None:
                self._events.write(step, clean)
        except Exception as error:
            self._events = None
            self._report("tensorboard", error)

    def truncate_after(self, step: int) -> None:
        """Drop the rows of later steps, which a resumed run plays again."""
        rows = [row for _, row in read_json_lines(self._file)]
        kept = [row for row in rows if int(row["step"]) <= step]
        if len(kept) < len(rows):
            write_atomic(self._file, b"".join(encode_json(row) + b"\n" for row in kept))
        self._last = int(kept[-1]["step"]) if kept else -1

    def ensure(self, step: int, row: Mapping[str, float]) -> None:
        """Write the row of a step that its checkpoint holds, where a kill kept it from the file."""
        if step > self._last:
            self.log(step, {name: value for name, value in row.items() if name != "step"})

    def close(self) -> None:
        """Close the event file. Idempotent."""
        if self._events is not None:
            try:
                self._events.close()
            except Exception as error:
                self._report("tensorboard", error)
            self._events = None

    def _report(self, sink: str, error: Exception) -> None:
        if sink not in self._failed:
            log.warning("%s fails and is left out from now on: %s", sink, error)
        self._failed.add(sink)


class TensorBoard:
    """Scalars through TensorBoard's own event writer, opened with the first row."""

    def __init__(self, run_dir: RunDir) -> None:
        self._directory = run_dir.tensorboard
        self._writer: Any = None

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One event with all scalars. The first one hides events of steps not before `step`."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import event_file_writer

        events: Any = event_pb2
        summaries: Any = summary_pb2
        if self._writer is None:
            make_writer: Any = event_file_writer.EventFileWriter
            self._writer = make_writer(str(self._directory))
            start = events.SessionLog(status=events.SessionLog.START)
            self._writer.add_event(
                events.Event(wall_time=time.time(), step=step, session_log=start)
            )
        scalars = [
            summaries.Summary.Value(tag=name, simple_value=value) for name, value in row.items()
        ]
        summary = summaries.Summary(value=scalars)
        self._writer.add_event(events.Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()
