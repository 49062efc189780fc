"""Test runs of the original code, kept in the corpus: who resumes need not repeat them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from selfplay.corpus.database import Database


class RunCache(MutableMapping[str, str]):
    """Test runs of the original code by key, in the corpus file: a mapping of text to text."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, key: str) -> str:
        rows = self._database.read("SELECT value FROM run_cache WHERE key = ?", (key,))
        if not rows:
            raise KeyError(key)
        return str(rows[0][0])

    def __setitem__(self, key: str, value: str) -> None:
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO run_cache VALUES (?,?)", (key, value))

    def __delitem__(self, key: str) -> None:
        with self._database.write() as connection:
            done = connection.execute("DELETE FROM run_cache WHERE key = ?", (key,))
            if not done.rowcount:
                raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter([row[0] for row in self._database.read("SELECT key FROM run_cache")])

    def __len__(self) -> int:
        return int(self._database.read("SELECT COUNT(*) FROM run_cache")[0][0])
