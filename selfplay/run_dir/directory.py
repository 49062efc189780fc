"""The run directory: everything of one run, whole after a kill at any moment.

    config.yaml      resolved configuration            run.json      one entry for each try (start)
    metrics.jsonl    one object a step                 episodes.jsonl  every episode, append-only
    corpus.sqlite    bugs and attempts                 artifacts/ checkpoints/ weights/ logs/
    summary.json     written at the end                tensorboard/  events

One process at a time owns the directory (a lock that the kernel drops when the process dies).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from selfplay.errors import UserError
from selfplay.files import (
    append_json_lines,
    finite,
    make_folder,
    read_json_lines,
    repair_json_lines,
    take_lock,
    write_atomic,
)
from selfplay.run_dir.changes import changed_keys
from selfplay.run_dir.episodes import episode_to_dict, read_episodes
from selfplay.run_dir.provenance import describe_try
from selfplay.types import Episode

log = logging.getLogger(__name__)

SUMMARY_KEYS = (
    "steps",
    "solve_rate_first",
    "solve_rate_last",
    "valid_rate_first",
    "valid_rate_last",
    "eval_before",
    "eval_after",
    "num_valid_bugs",
    "wall_s",
)

_FOLDERS = ("artifacts", "checkpoints", "weights", "logs")


class RunDir:
    """Opens or creates a run directory and holds its lock until `close`.

    Raises `UserError` when the path cannot be written, another process runs it, or it holds a run
    already and `resume` is False.
    """

    def __init__(self, path: Path, *, resume: bool = True) -> None:
        self.path = path
        self._began = time.monotonic()
        _make_folders(path)
        self._lock = take_lock(path / ".lock", f"run directory {path}")
        try:
            if not resume and self.has_results():
                raise UserError(
                    f"{path}: holds a run already; continue it with resume=auto, or choose "
                    "another name=..."
                )
            for file in (self.episodes, self.metrics):
                if repair_json_lines(file, self.logs / f"torn-{file.name}"):
                    log.warning("%s: a torn last line was moved to logs/torn-%s", file, file.name)
            self._tries: list[dict[str, Any]] = self._read_tries()
            self._tries.append(describe_try(len(self._tries) + 1))
            self._write_tries()
        except BaseException:
            self.close()
            raise

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def episodes(self) -> Path:
        return self.path / "episodes.jsonl"

    @property
    def corpus(self) -> Path:
        return self.path / "corpus.sqlite"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def number_of_try(self) -> int:
        """1 for the first start of this run, +1 for each time that it was continued."""
        return len(self._tries)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def has_results(self) -> bool:
        """Whether anything is here that depends on the configuration."""
        files = (self.episodes, self.metrics, self.path / "eval_before.json")
        return any(file.exists() for file in files) or any(self.checkpoints.iterdir())

    def write_config(self, text: str, defaults: str = "{}") -> None:
        """Write `config.yaml`; a run that has results may change `FREE_KEYS` alone.

        A key that the version before did not know had the value that it has in `defaults`. The
        former text of a permitted change is kept under `logs/`. Raises `UserError` otherwise.
        """
        data = yaml.safe_load(text)
        former = self.config.read_text(encoding="utf-8") if self.config.exists() else None
        if former is not None and former != text:
            changed = changed_keys(yaml.safe_load(former), data, yaml.safe_load(defaults))
            if changed and self.has_results():
                raise UserError(
                    f"{self.config}: the run was started with other values of "
                    f"{', '.join(changed)}; use those, or start another run with name=..."
                )
            kept = self.logs / f"config-before-try{self.number_of_try}.yaml"
            write_atomic(kept, former.encode())
        if former != text:
            write_atomic(self.config, text.encode())
        self._tries[-1]["seed"] = data.get("seed") if isinstance(data, dict) else None
        self._write_tries()

    def append_episodes(self, episodes: Sequence[Episode]) -> None:
        """Append to `episodes.jsonl` and sync; on disk when this returns.

        Each line carries `try`; see `read_episodes` for how repeated steps are read.
        """
        number = self.number_of_try
        append_json_lines(
            self.episodes, [{"try": number, **episode_to_dict(episode)} for episode in episodes]
        )
        self._note_wall(self._began)

    def read_episodes(self) -> Iterator[Episode]:
        """Episodes that count: those of the last try of each step."""
        return read_episodes(self.path)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Rows of `metrics.jsonl` in order."""
        return [row for _, row in read_json_lines(self.metrics)]

    def next_step(self) -> int:
        """First step without a metrics row: where a run without a learner goes on."""
        rows = self.read_metrics()
        return int(rows[-1]["step"]) + 1 if rows else 0

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON document beside the others, atomically."""
        text = json.dumps(finite(document), indent=1, allow_nan=False)
        write_atomic(self.path / name, text.encode("ascii") + b"\n")

    def read_json(self, name: str) -> Any | None:
        """The document, None when there is none. Raises `UserError` when it is no JSON."""
        file = self.path / name
        if not file.exists():
            return None
        try:
            return json.loads(file.read_bytes())
        except ValueError as error:
            raise UserError(f"{file}: not JSON ({error}); restore or remove it") from None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`: exactly `SUMMARY_KEYS`, and anything else under `details`."""
        keys = set(summary) - {"details"}
        assert keys == set(SUMMARY_KEYS), f"summary.json: {sorted(keys ^ set(SUMMARY_KEYS))}"
        self.write_json("summary.json", summary)

    def add_wall(self, began: float) -> float:
        """Seconds since `began` (`time.monotonic()`) plus those of all earlier tries.

        A try that was killed counts up to its last episodes.
        """
        self._note_wall(began)
        return float(sum(entry.get("wall_s", 0.0) for entry in self._tries))

    def _note_wall(self, began: float) -> None:
        self._tries[-1]["wall_s"] = round(time.monotonic() - began, 3)
        self._write_tries()

    def _read_tries(self) -> list[dict[str, Any]]:
        document = self.read_json("run.json")
        return list(document["tries"]) if isinstance(document, dict) else []

    def _write_tries(self) -> None:
        self.write_json("run.json", {"tries": self._tries})


def _make_folders(path: Path) -> None:
    try:
        make_folder(path)
        for name in _FOLDERS:
            (path / name).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another runs_dir=..."
        ) from None
