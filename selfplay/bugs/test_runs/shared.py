"""Runs of the original code that several processes of one run share: a file for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfplay.files import write_atomic


@dataclass(frozen=True, slots=True)
class SharedRuns:
    """Texts by key, as far as `TestRunner.originals` asks for them."""

    folder: Path

    def get(self, key: str) -> str | None:
        """What was kept under the key, None: nothing."""
        try:
            return (self.folder / key).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def __setitem__(self, key: str, text: str) -> None:
        write_atomic(self.folder / key, text.encode("utf-8"))
