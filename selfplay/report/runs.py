"""What a report tells of one run, read from its directory; the run may still be going on.

Needs no lock and writes nothing. Trajectories are left behind: people read no token ids.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.corpus.corpus import Corpus, StoredBug
from selfplay.errors import UserError
from selfplay.files import read_json_lines
from selfplay.run_dir.episodes import read_episode_lines
from selfplay.run_dir.metrics import current_names

Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run as it lies on disk.

    metrics    rows of `metrics.jsonl` under today's names, in the order of their steps
    episodes   lines of `episodes.jsonl` that count, without their trajectories
    summary    `summary.json`, None before the run has ended
    """

    name: str
    path: Path
    metrics: Sequence[Line]
    bugs: Sequence[StoredBug]
    episodes: Sequence[Line]
    summary: Mapping[str, Any] | None

    def injections(self) -> list[Line]:
        """The injector's episodes, in the order of the log."""
        return [line for line in self.episodes if line["role"] == "injector"]

    def attempts(self) -> dict[str, list[Line]]:
        """{bug id: the solver's episodes on it}."""
        found: dict[str, list[Line]] = defaultdict(list)
        for line in self.episodes:
            if line["role"] == "solver":
                found[line["bug_id"] or line["task_id"]].append(line)
        return dict(found)


def read_run(path: Path) -> RunRecord:
    """A run directory. Raises `UserError` where it is none, or a file of it cannot be read."""
    metrics, episodes = path / "metrics.jsonl", path / "episodes.jsonl"
    if not metrics.is_file() and not episodes.is_file():
        raise UserError(
            f"run={path}: has neither metrics.jsonl nor episodes.jsonl; name the directory of a "
            "run, such as runs/quickstart"
        )
    rows = [row for _, row in read_json_lines(metrics)] if metrics.is_file() else []
    lines = list(read_episode_lines(episodes)) if episodes.is_file() else []
    for _, line in lines:
        line.pop("trajectory", None)
    return RunRecord(
        name=path.resolve().name,
        path=path,
        metrics=[current_names(row) for row in rows],
        bugs=_bugs(path / "corpus.sqlite"),
        episodes=[line for _, line in lines],
        summary=_json(path / "summary.json"),
    )


def _bugs(path: Path) -> list[StoredBug]:
    if not path.is_file():
        return []
    corpus = Corpus(path, read_only=True)
    with corpus:
        return corpus.bugs()


def _json(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
        return found
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); remove it, a run writes it anew") from None
