"""Second-order bugs: what grows from a failed repair, and what does not."""

from __future__ import annotations

import dataclasses

import pytest

from selfplay.bug_sources.higher_order import bug_order, grow
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import reverse_patch
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.types import SolveTask

from .shop import SUM_TESTS
from .test_grading import fix


def failed_fix(task: SolveTask, runner: TestRunner, old: str, new: str) -> str:
    """A fix that leaves the bug and changes something else of the same file."""
    from selfplay.bugs.patches.layers import read_file
    from selfplay.bugs.sealing import sealed_layer

    tree = runner.environment.tree
    buggy = (read_file(tree, sealed_layer(tree, task.artifact), "shop/prices.py") or b"").decode()
    assert old in buggy
    return fix(task, runner, {"shop/prices.py": buggy.replace(old, new)})


def test_a_failed_fix_becomes_a_bug(sum_task: SolveTask, runner: TestRunner) -> None:
    patch = failed_fix(sum_task, runner, "cents * percent // 100", "cents * percent // 50")
    assert not grade(sum_task, patch, runner).resolved
    grown = grow(sum_task, patch, runner)
    assert grown.reason == "valid" and grown.task is not None
    task = grown.task
    assert set(SUM_TESTS) < set(task.fail_to_pass)  # found anew
    assert any("test_discount" in test for test in task.fail_to_pass)
    assert (bug_order(task.artifact), task.artifact.meta["parent"]) == (2, sum_task.bug_id)
    assert task.bug_id != sum_task.bug_id
    assert grade(task, reverse_patch(task.artifact.bug_patch), runner).resolved
    assert not grade(task, "", runner).resolved
    half = reverse_patch(sum_task.artifact.bug_patch)
    assert not grade(task, half, runner).resolved  # mending the first bug is not enough


def test_never_beyond_order_two(sum_task: SolveTask, runner: TestRunner) -> None:
    meta = {**sum_task.artifact.meta, "order": 2}
    task = dataclasses.replace(sum_task, artifact=dataclasses.replace(sum_task.artifact, meta=meta))
    patch = failed_fix(sum_task, runner, "cents * percent // 100", "cents * percent // 50")
    assert grow(task, patch, runner).reason == "order"


def test_what_fails_the_same_tests_is_known(sum_task: SolveTask, runner: TestRunner) -> None:
    same = failed_fix(sum_task, runner, '"""Prices in cents."""', '"""Prices, in cents."""\nX = 1')
    assert grow(sum_task, same, runner).reason == "same_failures"
    patch = failed_fix(sum_task, runner, "cents * percent // 100", "cents * percent // 50")
    task = grow(sum_task, patch, runner).task
    assert task is not None
    known = {frozenset(task.fail_to_pass)}
    assert grow(sum_task, patch, runner, known).reason == "same_failures"


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("", "no_source_change"),
        ("nonsense", "no_source_change"),
        (
            "--- a/shop/prices.py\n+++ b/shop/prices.py\n@@ -1 +1 @@\n-no such line\n+x\n",
            "does_not_apply",
        ),
    ],
)
def test_what_gives_no_bug(
    sum_task: SolveTask, runner: TestRunner, patch: str, reason: str
) -> None:
    assert grow(sum_task, patch, runner).reason in (reason, "does_not_apply")


def test_tests_and_hooks_of_the_fix_are_no_bug(sum_task: SolveTask, runner: TestRunner) -> None:
    patch = fix(sum_task, runner, {"tests/test_new.py": "def test(): pass\n", "conftest.py": "\n"})
    assert grow(sum_task, patch, runner).reason == "no_source_change"


def test_a_fix_that_mends_all_leaves_no_bug(sum_task: SolveTask, runner: TestRunner) -> None:
    gold = reverse_patch(sum_task.artifact.bug_patch)
    assert grow(sum_task, gold, runner).reason in ("no_source_change", "nothing_fails")


def test_a_broken_module_is_no_bug(sum_task: SolveTask, runner: TestRunner) -> None:
    patch = failed_fix(sum_task, runner, "def total(prices):", "def total(prices:")
    assert grow(sum_task, patch, runner).task is None
