"""Which tests judge a mined bug: exactly those that fail in any case are left out."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator

import pytest

from selfplay.bug_sources.oracle import Oracle, find_oracle, names_without
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.types import BugArtifact, Limits, SolveTask

from .shop import FILES, SUM_BUG, as_layer

TESTS = "tests/test_sum.py"
TEXT = """\
import pytest
from shop.prices import discount, total


def test_total():
    assert open('/etc/hostname-of-the-office').read()


def test_total_of_three():
    assert total([1, 2, 3]) == 6


def test_Total_twice():
    assert total([4, 4]) == 8


def test_discount():
    assert discount(100, 10) == 90


class TestNet:
    def test_total(self):
        assert False

    def test_total_here(self):
        assert total([1]) == 1


@pytest.mark.slow
def test_slow():
    assert False
"""
LEFT = {
    f"{TESTS}::test_total_of_three",
    f"{TESTS}::test_Total_twice",
    f"{TESTS}::test_discount",
    f"{TESTS}::TestNet::test_total_here",
}
Make = Callable[[str], TestRunner]


@pytest.fixture
def make(environment: Environment, sandbox: Sandbox) -> Iterator[Make]:
    root = environment.tree.parent / "left-out"

    def runner(addopts: str) -> TestRunner:
        files = {"shop/__init__.py": "", "shop/prices.py": FILES["shop/prices.py"], TESTS: TEXT}
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        make_readable(root)
        variables = {**environment.variables, "PYTEST_ADDOPTS": addopts}
        digest = f"{environment.digest}-{hash(addopts)}"
        found = dataclasses.replace(environment, tree=root, digest=digest, variables=variables)
        return TestRunner(sandbox, found)

    yield runner
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("addopts", ["", "-k 'not slow'"])
def test_an_id_that_others_begin_with_is_left_out_alone(make: Make, addopts: str) -> None:
    runner = make(addopts)
    oracle = find_oracle([TESTS], runner, {}, 60)
    run = runner.run(oracle.script, parser_source("pytest"), {}, timeout_s=60)
    assert oracle.passing == LEFT, run.output
    run = runner.run(oracle.script, parser_source("pytest"), {}, timeout_s=60)
    assert run.exit_code == 0 and set(run.table) == LEFT


def test_a_fix_is_graded_on_what_is_left(make: Make) -> None:
    """The canary, a copy of a test that is not left out, is collected, too."""
    runner = make("")
    oracle = find_oracle([TESTS], runner, {}, 60)
    tree = runner.environment.tree
    artifact = BugArtifact(
        test_script=oracle.script, test_files=(TESTS,), test_parser=parser_source("pytest"),
        bug_patch=make_patch(tree, {}, as_layer(SUM_BUG)), weakening_patch="",
    )  # fmt: skip
    broken = {f"{TESTS}::test_total_of_three", f"{TESTS}::test_Total_twice"}
    task = SolveTask(
        bug_id="", repo="", artifact=artifact, limits=Limits(), fail_to_pass=tuple(sorted(broken)),
        pass_to_pass=tuple(sorted(LEFT - broken)),
    )  # fmt: skip
    assert grade(task, make_patch(tree, as_layer(SUM_BUG), {}), runner).reason == ""


def test_what_cannot_be_told_apart_is_said(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ["a.py::test_x-1", "b.py::test_x"]
    assert names_without(["a.py::test_x"], kept, environment) == (
        "not (a.py and test_x and not test_x-1)",
        [],
    )
    odd = ["a.py::test_x (2)", "a.py::test_x (2) again"]
    assert names_without(odd[:1], odd[1:], environment) == ("", odd[:1])
    assert "a.py::test_x (2) cannot be left out without a.py::test_x (2) again" in caplog.text
    assert Oracle(files=("a.py",)).script.endswith("-- \\\n  a.py\n")
