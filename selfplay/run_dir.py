"""The run directory: everything that a run leaves behind, written so that a kill tears nothing.

Layout (interface.md): config.yaml, metrics.jsonl, episodes.jsonl, corpus.sqlite, artifacts/,
checkpoints/, weights/, logs/, summary.json, TensorBoard events under logs/.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from selfplay import __version__
from selfplay.errors import UserError
from selfplay.types import Episode, Trajectory


class RunDir:
    """A locked run directory. `resume=False` refuses one that already holds steps."""

    def __init__(self, path: Path, *, resume: bool = True) -> None:
        self.path = path
        try:
            for name in ("artifacts", "checkpoints", "weights", "logs"):
                (path / name).mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (path / ".lock").open("w")
        except OSError as error:
            raise UserError(
                f"run directory {path}: cannot be written ({error.strerror}); choose another with "
                "runs_dir=... or name=..."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(
                f"run directory {path}: another process is running it; choose another name=..."
            ) from None
        if not resume and self.next_step() > 0:
            self.close()
            raise UserError(
                f"run directory {path}: holds a run already; use resume=auto or another name=..."
            )
        for name in ("metrics.jsonl", "episodes.jsonl"):
            repair_last_line(path / name)

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
        """Release the lock. Idempotent."""
        self._lock.close()

    @property
    def corpus(self) -> Path:
        """The corpus database."""
        return self.path / "corpus.sqlite"

    def write_config(self, yaml: str) -> None:
        """`config.yaml` with the code version and host facts as a header; the first one stays as
        `config.yaml`, those of resumed runs are kept in logs/."""
        text = f"# selfplay {__version__}, commit {code_commit()}, python {sys.version.split()[0]}\n"
        target = self.path / "config.yaml"
        if target.exists():
            target = self.path / "logs" / f"config-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
        write_atomic(target, text + yaml)

    def append_episodes(self, episodes: Iterable[Episode]) -> None:
        """Append and sync: after this call the episodes survive a power cut."""
        lines = [json.dumps(episode_to_dict(e), ensure_ascii=False) + "\n" for e in episodes]
        append_synced(self.path / "episodes.jsonl", "".join(lines))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl in order."""
        return read_lines(self.path / "metrics.jsonl")

    def next_step(self) -> int:
        """First step without a metrics row."""
        return max((int(row["step"]) + 1 for row in self.read_metrics()), default=0)

    def read_json(self, name: str) -> Any | None:
        """A JSON file of the run directory, or None when it is not there."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON file whole or not at all."""
        write_atomic(self.path / name, json.dumps(document, indent=1) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """`summary.json`."""
        self.write_json("summary.json", summary)

    def add_wall(self, began: float) -> float:
        """Seconds of all processes that worked on this run, this one (since `began`) included."""
        stored = self.read_json("logs/wall.json") or {"wall_s": 0.0}
        total = float(stored["wall_s"]) + time.monotonic() - began
        self.write_json("logs/wall.json", {"wall_s": total})
        return total


def write_atomic(path: Path, text: str) -> None:
    """Write to a temporary name, sync, rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with partial.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def append_synced(path: Path, text: str) -> None:
    """Append text in one write and sync."""
    if not text:
        return
    with path.open("ab") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects of a JSON Lines file; [] when it is missing."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def repair_last_line(path: Path) -> bool:
    """Move an incomplete last line, left by a kill, to `<name>.torn`; True when there was one."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return False
    whole = content.rfind(b"\n") + 1
    with path.with_name(path.name + ".torn").open("ab") as torn:
        torn.write(content[whole:] + b"\n")
    with path.open("rb+") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return True


def episode_to_dict(episode: Episode) -> dict[str, Any]:
    """JSON form of an episode; `num_tokens` counts the sampled ones."""
    document = dataclasses.asdict(episode)
    mask = episode.trajectory.loss_mask if episode.trajectory else ()
    return {**document, "num_tokens": sum(mask)}


def episode_from_dict(document: Mapping[str, Any]) -> Episode:
    """Inverse of `episode_to_dict`."""
    fields = {k: v for k, v in document.items() if k != "num_tokens"}
    stored = fields["trajectory"]
    if stored is not None:
        fields["trajectory"] = Trajectory(
            token_ids=tuple(stored["token_ids"]),
            loss_mask=tuple(stored["loss_mask"]),
            logprobs=tuple(stored["logprobs"]),
            policy_version=stored["policy_version"],
        )
    return Episode(**fields)


def code_commit() -> str:
    """Commit of the checkout that runs, "unknown" for an installed package."""
    git = shutil.which("git")
    root = Path(__file__).resolve().parent.parent
    if git is None or not (root / ".git").exists():
        return "unknown"
    done = subprocess.run(
        [git, "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"
