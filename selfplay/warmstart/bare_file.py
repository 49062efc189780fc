"""The file of bare repairs, written one file of the sources after the other: cut off, it goes on.

`bare.jsonl` holds whole source files' examples but for the last one's; `bare.plan` says which seed,
model and sources they are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfplay.files import (
    append_json_lines,
    encode_json,
    read_json_lines,
    repair_json_lines,
    write_atomic,
)


class BareFile:
    """Examples in `file`; those of another `plan` (plain types) are dropped, and so are those of
    the source file at which an earlier command was cut off."""

    def __init__(self, file: Path, plan: object) -> None:
        self._file, told = file, file.with_suffix(".plan")
        if not told.is_file() or told.read_bytes() != encode_json(plan):
            file.unlink(missing_ok=True)
            write_atomic(told, encode_json(plan))
        repair_json_lines(file, file.with_name(f"{file.name}.torn"))
        lines = [line for _, line in read_json_lines(file)]
        cut = source_file(lines[-1]) if lines else ""
        self._waiting: list[Mapping[str, Any]] = []
        self._num = sum(source_file(line) != cut for line in lines)
        self.last_file = source_file(lines[self._num - 1]) if self._num else ""
        """SOURCE/PATH of the last whole one, "" for none."""
        write_atomic(file, b"".join(encode_json(line) + b"\n" for line in lines[: self._num]))

    def __len__(self) -> int:
        return self._num

    def add(self, line: Mapping[str, Any]) -> None:
        """One more example; those of a source file are written together."""
        if self._waiting and source_file(self._waiting[-1]) != source_file(line):
            self.end()
        self._waiting.append(line)
        self._num += 1

    def end(self) -> None:
        """Write what waits."""
        append_json_lines(self._file, self._waiting)
        self._waiting = []


def source_file(line: Mapping[str, Any]) -> str:
    """SOURCE/PATH of an example's line."""
    return str(line["function"]).rpartition("::")[0]
