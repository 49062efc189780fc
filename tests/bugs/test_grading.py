"""Grading: what other systems got wrong, and the ways in which a fix can cheat."""

from __future__ import annotations

import dataclasses

import pytest

from selfplay.bugs.grading.grade import grade, graded_layer
from selfplay.bugs.grading.poisoned_tests import disarmed_tests
from selfplay.bugs.patches.layers import make_patch, reverse_patch
from selfplay.bugs.sealing import sealed_layer
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.types import GradeReport, SolveTask

from .shop import SUM_BUG, SUM_TESTS, Change, as_layer, replaced


def fix(task: SolveTask, runner: TestRunner, changes: Change) -> str:
    """The fix patch that makes these files of the solver's tree look like this."""
    tree = runner.environment.tree
    sealed = sealed_layer(tree, task.artifact)
    return make_patch(tree, sealed, {**sealed, **as_layer(changes)})


def graded(task: SolveTask, runner: TestRunner, changes: Change) -> GradeReport:
    return grade(task, fix(task, runner, changes), runner)


def test_gold_patch_resolves(sum_task: SolveTask, runner: TestRunner) -> None:
    report = grade(sum_task, reverse_patch(sum_task.artifact.bug_patch), runner)
    assert (report.resolved, report.reward, report.reason) == (True, 1, "")
    assert report.fail_to_pass == dict.fromkeys(SUM_TESTS, "passed")
    assert set(report.pass_to_pass.values()) == {"passed"}


def test_stray_parts_do_not_spoil_a_fix(sum_task: SolveTask, runner: TestRunner) -> None:
    """Byte code, links and the like that an agent left behind are cut out of its patch."""
    stray = (
        "diff --git a/shop/x.pyc b/shop/x.pyc\nnew file mode 100644\nindex 000..111\n"
        "GIT binary patch\nliteral 1\nIc${Nk00001\n\n"
        "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n"
    )
    gold = reverse_patch(sum_task.artifact.bug_patch)
    assert grade(sum_task, stray + gold, runner).resolved
    report = grade(sum_task, stray, runner)
    assert (report.reward, report.reason) == (-1, "patch_malformed")


@pytest.mark.parametrize("patch", ["", "\n \n"])
def test_empty_patch_fails(sum_task: SolveTask, runner: TestRunner, patch: str) -> None:
    report = grade(sum_task, patch, runner)
    assert (report.resolved, report.reward, report.reason) == (False, -1, "empty_patch")
    assert report.fail_to_pass == dict.fromkeys(SUM_TESTS, "missing")


def test_useless_fix_fails(sum_task: SolveTask, runner: TestRunner) -> None:
    change = replaced("shop/prices.py", ("result += price", "result = price + 0"))
    report = graded(sum_task, runner, change)
    assert (report.reward, report.reason) == (-1, "fail_to_pass")
    assert report.fail_to_pass == dict.fromkeys(SUM_TESTS, "failed")


def test_regression_fails(sum_task: SolveTask, runner: TestRunner) -> None:
    change = replaced("shop/prices.py", ("rate // 100", "rate // 10"))
    report = graded(sum_task, runner, change)
    assert (report.reward, report.reason) == (-1, "pass_to_pass")
    assert report.pass_to_pass["tests/test_prices.py::test_with_tax"] == "failed"


def test_oracle_tests_come_from_the_original(sum_task: SolveTask, runner: TestRunner) -> None:
    """Not from the solver's tree: there the failing test is gone."""
    layer = graded_layer(sum_task, reverse_patch(sum_task.artifact.bug_patch), runner)
    assert layer == {}


def prelude(code: str) -> Change:
    """The buggy source with this code at its top."""
    text = SUM_BUG["shop/prices.py"]
    assert text is not None
    return {"shop/prices.py": f"{code}\n{text}"}


def test_a_fix_may_use_what_the_original_used(sum_task: SolveTask, runner: TestRunner) -> None:
    """Equality and `sys` are nobody's business; a plain loop resolves."""
    change = replaced("shop/prices.py", ('"""Prices in cents."""\n', '"""Prices."""\nimport sys\n'))
    assert graded(sum_task, runner, change).resolved


def test_honest_fix_is_not_called_disarmed(sum_task: SolveTask, runner: TestRunner) -> None:
    assert disarmed_tests(sum_task, {}, runner) == []


def test_no_fail_to_pass_is_never_resolved(sum_task: SolveTask, runner: TestRunner) -> None:
    task = dataclasses.replace(sum_task, fail_to_pass=(), pass_to_pass=())
    report = grade(task, reverse_patch(task.artifact.bug_patch), runner)
    assert (report.resolved, report.reason) == (False, "nothing_to_pass")


def test_missing_test_is_no_pass(sum_task: SolveTask, runner: TestRunner) -> None:
    task = dataclasses.replace(sum_task, pass_to_pass=("tests/test_prices.py::test_gone",))
    report = grade(task, reverse_patch(task.artifact.bug_patch), runner)
    assert (report.resolved, report.reason) == (False, "pass_to_pass")
    assert report.pass_to_pass == {"tests/test_prices.py::test_gone": "missing"}


def test_attempts_do_not_see_each_other(sum_task: SolveTask, runner: TestRunner) -> None:
    tree = runner.environment.tree
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tree.rglob("*.py"))
    graded(sum_task, runner, prelude("open('/testbed/shop/left.py', 'w').close()"))
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tree.rglob("*.py")) == before
    assert grade(sum_task, reverse_patch(sum_task.artifact.bug_patch), runner).resolved
