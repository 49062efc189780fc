"""Public and private oracle tests: show a part, grade on all (arXiv 2512.18552).

A solver that fits the tests it sees and not the behaviour passes the public part and fails the
private one; the share of such attempts is the overfit rate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.patches.layers import apply_patch, make_patch, reverse_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.types import GradeReport, SolveTask


def public_tests(task: SolveTask, share: float) -> tuple[str, ...]:
    """The part of FAIL_TO_PASS that a solver is shown, in its order.

    share    of the failing test functions, rounded up; at least one is shown. All parameters of a
             function stay together. The choice depends on the bug alone.
    """
    functions = list(dict.fromkeys(_function(test) for test in task.fail_to_pass))
    number = min(len(functions), max(1, math.ceil(share * len(functions) - 1e-9)))
    order = sorted(functions, key=lambda name: hashlib.sha256(f"{task.bug_id}\0{name}".encode(
        "utf-8", "surrogateescape")).digest())  # fmt: skip
    shown = set(order[:number])
    return tuple(test for test in task.fail_to_pass if _function(test) in shown)


def public_patch(tree: Path, task: SolveTask, shown: Iterable[str]) -> str:
    """The oracle test patch without the private tests, on the sealed tree."""
    artifact = task.artifact
    hidden = sorted(set(task.fail_to_pass) - set(shown))
    if not hidden:
        return reverse_patch(artifact.weakening_patch) if artifact.weakening_patch else ""
    weak = apply_patch(tree, {}, artifact.weakening_patch)
    return make_patch(tree, weak, weakening_layer(tree, hidden))


def overfits(report: GradeReport, shown: Iterable[str]) -> bool:
    """Whether the public tests pass and a private one does not."""
    public = set(shown)
    table = report.fail_to_pass
    private = [test for test in table if test not in public]
    return (
        bool(private)
        and all(table.get(test) == "passed" for test in public)
        and any(table[test] != "passed" for test in private)
    )


def _function(test: str) -> str:
    return test.partition("[")[0]
