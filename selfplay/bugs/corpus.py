"""The corpus: every valid bug, its ancestry and the attempts on it, in one SQLite file.

Write-ahead log with synchronous=FULL: what a call has returned survives kill -9 and a power cut.
One writer at a time; all writes are idempotent by id, so a step that is repeated after a kill
changes nothing.
"""

from __future__ import annotations

import ast
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from unidiff import PatchSet

from selfplay.bugs.records import task_from_dict, task_to_dict
from selfplay.errors import UserError
from selfplay.types import Seed, SolveTask

SCHEMA = """
CREATE TABLE IF NOT EXISTS bugs (
    bug_id TEXT PRIMARY KEY, repo TEXT NOT NULL, origin TEXT NOT NULL, strategy TEXT NOT NULL,
    path TEXT NOT NULL, function TEXT NOT NULL, commit_id TEXT, parent TEXT, step INTEGER NOT NULL,
    dedup TEXT NOT NULL, task TEXT NOT NULL, UNIQUE (repo, dedup)
);
CREATE TABLE IF NOT EXISTS attempts (
    episode_id TEXT PRIMARY KEY, bug_id TEXT NOT NULL REFERENCES bugs, step INTEGER NOT NULL,
    resolved INTEGER NOT NULL, errored INTEGER NOT NULL, reason TEXT NOT NULL, patch TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS attempts_of_bug ON attempts (bug_id, step);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBug:
    """One row: the task and where it came from; `solve_rate` is None before any attempt."""

    task: SolveTask
    origin: str
    strategy: str
    seed: Seed
    step: int
    solve_rate: float | None


class Corpus:
    """The corpus of one run (or of one `inject` directory). Thread-safe."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._lock = threading.RLock()
        try:
            target = f"file:{path.absolute()}?mode=ro" if read_only else str(path)
            self._db = sqlite3.connect(target, uri=read_only, check_same_thread=False)
            if not read_only:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise UserError(f"corpus {path}: cannot be opened ({error})") from None

    def __enter__(self) -> Corpus:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._db.close()

    def add_bug(
        self,
        task: SolveTask,
        *,
        origin: str,
        strategy: str,
        seed: Seed,
        step: int,
        parent: str | None = None,
    ) -> bool:
        """Store a bug; False when an earlier step holds it or one that is the same in effect."""
        dedup = dedup_key(task)
        with self._lock, self._db:
            row = self._db.execute(
                "SELECT bug_id, step FROM bugs WHERE bug_id = ? OR (repo = ? AND dedup = ?)",
                (task.bug_id, task.repo, dedup),
            ).fetchone()
            if row is not None:
                return bool(row[0] == task.bug_id and row[1] == step)
            self._db.execute(
                "INSERT INTO bugs VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (
                    task.bug_id, task.repo, origin, strategy, seed.path, seed.function,
                    seed.commit, parent, step, dedup, json.dumps(task_to_dict(task)),
                ),
            )  # fmt: skip
        return True

    def add_attempts(
        self, bug_id: str, attempts: Sequence[Mapping[str, Any]], *, step: int
    ) -> None:
        """Store attempts ({episode_id, resolved, errored, reason, patch}) on one bug."""
        rows = [
            (a["episode_id"], bug_id, step, int(a["resolved"]), int(a["errored"]), a["reason"],
             a["patch"])
            for a in attempts
        ]  # fmt: skip
        with self._lock, self._db:
            self._db.executemany("INSERT OR REPLACE INTO attempts VALUES (?,?,?,?,?,?,?)", rows)

    def bugs(self, repo: str | None = None) -> list[StoredBug]:
        """All bugs in the order of their finding."""
        with self._lock:
            rows = self._db.execute(
                "SELECT task, origin, strategy, path, function, commit_id, step, (SELECT "
                "AVG(resolved) FROM attempts a WHERE a.bug_id = b.bug_id AND NOT errored) "
                "FROM bugs b WHERE ? IS NULL OR repo = ? ORDER BY step, rowid",
                (repo, repo),
            ).fetchall()
        return [
            StoredBug(
                task=task_from_dict(json.loads(task)),
                origin=origin,
                strategy=strategy,
                seed=Seed(path=path, function=function, commit=commit),
                step=step,
                solve_rate=rate,
            )
            for task, origin, strategy, path, function, commit, step, rate in rows
        ]

    def num_bugs(self) -> int:
        """How many bugs there are."""
        with self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM bugs").fetchone()[0])

    def counts_by(self, column: str) -> dict[str, int]:
        """Number of bugs by repo, strategy, origin, path or function, the largest first."""
        if column not in ("repo", "strategy", "origin", "path", "function"):
            raise ValueError(f"no statistics by {column!r}")
        with self._lock:
            rows = self._db.execute(
                f"SELECT {column}, COUNT(*) n FROM bugs GROUP BY {column} ORDER BY n DESC"
            ).fetchall()
        return {str(name): int(number) for name, number in rows}

    def counts_by_function(self, *, before_step: int) -> dict[str, dict[str, int]]:
        """{repo: {"path::function": bugs}} of the steps before `before_step`."""
        with self._lock:
            rows = self._db.execute(
                "SELECT repo, path || '::' || function f, COUNT(*) FROM bugs WHERE step < ? "
                "GROUP BY repo, f",
                (before_step,),
            ).fetchall()
        counts: dict[str, dict[str, int]] = {}
        for repo, function, number in rows:
            counts.setdefault(repo, {})[function] = number
        return counts

    def replay_candidates(self, *, before_step: int, low: float, high: float) -> list[SolveTask]:
        """Bugs of earlier steps whose solve rate, counting attempts before `before_step`, lies in
        [low, high]; in a stable order."""
        with self._lock:
            rows = self._db.execute(
                "SELECT task FROM bugs b WHERE step < ? AND (SELECT AVG(resolved) FROM attempts a "
                "WHERE a.bug_id = b.bug_id AND NOT errored AND a.step < ?) BETWEEN ? AND ? "
                "ORDER BY bug_id",
                (before_step, before_step, low, high),
            ).fetchall()
        return [task_from_dict(json.loads(task)) for (task,) in rows]


def dedup_key(task: SolveTask) -> str:
    """Equal for bugs that are the same in effect: same changed files, same changed lines up to
    layout, same failing tests."""
    changes = []
    for file in PatchSet(task.artifact.bug_patch):
        for hunk in file:
            for line in hunk:
                if not line.is_context:
                    changes.append((file.path, line.line_type, _normalised(line.value)))
    document = json.dumps([sorted(changes), sorted(task.fail_to_pass)])
    return sha256(document.encode("utf-8", "surrogateescape")).hexdigest()


def _normalised(line: str) -> str:
    """A line up to layout: through the syntax tree where it parses alone, else without blanks."""
    text = line.strip()
    try:
        return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError):
        return "".join(text.split())


