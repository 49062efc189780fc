"""JSON forms of tasks and artifacts: what the corpus stores and suites exchange."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from selfplay.types import BugArtifact, Limits, SolveTask


def task_to_dict(task: SolveTask) -> dict[str, Any]:
    """A task as plain JSON types."""
    return dataclasses.asdict(task)


def task_from_dict(document: Mapping[str, Any]) -> SolveTask:
    """Inverse of `task_to_dict`."""
    artifact = document["artifact"]
    return SolveTask(
        **{
            **document,
            "artifact": BugArtifact(**{**artifact, "test_files": tuple(artifact["test_files"])}),
            "fail_to_pass": tuple(document["fail_to_pass"]),
            "pass_to_pass": tuple(document["pass_to_pass"]),
            "limits": Limits(**document["limits"]),
        }
    )
