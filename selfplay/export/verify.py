"""The round trip that every bug must pass: gold +1; empty, test-deleting, test-editing -1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs.patches.layers import make_patch, read_file, reverse_patch
from selfplay.bugs.sealing import sealed_layer
from selfplay.errors import PatchError
from selfplay.types import FileChange, GradeReport, SolveTask

Judge = Callable[[SolveTask, str], GradeReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """Rewards of the four patches; `problem` says what is wrong, "" when nothing is."""

    gold: int
    empty: int
    deleting: int
    editing: int
    problem: str

    @property
    def passed(self) -> bool:
        """Whether the bug means what it says."""
        return not self.problem


def verify_task(task: SolveTask, tree: Path, judge: Judge) -> RoundTrip:
    """Grade the four patches on the original `tree`. Infrastructure errors pass through."""
    try:
        gold = reverse_patch(task.artifact.bug_patch)
        reports = {
            "gold": judge(task, gold),
            "empty": judge(task, ""),
            "deleting": judge(task, deleting_patch(task, tree)),
            "editing": judge(task, editing_patch(task, tree)),
        }
    except PatchError as error:
        problem = f"the artifact does not fit the repository: {error}"
        return RoundTrip(gold=0, empty=0, deleting=0, editing=0, problem=problem)
    expected = {"gold": 1, "empty": -1, "deleting": -1, "editing": -1}
    names = {
        "gold": "the gold patch",
        "empty": "the empty patch",
        "deleting": "a patch that deletes the oracle tests",
        "editing": "a patch that makes the oracle tests pass by editing them",
    }
    problems = [
        f"{names[name]} gets {report.reward:+d} ({report.reason or 'resolved'})"
        for name, report in reports.items()
        if report.reward != expected[name]
    ]
    rewards = {name: report.reward for name, report in reports.items()}
    return RoundTrip(**rewards, problem="; ".join(problems))


def deleting_patch(task: SolveTask, tree: Path) -> str:
    """The fix patch that removes every oracle test file and repairs nothing."""
    sealed = sealed_layer(tree, task.artifact)
    deleted = {path: FileChange(content=None) for path in task.artifact.test_files}
    return make_patch(tree, sealed, {**sealed, **deleted})


def editing_patch(task: SolveTask, tree: Path) -> str:
    """The fix patch that gives every failing test an empty body and repairs nothing."""
    sealed = sealed_layer(tree, task.artifact)
    edited = {}
    for path in task.artifact.test_files:
        names = [t.split("::")[1:] for t in task.fail_to_pass if t.split("::")[0] == path]
        content = (read_file(tree, sealed, path) or b"") + b"\n\n"
        for parts in names:
            name = parts[-1].split("[")[0] if parts else "test"
            content += f"def {name}(*_: object) -> None:\n    pass\n\n".encode()
        edited[path] = FileChange(content=content)
    return make_patch(tree, sealed, {**sealed, **edited})
