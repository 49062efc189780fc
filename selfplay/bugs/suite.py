"""Suites: bugs as JSON Lines with SWE-bench's field names (interface.md, "Suites")."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.bugs.patch import reverse_patch
from selfplay.errors import PatchError, UserError
from selfplay.run_dir import write_atomic
from selfplay.types import BugArtifact, Limits, SolveTask

TEXTS = (
    "instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement",
    "test_script", "test_parser",
)  # fmt: skip
LISTS = ("FAIL_TO_PASS", "PASS_TO_PASS", "test_files")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteTask:
    """One line of a suite.

    `environment` says how the sandbox is made: {"repo": name of a specification, "source": ...,
    "install": ...}. In SWE-bench's terms the base commit is the *buggy* tree, `patch` the gold
    patch, `test_patch` the oracle test patch; the bug patch is the reverse of the gold patch.
    """

    solve_task: SolveTask
    base_commit: str
    environment: Mapping[str, Any]


def write_suite(tasks: Sequence[SuiteTask], path: Path) -> None:
    """Write a suite whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_to_line(task), ensure_ascii=True) for task in tasks]
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_suite(path: Path) -> list[SuiteTask]:
    """Read and check a suite. Raises `UserError` that names file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"suite={path}: cannot be read ({error})") from None
    tasks = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            tasks.append(_from_line(line, f"{path}:{number}"))
    return tasks


def _to_line(suite_task: SuiteTask) -> dict[str, Any]:
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


def _from_line(line: str, where: str) -> SuiteTask:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not a JSON object ({error})") from None
    if not isinstance(document, dict):
        raise UserError(f"{where}: not a JSON object")
    for name in (*TEXTS, *LISTS):
        value = document.get(name)
        good = isinstance(value, str) if name in TEXTS else _is_list(value)
        if not good:
            kind = "a string" if name in TEXTS else "a list of strings"
            raise UserError(f"{where}: field {name} must be {kind}, got {value!r:.60}")
    environment = document.get("environment")
    if not isinstance(environment, dict):
        raise UserError(f"{where}: field environment must be an object")
    try:
        artifact = BugArtifact(
            test_script=document["test_script"],
            test_files=tuple(document["test_files"]),
            test_parser=document["test_parser"],
            bug_patch=reverse_patch(document["patch"]),
            weakening_patch=reverse_patch(document["test_patch"]),
            meta=document.get("meta") or {},
        )
        limits = Limits(**(document.get("limits") or {}))
    except (PatchError, TypeError) as error:
        raise UserError(f"{where}: {error}") from None
    task = SolveTask(
        bug_id=document["instance_id"],
        repo=document["repo"],
        artifact=artifact,
        fail_to_pass=tuple(document["FAIL_TO_PASS"]),
        pass_to_pass=tuple(document["PASS_TO_PASS"]),
        problem_statement=document["problem_statement"],
        failure_output=str(document.get("failure_output") or ""),
        limits=limits,
    )
    return SuiteTask(
        solve_task=task, base_commit=document["base_commit"], environment=environment
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
