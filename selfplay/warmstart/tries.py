"""What became of each try of a warm start, so that one that was killed goes on.

A line is written after the try's examples: {"task_id", "repo", "valid", "num_lines"}, where
`num_lines` counts the examples so far. Examples beyond the last line are of a try that was cut off;
they are dropped, and the try is made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.files import (
    append_json_lines,
    encode_json,
    read_json_lines,
    repair_json_lines,
    write_atomic,
)


class Tries:
    """The tries of one seed, beside the file of their examples."""

    def __init__(self, file: Path, examples: Path, seed: int) -> None:
        self._file, self._examples, self._seed = file, examples, seed
        repair_json_lines(file, file.with_name(f"{file.name}.torn"))
        self._lines = [line for _, line in read_json_lines(file)]
        if any(line["seed"] != seed for line in self._lines):
            file.unlink()
            self._lines = []
        self._num_lines = self._lines[-1]["num_lines"] if self._lines else 0
        kept = [line for _, line in read_json_lines(examples)][: self._num_lines]
        if len(kept) < self._num_lines:  # the examples were deleted: all is done again
            file.unlink(missing_ok=True)
            self._lines, self._num_lines, kept = [], 0, []
        write_atomic(examples, b"".join(encode_json(line) + b"\n" for line in kept))

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def num_valid(self) -> int:
        """Tries that gave a bug."""
        return sum(line["valid"] for line in self._lines)

    def done(self, repo: str) -> set[str]:
        """Ids of the tasks of a repository that were tried."""
        return {line["task_id"] for line in self._lines if line["repo"] == repo}

    def keep(
        self, repo: str, task_id: str, valid: bool, examples: Sequence[Mapping[str, Any]]
    ) -> None:
        """Store a try with its examples."""
        append_json_lines(self._examples, examples)
        self._num_lines += len(examples)
        line = {"repo": repo, "task_id": task_id, "valid": valid, "seed": self._seed}
        line["num_lines"] = self._num_lines
        append_json_lines(self._file, [line])
        self._lines.append(line)
