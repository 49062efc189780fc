"""Metrics of a run: one JSON object a step, TensorBoard events, and W&B where it is wanted.

Metrics never stop training: a sink that fails is reported once and left out from then on.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Protocol

from selfplay.config import MetricsConfig
from selfplay.errors import UserError
from selfplay.files import append_json_lines, encode_json, read_json_lines, write_atomic
from selfplay.run_dir.directory import RunDir

log = logging.getLogger(__name__)

_WANDB_FILE = "wandb.json"
_OLD_NAMES = {
    "num_injections": "injector/num_injections",
    "num_valid": "injector/num_valid",
    "valid_rate": "injector/valid_rate",
    "num_attempts": "solver/num_attempts",
    "num_resolved": "solver/num_resolved",
    "num_first_attempts": "solver/num_first_attempts",
    "num_first_resolved": "solver/num_first_resolved",
    "solve_rate": "solver/solve_rate",
    "overfit_rate": "solver/overfit_rate",
    "num_new_bugs": "curriculum/num_new_bugs",
    "num_higher_order": "curriculum/num_higher_order",
    "num_errored": "play/num_errored",
    "play_s": "play/wall_s",
    "step_s": "curriculum/step_s",
}
"""Names of rows that were written before there were namespaces; all others were the learner's."""


def within(space: str, row: Mapping[str, float]) -> dict[str, float]:
    """A row with its names in a namespace: {"loss": 1.0} in `learner` is {"learner/loss": 1.0}."""
    return {f"{space}/{name}": value for name, value in row.items()}


def joined(*rows: Mapping[str, float]) -> dict[str, float]:
    """Several rows in one. Raises `ValueError` for a name that two of them write."""
    whole: dict[str, float] = {}
    for row in rows:
        if twice := sorted(set(whole) & set(row)):
            raise ValueError(f"metrics are written twice: {', '.join(twice)}")
        whole |= row
    return whole


def current_names(row: Mapping[str, float]) -> dict[str, float]:
    """A stored row under the names of today; a run may have been started by an older version."""
    renamed = {}
    for name, value in row.items():
        space, _, rest = name.partition("/")
        if space != "learner" and name != "step" and (not rest or rest.startswith("advantage_")):
            name = _OLD_NAMES.get(name, f"learner/{name}")
        renamed[name] = value
    return renamed


class Sink(Protocol):
    """Somewhere else that rows go to. What it raises is caught."""

    def write(self, step: int, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_metrics(config: MetricsConfig) -> None:
    """Raises `UserError` where a sink is wanted that is not installed."""
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "metrics.wandb=true needs the package wandb, which is not installed; run "
            '`pip install "selfplay[wandb]"`, or set metrics.wandb=false'
        )


class MetricsLog:
    """Rows of `metrics.jsonl`; the row of a step is an object with `step` first."""

    def __init__(self, run_dir: RunDir, config: MetricsConfig) -> None:
        check_metrics(config)
        self._file = run_dir.metrics
        self._failed: set[str] = set()
        self._last = run_dir.next_step() - 1
        self._sinks: dict[str, Sink] = {}
        if config.tensorboard:
            self._sinks["tensorboard"] = TensorBoard(run_dir)
        if config.wandb:
            self._sinks["wandb"] = WandB(run_dir, config.wandb_project)

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
        except Exception as error:
            self._report("metrics.jsonl", error)
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(step, clean)
            except Exception as error:
                del self._sinks[name]
                self._report(name, error)

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
            self.log(step, current_names({n: value for n, value in row.items() if n != "step"}))

    def close(self) -> None:
        """Close all sinks. Idempotent."""
        for name, sink in self._sinks.items():
            try:
                sink.close()
            except Exception as error:
                self._report(name, error)
        self._sinks.clear()

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


class WandB:
    """Rows as the history of one W&B run, opened with the first row; a resumed run goes on in it.

    W&B's own environment variables hold (WANDB_MODE=offline writes below the run directory).
    """

    def __init__(self, run_dir: RunDir, project: str) -> None:
        self._run_dir = run_dir
        self._project = project
        self._run: Any = None

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One row; W&B itself drops those of steps that it has."""
        if self._run is None:
            import wandb

            stored = self._run_dir.read_json(_WANDB_FILE) or {}
            self._run = wandb.init(
                project=self._project,
                name=self._run_dir.path.name,
                dir=str(self._run_dir.path),
                id=stored.get("id"),
                resume="allow",
                settings=wandb.Settings(console="off"),
            )
            self._run_dir.write_json(_WANDB_FILE, {"id": self._run.id})
        self._run.log(dict(row), step=step)

    def close(self) -> None:
        """Hand over what is left and end the run's session."""
        if self._run is not None:
            self._run.finish()
