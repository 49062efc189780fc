"""The canary: a test that must fail, run along with every graded run.

Its name depends on the code that is graded, so nobody who writes that code can spell it, and equal
code asks for the same run. What it looks like is the framework's matter (`grading/canaries.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from selfplay.bugs.test_runs.scripts import with_targets
from selfplay.types import FileChange, Layer, SolveTask, TestTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The state and the script with the canary in them; `test_id` is its id without parameters."""

    test_id: str
    layer: Layer
    script: str

    def failed(self, table: TestTable) -> bool:
        """Whether the canary ran and failed, with all its parameters."""
        statuses = [
            status
            for test, status in table.items()
            if test == self.test_id or test.startswith(f"{self.test_id}[")
        ]
        return bool(statuses) and set(statuses) == {"failed"}


def in_own_file(task: SolveTask, layer: Layer, file: str, text: str, name: str) -> Canary:
    """A canary in a new file beside the first oracle test file."""
    folder = PurePosixPath(task.artifact.test_files[0]).parent
    path = (folder / file).as_posix().removeprefix("./")
    return Canary(
        test_id=f"{path}::{name}",
        layer={**layer, path: FileChange(content=text.encode())},
        script=with_targets(task.artifact.test_script, [path]),
    )
