"""The corpus: every valid bug, its ancestry and the attempts on it, in one SQLite file.

All writes are idempotent by id: a step that is repeated after a kill changes nothing. A bug that
is the same in effect as one of an earlier step is turned down (`bugs/dedup.py`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from selfplay.bugs.artifact import write_artifact
from selfplay.corpus.database import Database
from selfplay.corpus.dedup import Fingerprint, fingerprint
from selfplay.corpus.run_cache import RunCache
from selfplay.corpus.worth import BugWorth, worth_of_bugs
from selfplay.errors import UserError
from selfplay.records import from_plain, to_plain
from selfplay.types import SolveTask, Target

Origin = Literal["model", "procedural", "mined", "given"]
GIVEN = ("mined", "given")
"""Origins of tasks that nobody planted in a run."""
DIFFICULTIES = ("unattempted", "never", "hard", "medium", "easy", "always")
COLUMNS = ("repo", "path", "function", "strategy", "origin", "difficulty")
MAX_SAME_FAILURES = 4
"""Bugs with the same touched functions and failing tests that one corpus keeps."""

_RATE = "(SELECT AVG(resolved) FROM attempts a WHERE a.bug_id = b.bug_id AND NOT a.errored{when})"
_BUG = f"SELECT b.*, n.parent, {_RATE.format(when='')} AS solve_rate FROM bugs b"
_BUG += " LEFT JOIN ancestry n ON n.bug_id = b.bug_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBug:
    """One bug: its task and where it came from.

    functions    "path::qualname" of the functions that it touches
    parent       the bug that a higher-order bug grew from
    solve_rate   share of resolved attempts, None before any was judged
    """

    task: SolveTask
    origin: str
    strategy: str
    target: Target
    step: int
    functions: tuple[str, ...]
    parent: str | None
    solve_rate: float | None

    @property
    def difficulty(self) -> str:
        """One of `DIFFICULTIES`: never 0, hard to 0.25, medium to 0.75, easy below 1, always 1."""
        return difficulty(self.solve_rate)


class Corpus:
    """The corpus of one run, or of one `inject` directory. Thread-safe; one process writes.

    Raises `UserError` when the file cannot be opened or another process writes it.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._database = Database(path, read_only=read_only)
        self.run_cache = RunCache(self._database)

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
        self._database.close()

    def add_bug(
        self,
        task: SolveTask,
        *,
        origin: str,
        strategy: str,
        target: Target,
        step: int,
        parent: str | None = None,
        parent_episode: str | None = None,
        tree: Path | None = None,
        given: bool = False,
    ) -> bool:
        """Store a valid bug; False when it is a duplicate, and nothing is stored.

        `tree`, the original source, sharpens the comparison. The very same bug of the same step is
        no duplicate (a repeated step), nor is one that is `given` from outside. `parent` and the
        failed attempt `parent_episode` name what a higher-order bug grew from. Raises `PatchError`
        for a malformed bug patch.
        """
        found = fingerprint(task, target, tree)
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT step FROM bugs WHERE bug_id = ?", (task.bug_id,)
            ).fetchone()
            if row is not None:
                if row[0] > step:
                    moved = (step, task.bug_id)
                    connection.execute("UPDATE bugs SET step = ? WHERE bug_id = ?", moved)
                return bool(row[0] >= step)
            if not given and _is_duplicate(connection, task.repo, found, step):
                return False
            connection.execute(
                "INSERT INTO bugs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    task.bug_id, task.repo, origin, strategy, target.path, target.function,
                    target.commit, step, json.dumps(found.functions), found.change, found.tree,
                    found.failure, json.dumps(to_plain(task)),
                ),
            )  # fmt: skip
            if parent is not None:
                connection.execute(
                    "INSERT INTO ancestry VALUES (?,?,?)", (task.bug_id, parent, parent_episode)
                )
        return True

    def add_attempts(
        self, bug_id: str, attempts: Sequence[Mapping[str, Any]], *, step: int
    ) -> None:
        """Store attempts ({episode_id, resolved, errored, reason, patch}) on one bug.

        Those of the same bug and step are replaced: a repeated step counts once.
        """
        rows = [
            (
                attempt["episode_id"], bug_id, step, int(attempt["resolved"]),
                int(attempt["errored"]), json.dumps(attempt["reason"]),
                json.dumps(attempt["patch"]),
            )
            for attempt in attempts
        ]  # fmt: skip
        with self._database.write() as connection:
            connection.execute("DELETE FROM attempts WHERE bug_id = ? AND step = ?", (bug_id, step))
            connection.executemany("INSERT OR REPLACE INTO attempts VALUES (?,?,?,?,?,?,?)", rows)

    def add_probabilities(self, probabilities: Mapping[str, float], *, step: int) -> None:
        """Store {bug id: probability of its gold answer} under the solver of a step. The first one
        of a bug counts; a repeated step changes nothing."""
        rows = [(bug_id, step, value) for bug_id, value in probabilities.items()]
        with self._database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO probabilities VALUES (?,?,?)", rows)

    def attempts(self, bug_id: str) -> list[dict[str, Any]]:
        """Attempts on a bug in the order of their steps, with the keys of `add_attempts`."""
        rows = self._database.read(
            "SELECT episode_id, step, resolved, errored, reason, patch FROM attempts "
            "WHERE bug_id = ? ORDER BY step, episode_id",
            (bug_id,),
        )
        return [
            {
                "episode_id": episode_id,
                "step": step,
                "resolved": bool(resolved),
                "errored": bool(errored),
                "reason": json.loads(reason),
                "patch": json.loads(patch),
            }
            for episode_id, step, resolved, errored, reason, patch in rows
        ]

    def bugs(self, repo: str | None = None) -> list[StoredBug]:
        """All bugs in the order of their finding."""
        rows = self._database.read(
            f"{_BUG} WHERE ? IS NULL OR b.repo = ? ORDER BY b.step, b.rowid", (repo, repo)
        )
        return [_stored(row) for row in rows]

    def bug(self, bug_id: str) -> StoredBug | None:
        """One bug, None when there is none of that id."""
        rows = self._database.read(f"{_BUG} WHERE b.bug_id = ?", (bug_id,))
        return _stored(rows[0]) if rows else None

    def num_bugs(self) -> int:
        """How many bugs there are."""
        return int(self._database.read("SELECT COUNT(*) FROM bugs")[0][0])

    def num_grown(self) -> int:
        """How many of them are higher-order bugs."""
        return int(self._database.read("SELECT COUNT(*) FROM ancestry")[0][0])

    def counts_by(self, column: str, *, planted: bool = False) -> dict[str, int]:
        """Number of bugs by one of `COLUMNS`, the largest first; `planted`: of order 1,
        and nobody's real bug."""
        if column not in COLUMNS:
            raise ValueError(f"no statistics by {column!r}; one of: {', '.join(COLUMNS)}")
        if column == "difficulty":
            rates = self._database.read(f"SELECT {_RATE.format(when='')} FROM bugs b")
            counts = dict.fromkeys(DIFFICULTIES, 0)
            for (rate,) in rates:
                counts[difficulty(rate)] += 1
            return {name: number for name, number in counts.items() if number}
        where = ""
        if planted:
            where = f"WHERE origin NOT IN {GIVEN} AND bug_id NOT IN (SELECT bug_id FROM ancestry)"
        rows = self._database.read(
            f"SELECT {column}, COUNT(*) n FROM bugs {where} GROUP BY 1 ORDER BY n DESC, 1"
        )
        return {str(name): int(number) for name, number in rows}

    def counts_by_function(self, *, before_step: int | None = None) -> dict[str, dict[str, int]]:
        """{repo: {"path::function": bugs seeded there}}, of steps before `before_step`."""
        rows = self._database.read(
            "SELECT repo, path || '::' || function f, COUNT(*) FROM bugs "
            "WHERE ?1 IS NULL OR step < ?1 GROUP BY repo, f",
            (before_step,),
        )
        counts: dict[str, dict[str, int]] = {}
        for repo, function, number in rows:
            counts.setdefault(repo, {})[function] = number
        return counts

    def solve_rates(self, *, before_step: int | None = None) -> dict[str, float]:
        """{bug id: share of resolved attempts} for bugs with at least one judged attempt."""
        rows = self._database.read(
            "SELECT bug_id, AVG(resolved) FROM attempts WHERE NOT errored AND "
            "(?1 IS NULL OR step < ?1) GROUP BY bug_id ORDER BY bug_id",
            (before_step,),
        )
        return {bug_id: float(rate) for bug_id, rate in rows}

    def lessons(
        self,
        *,
        before_step: int,
        group_size: int = 8,
        value: Callable[[BugWorth], float | None] = lambda bug: bug.worth,
    ) -> dict[tuple[str, str], tuple[float, float]]:
        """{(strategy, kind asked for): (what its bugs are worth, what they fall short of 1)}, of
        steps before `before_step`. By default a bug is worth 1 whose first group of attempts had
        both outcomes, or the chance of it (`chance_of_both`)."""
        found: dict[tuple[str, str], tuple[float, float]] = {}
        for bug in worth_of_bugs(self._database, before_step, group_size):
            if bug.kind is not None and (worth := value(bug)) is not None:
                varied, flat = found.get((bug.strategy, bug.kind), (0.0, 0.0))
                found[bug.strategy, bug.kind] = (varied + worth, flat + 1.0 - worth)
        return found

    def worth_by_function(
        self,
        *,
        before_step: int,
        group_size: int = 8,
        value: Callable[[BugWorth], float | None] = lambda bug: (
            bug.worth if bug.is_screened else None
        ),
    ) -> dict[str, dict[str, tuple[float, float]]]:
        """{repo: {"path::function": (worth, what it falls short)}}, as in `lessons`; by default of
        bugs that were screened."""
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for bug in worth_of_bugs(self._database, before_step, group_size):
            if (worth := value(bug)) is not None:
                places = found.setdefault(bug.repo, {})
                varied, flat = places.get(bug.function, (0.0, 0.0))
                places[bug.function] = (varied + worth, flat + 1.0 - worth)
        return found

    def counts_by_strategy(self, *, before_step: int) -> dict[str, dict[str, int]]:
        """{repo: {strategy: planted bugs}}, of steps before `before_step`."""
        rows = self._database.read(
            "SELECT repo, strategy, COUNT(*) FROM bugs WHERE step < ? AND "
            "bug_id NOT IN (SELECT bug_id FROM ancestry) GROUP BY repo, strategy",
            (before_step,),
        )
        counts: dict[str, dict[str, int]] = {}
        for repo, strategy, number in rows:
            counts.setdefault(repo, {})[strategy] = number
        return counts

    def replay_candidates(
        self, *, before_step: int, low: float, high: float, max_replays: int | None = None
    ) -> list[SolveTask]:
        """Bugs of earlier steps with a solve rate in [low, high], the least often solved first;
        none that was replayed `max_replays` times (attempted in one step more).

        A function of what was stored before `before_step` alone.
        """
        when = " AND a.step < ?1"
        times = f"(SELECT COUNT(DISTINCT a.step) FROM attempts a WHERE a.bug_id = b.bug_id{when})"
        rows = self._database.read(
            f"SELECT task FROM bugs b WHERE step < ?1 AND {_RATE.format(when=when)} "
            f"BETWEEN ?2 AND ?3 AND (?4 IS NULL OR {times} <= ?4) ORDER BY {times}, bug_id",
            (before_step, low, high, max_replays),
        )
        return [_task(task) for (task,) in rows]

    def untried_children(self, *, before_step: int) -> list[SolveTask]:
        """Higher-order bugs of earlier steps that no earlier step has attempted."""
        rows = self._database.read(
            "SELECT task FROM bugs b JOIN ancestry n ON n.bug_id = b.bug_id WHERE b.step < ?1 AND "
            "NOT EXISTS (SELECT 1 FROM attempts a WHERE a.bug_id = b.bug_id AND a.step < ?1) "
            "ORDER BY b.step, b.bug_id",
            (before_step,),
        )
        return [_task(task) for (task,) in rows]

    def failing_sets(self, repo: str, *, before_step: int) -> set[frozenset[str]]:
        """FAIL_TO_PASS of the bugs of one repository from earlier steps."""
        rows = self._database.read(
            "SELECT task FROM bugs WHERE repo = ? AND step < ?", (repo, before_step)
        )
        return {frozenset(_task(t).fail_to_pass) for (t,) in rows}


def store_bug(
    corpus: Corpus,
    folder: Path,
    task: SolveTask,
    *,
    origin: str,
    strategy: str,
    target: Target,
    step: int,
    tree: Path,
    parent: str | None = None,
    parent_episode: str | None = None,
    given: bool = False,
) -> bool:
    """`Corpus.add_bug` of the corpus in `folder`, behind `artifacts/<bug id>/` there.

    The artifact directory is written first, so that every row of the corpus has one.
    """
    write_artifact(task.artifact, folder / "artifacts" / task.bug_id)
    return corpus.add_bug(
        task,
        origin=origin,
        strategy=strategy,
        target=target,
        step=step,
        parent=parent,
        parent_episode=parent_episode,
        tree=tree,
        given=given,
    )


def difficulty(solve_rate: float | None) -> str:
    """The class of `DIFFICULTIES` that a solve rate falls in."""
    if solve_rate is None:
        return "unattempted"
    if solve_rate in (0.0, 1.0):
        return "never" if solve_rate == 0.0 else "always"
    if solve_rate <= 0.25:
        return "hard"
    return "medium" if solve_rate <= 0.75 else "easy"


def _is_duplicate(connection: sqlite3.Connection, repo: str, found: Fingerprint, step: int) -> bool:
    """Whether a bug of this or an earlier step is the same in effect."""
    same = connection.execute(
        "SELECT COUNT(*) FROM bugs WHERE repo = ?1 AND step <= ?2 AND "
        "(change = ?3 OR (tree = ?4 AND tree <> ''))",
        (repo, step, found.change, found.tree),
    ).fetchone()[0]
    alike = connection.execute(
        "SELECT COUNT(*) FROM bugs WHERE repo = ?1 AND step <= ?2 AND failure = ?3",
        (repo, step, found.failure),
    ).fetchone()[0]
    return bool(same or alike >= MAX_SAME_FAILURES)


def _task(text: str) -> SolveTask:
    """A stored task. Raises `UserError` where it does not fit this version."""
    try:
        return from_plain(SolveTask, json.loads(text))
    except UserError as error:
        raise UserError(f"corpus: a stored bug does not fit this version: {error}") from None


def _stored(row: Sequence[Any]) -> StoredBug:
    (_, _, origin, strategy, path, function, commit, step, functions, _, _, _, task) = row[:13]
    return StoredBug(
        task=_task(task),
        origin=origin,
        strategy=strategy,
        target=Target(path=path, function=function, commit=commit),
        step=step,
        functions=tuple(json.loads(functions)),
        parent=row[13],
        solve_rate=row[14],
    )
