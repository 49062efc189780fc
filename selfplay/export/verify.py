"""The round trip that every exported bug must pass: gold +1, empty -1, test-deleting -1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs.patch import make_patch, reverse_patch
from selfplay.bugs.sealing import sealed_layer
from selfplay.types import FileChange, GradeReport, SolveTask

Judge = Callable[[SolveTask, str], GradeReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """Rewards of the three patches; `problem` names the first that is wrong, "" when none is."""

    gold: int
    empty: int
    deleting: int

    @property
    def passed(self) -> bool:
        """Whether the bug means what it says."""
        return not self.problem

    @property
    def problem(self) -> str:
        """The first wrong verdict."""
        if self.gold != 1:
            return "the gold patch is not resolved"
        if self.empty != -1:
            return "the empty patch is resolved"
        return "" if self.deleting == -1 else "a test-deleting patch is resolved"


def verify_task(task: SolveTask, tree: Path, judge: Judge) -> RoundTrip:
    """Grade the three patches. Infrastructure errors pass through."""
    sealed = sealed_layer(tree, task.artifact)
    deleted = {path: FileChange(content=None) for path in task.artifact.test_files}
    return RoundTrip(
        gold=judge(task, reverse_patch(task.artifact.bug_patch)).reward,
        empty=judge(task, "").reward,
        deleting=judge(task, make_patch(tree, sealed, {**sealed, **deleted})).reward,
    )
