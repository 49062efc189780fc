"""The run directory: everything of one run, whole after a kill at any moment.

    config.yaml      resolved configuration            run.json      one entry for each try (start)
    metrics.jsonl    one object a step                 episodes.jsonl  every episode, append-only
    corpus.sqlite    bugs and attempts                 artifacts/ checkpoints/ weights/ logs/
    summary.json     written at the end                tensorboard/  events

One process at a time owns the directory (a lock that the kernel drops when the process dies).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from selfplay import __version__
from selfplay.episodes import episode_from_dict, episode_to_dict
from selfplay.errors import UserError
from selfplay.files import (
    append_json_lines,
    finite,
    read_json_lines,
    repair_json_lines,
    write_atomic,
)
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
FREE_KEYS = frozenset({"steps", "max_minutes", "resume", "json", "runs_dir", "sandbox", "metrics"})
"""Top-level keys of the configuration that a resumed run may change."""

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

    def write_config(self, text: str) -> None:
        """Write `config.yaml`; a run that has results may change `FREE_KEYS` alone.

        The former text of a permitted change is kept under `logs/`. Raises `UserError` otherwise.
        """
        data = yaml.safe_load(text)
        former = self.config.read_text(encoding="utf-8") if self.config.exists() else None
        if former is not None and former != text:
            changed = _changed_keys(yaml.safe_load(former), data)
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


def read_episodes(path: Path) -> Iterator[Episode]:
    """Episodes of a run directory; needs no lock.

    A step that was cut off and repeated is in the log twice, with another `try`: the last counts.
    """
    file = path / "episodes.jsonl"
    last: dict[Any, int] = {}
    for _, line in read_json_lines(file):
        key = _repeats_of(line)
        last[key] = max(last.get(key, 0), int(line.get("try", 1)))
    for number, line in read_json_lines(file):
        if int(line.get("try", 1)) < last[_repeats_of(line)]:
            continue
        try:
            yield episode_from_dict(line)
        except UserError as error:
            raise UserError(f"{file}:{number}: {error}") from None


def take_lock(path: Path, what: str) -> int:
    """Exclusive lock on a file, as an open descriptor; closing it, or dying, gives it back.

    Raises `UserError` when another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{what}: in use by process {owner}; wait for it or end it, or choose another directory"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def describe_try(number: int) -> dict[str, Any]:
    """What ran, where: version, commit of a checkout (None for an installed package), machine."""
    return {
        "try": number,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        **code_state(Path(__file__).resolve().parent.parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "wall_s": 0.0,
    }


def code_state(root: Path) -> dict[str, Any]:
    """`commit` and `dirty` of the checkout at `root`; None where it is no checkout."""
    unknown: dict[str, Any] = {"commit": None, "dirty": None}
    if not (root / ".git").exists():
        return unknown

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return unknown


def _make_folders(path: Path) -> None:
    try:
        for name in ("", *_FOLDERS):
            (path / name).mkdir(parents=True, exist_ok=True)
        with contextlib.closing(tempfile.TemporaryFile(dir=path)):
            pass
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another runs_dir=..."
        ) from None


def _repeats_of(line: Mapping[str, Any]) -> Any:
    """Lines with an equal key are one try of the same thing: a step, else an episode."""
    info = line.get("info")
    step = info.get("step") if isinstance(info, dict) else None
    return line.get("episode_id") if step is None else int(step)


def _changed_keys(former: Any, data: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ, `FREE_KEYS` left out."""
    if not isinstance(former, dict) or not isinstance(data, dict):
        return [] if former == data else [prefix or "the configuration"]
    absent = object()
    changed: list[str] = []
    for key in sorted({*former, *data}, key=str):
        if prefix or key not in FREE_KEYS:
            name = f"{prefix}.{key}" if prefix else str(key)
            changed += _changed_keys(former.get(key, absent), data.get(key, absent), name)
    return changed
