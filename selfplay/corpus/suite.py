"""Suites: bugs as JSON Lines with SWE-bench's field names (docs/formats.md)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.bugs.patches.diffs import check_path, reverse_patch
from selfplay.errors import PatchError, UserError
from selfplay.files import encode_json, write_atomic
from selfplay.types import BugArtifact, Limits, SolveTask

TEXTS = (
    "instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement",
    "test_script", "test_parser",
)  # fmt: skip
LISTS = ("FAIL_TO_PASS", "PASS_TO_PASS", "test_files")
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
    """Read and check a suite. Raises `UserError` that names file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"suite={path}: cannot be read ({error})") from None
    tasks: dict[str, SuiteTask] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not a JSON object ({error})") from None
        try:
            task = from_line(document)
        except UserError as error:
            raise UserError(f"{path}:{number}:{error}") from None
        name = task.solve_task.bug_id
        if name in tasks:
            raise UserError(f"{path}:{number}:instance_id: {name!r} was there before")
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

    Lists may be JSON text, as in SWE-bench's own files; `failure_output`, `limits` and `meta` may
    be missing. Raises `UserError` that begins with the field.
    """
    if not isinstance(document, dict):
        raise UserError(" not a JSON object")
    lists = {name: _list(document, name) for name in LISTS}
    texts = {name: _text(document, name) for name in TEXTS}
    for name, value in {**texts, **lists}.items():
        if name in NEVER_EMPTY and not value:
            raise UserError(f"{name}: is empty")
    if not _ID.fullmatch(texts["instance_id"]):
        raise UserError(
            f"instance_id: {texts['instance_id']!r} must be made of letters, digits and _.+-"
        )
    both = set(lists["FAIL_TO_PASS"]) & set(lists["PASS_TO_PASS"])
    if both:
        raise UserError(f"PASS_TO_PASS: {min(both)!r} is in FAIL_TO_PASS too")
    artifact = BugArtifact(
        test_script=texts["test_script"],
        test_files=tuple(_checked("test_files", check_path, path) for path in lists["test_files"]),
        test_parser=texts["test_parser"],
        bug_patch=_checked("patch", reverse_patch, texts["patch"]),
        weakening_patch=_checked("test_patch", reverse_patch, texts["test_patch"]),
        meta=_object(document, "meta", {}),
    )
    task = SolveTask(
        bug_id=texts["instance_id"],
        repo=texts["repo"],
        artifact=artifact,
        fail_to_pass=tuple(lists["FAIL_TO_PASS"]),
        pass_to_pass=tuple(lists["PASS_TO_PASS"]),
        problem_statement=texts["problem_statement"],
        failure_output=_text(document, "failure_output", ""),
        limits=_limits(_object(document, "limits", {})),
    )
    return SuiteTask(
        solve_task=task,
        base_commit=texts["base_commit"],
        environment=_object(document, "environment"),
    )


def _text(document: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = document.get(name, default)
    if not isinstance(value, str):
        raise UserError(f"{name}: {_problem(document, name)}, must be a string")
    return value


def _list(document: Mapping[str, Any], name: str) -> list[str]:
    value = document.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{name}: {_problem(document, name)}, must be a list of strings")
    return value


def _object(
    document: Mapping[str, Any], name: str, default: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    value = document.get(name, default)
    if not isinstance(value, dict):
        raise UserError(f"{name}: {_problem(document, name)}, must be an object")
    return value


def _problem(document: Mapping[str, Any], name: str) -> str:
    return f"is {json.dumps(document[name])[:60]}" if name in document else "is missing"


def _checked(name: str, check: Any, value: str) -> str:
    try:
        return str(check(value))
    except PatchError as error:
        raise UserError(f"{name}: {error}") from None


def _limits(values: Mapping[str, Any]) -> Limits:
    known = {field.name: field.type for field in dataclasses.fields(Limits)}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"limits: {name!r} is unknown; one of: {', '.join(known)}")
        if known[name] == "bool":
            if not isinstance(value, bool):
                raise UserError(f"limits: {name} is {value!r}, must be true or false")
            continue
        whole = known[name] == "int"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise UserError(f"limits: {name} is {value!r}, must be a number")
    return Limits(**values)
