"""Refused early: one failing test function instead of all, and never more than a refusal."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from selfplay.bugs.grading.early import cheapest_target, refused_early
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import make_patch, reverse_patch
from selfplay.bugs.sealing import sealed_layer
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.cache import cache_root
from selfplay.sandbox.host import make_readable
from selfplay.types import SolveTask

from .shop import PRICES, Change, MakeArtifact, MakeTask, as_layer, replaced

DISCOUNT = "tests/test_prices.py::test_discount"
BOUNDS = "tests/test_prices.py::test_discount_bounds"
SECONDS = {f"{DISCOUNT}[100-90]": 0.1, f"{DISCOUNT}[55-50]": 0.1, BOUNDS: 0.15}


@pytest.fixture(scope="module")
def task(make_artifact: MakeArtifact, make_task: MakeTask) -> SolveTask:
    """`discount` adds instead of taking off, and takes any percentage: two functions notice."""
    bug = replaced("shop/prices.py", ("percent > 100", "percent > 1000"), ("cents - ", "cents + "))
    broken = (f"{DISCOUNT}[100-90]", f"{DISCOUNT}[55-50]", BOUNDS)
    made = make_task(make_artifact(bug, broken))
    assert made.fail_to_pass == broken
    return made


def fix(task: SolveTask, runner: TestRunner, *pairs: tuple[str, str]) -> str:
    tree = runner.environment.tree
    sealed = sealed_layer(tree, task.artifact)
    content = sealed["shop/prices.py"].content
    assert content is not None
    text = content.decode()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    change: Change = {"shop/prices.py": text}
    return make_patch(tree, sealed, {**sealed, **as_layer(change)})


def both(task: SolveTask, runner: TestRunner, patch: str) -> tuple[str, str, int]:
    """(reason of the whole run, of the early verdict, runs that the latter took)."""
    whole = grade(task, patch, runner)
    fresh = TestRunner(runner.sandbox, runner.environment)
    early = grade(task, patch, fresh, SECONDS)
    assert whole.resolved == early.resolved
    return whole.reason, early.reason, fresh.num_runs


def test_the_cheapest_function_runs_first(task: SolveTask) -> None:
    """Two parameters of 0.1 s cost more than one test of 0.15 s; unknown tests cost a second."""
    assert cheapest_target(task, SECONDS) == BOUNDS
    assert cheapest_target(task, {**SECONDS, BOUNDS: 0.3}) == DISCOUNT
    assert cheapest_target(task, {}) == BOUNDS
    own = dataclasses.replace(task.artifact, test_parser="print({})")
    assert cheapest_target(dataclasses.replace(task, artifact=own), SECONDS) is None


def test_a_failing_first_test_refuses_by_itself(task: SolveTask, runner: TestRunner) -> None:
    useless = fix(task, runner, ("cents + cents * per", "cents * cents * per"))
    fresh = TestRunner(runner.sandbox, runner.environment)
    report = grade(task, useless, fresh, SECONDS)
    assert (report.reason, report.reward, fresh.num_runs) == ("fail_to_pass", -1, 2)
    assert report.fail_to_pass == {
        f"{DISCOUNT}[100-90]": "not_run", f"{DISCOUNT}[55-50]": "not_run", BOUNDS: "failed",
    }  # fmt: skip
    assert both(task, runner, useless)[:2] == ("fail_to_pass", "fail_to_pass")


def test_where_the_first_test_passes_everything_runs(task: SolveTask, runner: TestRunner) -> None:
    half = fix(task, runner, ("percent > 1000", "percent > 100"))
    assert both(task, runner, half) == ("fail_to_pass", "fail_to_pass", 2)
    gold = reverse_patch(task.artifact.bug_patch)
    assert both(task, runner, gold)[:2] == ("", "")
    other = fix(
        task,
        runner,
        ("percent > 1000", "percent >= 101"),
        ("cents + cents * per", "cents - cents * per"),
    )
    assert both(task, runner, other)[:2] == ("", "")


def test_a_regression_is_seen_by_the_whole_run(task: SolveTask, runner: TestRunner) -> None:
    worse = fix(
        task, runner, ("percent > 1000", "percent > 100"),
        ("cents + cents * per", "cents - cents * per"), ("rate // 100", "rate // 10"),
    )  # fmt: skip
    assert both(task, runner, worse)[:2] == ("pass_to_pass", "pass_to_pass")


def test_an_endless_first_test_is_timed_out_once(task: SolveTask, runner: TestRunner) -> None:
    endless = fix(
        task, runner, ("    if percent < 0", "    while percent:\n        pass\n    if percent < 0")
    )
    short = dataclasses.replace(task, limits=dataclasses.replace(task.limits, script_timeout_s=4.0))
    fresh = TestRunner(runner.sandbox, runner.environment)
    report = grade(short, endless, fresh, SECONDS)
    assert (report.reason, fresh.num_runs) == ("timed_out", 2)


ORDERED = """\
from shop.prices import discount

SEEN = []


def test_first():
    SEEN.append(1)


def test_second():
    assert SEEN and discount(100, 10) == 90
"""


def test_a_test_that_fails_by_itself_decides_nothing(
    task: SolveTask, runner: TestRunner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It passes behind others only: alone it fails on the original, too, whatever the fix."""
    root = cache_root() / "tests" / f"ordered-{tmp_path_factory.mktemp('x').parent.name}"
    shutil.copytree(runner.environment.tree, root / "tree")
    (root / "tree/tests/test_ordered.py").write_text(ORDERED)
    make_readable(root)
    tree, digest = root / "tree", f"ordered-{root.name}"
    environment = dataclasses.replace(runner.environment, tree=tree, digest=digest)
    test = "tests/test_ordered.py::test_second"
    script = pytest_script(["tests/test_ordered.py"])
    artifact = dataclasses.replace(
        task.artifact, test_script=script, test_files=("tests/test_ordered.py",), weakening_patch=""
    )
    ordered = dataclasses.replace(task, artifact=artifact, fail_to_pass=(test,), pass_to_pass=())
    other = TestRunner(runner.sandbox, environment)
    layer = as_layer({"shop/prices.py": PRICES.replace("//", "/ 1 //")})
    try:
        assert other.run(script, artifact.test_parser, layer, timeout_s=90).table[test] == "passed"
        assert refused_early(ordered, layer, other, {}) is None
    finally:
        shutil.rmtree(root)
