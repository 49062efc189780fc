"""The canary of each test framework: one table, by the framework's name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from selfplay.bugs.grading.canary import Canary
from selfplay.bugs.grading.pytest_canary import pytest_canary
from selfplay.bugs.grading.tap_canary import tap_canary
from selfplay.bugs.test_runs.runner import feed_layer
from selfplay.sandbox.base import Environment
from selfplay.types import Layer, SolveTask

CANARIES: dict[str, Callable[[SolveTask, Layer, str, Path], Canary]] = {
    "pytest": pytest_canary,
    "tap": tap_canary,
}
"""(task, graded state, a word that is part of the canary's name, original tree) -> canary"""


def make_canary(task: SolveTask, layer: Layer, kind: str, environment: Environment) -> Canary:
    """The canary for a graded state, under the harness's own script of `kind`."""
    script = task.artifact.test_script
    digest = hashlib.sha256(f"{environment.digest}\0{script}\0".encode("utf-8", "surrogateescape"))
    feed_layer(digest, layer)
    return CANARIES[kind](task, layer, digest.hexdigest()[:10], environment.tree)
