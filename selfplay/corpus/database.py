"""The corpus file: SQLite with a write-ahead log, one writer, faults told apart.

What a write has returned survives kill -9 and a power cut (synchronous=FULL).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfplay.errors import InfrastructureError, UserError
from selfplay.files import take_lock

VERSION = 1
SCHEMA = """
CREATE TABLE bugs (
    bug_id TEXT PRIMARY KEY, repo TEXT NOT NULL, origin TEXT NOT NULL, strategy TEXT NOT NULL,
    path TEXT NOT NULL, function TEXT NOT NULL, commit_id TEXT, step INTEGER NOT NULL,
    functions TEXT NOT NULL, change TEXT NOT NULL, tree TEXT NOT NULL, failure TEXT NOT NULL,
    task TEXT NOT NULL
);
CREATE INDEX bugs_by_change ON bugs (repo, change);
CREATE INDEX bugs_by_tree ON bugs (repo, tree);
CREATE INDEX bugs_by_failure ON bugs (repo, failure);
CREATE TABLE ancestry (
    bug_id TEXT PRIMARY KEY REFERENCES bugs, parent TEXT NOT NULL REFERENCES bugs,
    episode_id TEXT
);
CREATE TABLE attempts (
    episode_id TEXT PRIMARY KEY, bug_id TEXT NOT NULL REFERENCES bugs, step INTEGER NOT NULL,
    resolved INTEGER NOT NULL, errored INTEGER NOT NULL, reason TEXT NOT NULL, patch TEXT NOT NULL
);
CREATE INDEX attempts_of_bug ON attempts (bug_id, step);
CREATE TABLE run_cache (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

LATER = """
CREATE TABLE IF NOT EXISTS probabilities (
    bug_id TEXT PRIMARY KEY REFERENCES bugs, step INTEGER NOT NULL, probability REAL NOT NULL
) WITHOUT ROWID;
"""
"""Tables that a file of an earlier release gets when it is opened for writing; who reads that file
with the earlier release does not miss them."""


class Database:
    """One connection, shared by threads under a lock. Raises `UserError` when it cannot be opened:
    no such file, not a corpus, another version, or another process writes it."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path
        self._guard = threading.RLock()
        self._lock = -1
        if read_only and not path.is_file():
            raise UserError(f"corpus {path}: no such file")
        try:
            if read_only:
                self._connection = self._open_to_read()
            else:
                self._lock = take_lock(path.with_name(f"{path.name}.lock"), f"corpus {path}")
                self._connection = self._open_to_write()
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise UserError(f"corpus {path}: cannot be opened ({error})") from None
        if version != VERSION:
            self.close()
            raise UserError(
                f"corpus {path}: has format {version}, this version reads {VERSION}; start another "
                "run directory, or export it with the version that wrote it"
            )

    def close(self) -> None:
        """Close the file and give the lock back. Idempotent."""
        with self._guard:
            self._connection.close()
            self._unlock()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on disk when the block ends, undone when it raises.

        Raises `InfrastructureError` when the file cannot be written (disk full).
        """
        with self._guard:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise InfrastructureError(f"corpus {self._path}: {error}") from error

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        with self._guard:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise InfrastructureError(f"corpus {self._path}: {error}") from error

    def _open_to_write(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=30, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
            connection.executescript(LATER)
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        """Read-only; a file in a directory that cannot be written has no use for the log."""
        whole = "" if os.access(self._path.parent, os.W_OK) else "&immutable=1"
        address = f"{self._path.absolute().as_uri()}?mode=ro{whole}"
        return sqlite3.connect(address, uri=True, timeout=30, check_same_thread=False)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
