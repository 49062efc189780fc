"""Suites: bugs as JSON Lines with SWE-bench's field names (docs/formats.md)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfplay.bugs.patches.diffs import check_path, reverse_patch
from selfplay.corpus.readers.foreign import completed
from selfplay.corpus.readers.rows import rows_of
from selfplay.errors import PatchError, UserError
from selfplay.files import encode_json, write_atomic
from selfplay.records import from_plain
from selfplay.types import BugArtifact, Limits, SolveTask

NEVER_EMPTY = ("instance_id", "repo", "patch", "test_script", "test_parser", "FAIL_TO_PASS",
               "test_files")  # fmt: skip
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteTask:
    """One line of a suite.

    `environment` says how the sandbox is made: {"repo": name of a specification, "source": ...,
    "install": [...]}. In SWE-bench's terms the base commit is the *buggy* tree, `patch` the gold
    patch and `test_patch` the oracle test patch: the reverses of the artifact's two patches. For
    planted bugs, whose buggy tree is no commit anywhere, `base_commit` names the original.
    """

    solve_task: SolveTask
    base_commit: str
    environment: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line as it stands in the file."""

    instance_id: str
    repo: str
    base_commit: str
    patch: str
    test_patch: str
    problem_statement: str
    FAIL_TO_PASS: tuple[str, ...]
    PASS_TO_PASS: tuple[str, ...]
    environment: Mapping[str, Any]
    test_script: str
    test_parser: str
    test_files: tuple[str, ...]
    failure_output: str = ""
    limits: Limits = field(default_factory=Limits)
    meta: Mapping[str, Any] = field(default_factory=dict)


def write_suite(
    tasks: Sequence[SuiteTask],
    path: Path,
    more: Callable[[SuiteTask], Mapping[str, Any]] = lambda task: {},
) -> None:
    """Write a suite whole or not at all; `more`: further keys of a line, for other readers.

    Raises `UserError` when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    write_atomic(
        path, b"".join(encode_json({**to_line(task), **more(task)}) + b"\n" for task in tasks)
    )


def read_suite(path: Path) -> list[SuiteTask]:
    """Read and check a suite, of ours or of others (`corpus/readers/`).

    Raises `UserError` that names file, line and field.
    """
    tasks: dict[str, SuiteTask] = {}
    for where, document in rows_of(path):
        try:
            task = from_line(completed(document))
        except UserError as error:
            raise UserError(f"{where}:{error}") from None
        name = task.solve_task.bug_id
        if name in tasks:
            raise UserError(f"{where}:instance_id: {name!r} was there before")
        tasks[name] = task
    return list(tasks.values())


def to_line(suite_task: SuiteTask) -> dict[str, Any]:
    """The JSON object of a task."""
    task, artifact = suite_task.solve_task, suite_task.solve_task.artifact
    return {
        "instance_id": task.bug_id,
        "repo": task.repo,
        "base_commit": suite_task.base_commit,
        "patch": reverse_patch(artifact.bug_patch),
        "test_patch": reverse_patch(artifact.weakening_patch),
        "problem_statement": task.problem_statement,
        "FAIL_TO_PASS": list(task.fail_to_pass),
        "PASS_TO_PASS": list(task.pass_to_pass),
        "environment": dict(suite_task.environment),
        "test_script": artifact.test_script,
        "test_parser": artifact.test_parser,
        "test_files": list(artifact.test_files),
        "failure_output": task.failure_output,
        "limits": dataclasses.asdict(task.limits),
        "meta": dict(artifact.meta),
    }


def from_line(document: Any) -> SuiteTask:
    """Inverse of `to_line`; keys that are not known are left alone.

    `failure_output`, `limits` and `meta` may be missing. Raises `UserError` that begins with the
    field.
    """
    if not isinstance(document, dict):
        raise UserError(" not a JSON object")
    line = from_plain(_Line, document)
    for name in NEVER_EMPTY:
        if not getattr(line, name):
            raise UserError(f"{name}: is empty")
    if not _ID.fullmatch(line.instance_id):
        raise UserError(
            f"instance_id: {line.instance_id!r} must be made of letters, digits and _.+-"
        )
    both = set(line.FAIL_TO_PASS) & set(line.PASS_TO_PASS)
    if both:
        raise UserError(f"PASS_TO_PASS: {min(both)!r} is in FAIL_TO_PASS too")
    known = [field.name for field in dataclasses.fields(Limits)]
    for name in document.get("limits", {}):
        if name not in known:
            raise UserError(f"limits: {name!r} is unknown; one of: {', '.join(known)}")
    artifact = BugArtifact(
        test_script=line.test_script,
        test_files=tuple(_checked("test_files", check_path, path) for path in line.test_files),
        test_parser=line.test_parser,
        bug_patch=_checked("patch", reverse_patch, line.patch),
        weakening_patch=_checked("test_patch", reverse_patch, line.test_patch),
        meta=line.meta,
    )
    task = SolveTask(
        bug_id=line.instance_id,
        repo=line.repo,
        artifact=artifact,
        fail_to_pass=line.FAIL_TO_PASS,
        pass_to_pass=line.PASS_TO_PASS,
        problem_statement=line.problem_statement,
        failure_output=line.failure_output,
        limits=line.limits,
    )
    return SuiteTask(solve_task=task, base_commit=line.base_commit, environment=line.environment)


def _checked(name: str, check: Any, value: str) -> str:
    try:
        return str(check(value))
    except PatchError as error:
        raise UserError(f"{name}: {error}") from None
