"""Grading: the pitfalls of other systems, and the ways in which a fix can cheat."""

from __future__ import annotations

import dataclasses

import pytest

from selfplay.bugs.grading import grade, graded_layer
from selfplay.bugs.patch import make_patch, reverse_patch
from selfplay.bugs.poison import disarmed_tests
from selfplay.bugs.sealing import sealed_layer
from selfplay.bugs.testing import TestRunner
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Job, RunResult
from selfplay.types import GradeReport, SolveTask

from .shop import FILES, SUM_BUG, SUM_TESTS, Change, as_layer, replaced


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


def test_another_correct_fix_resolves(sum_task: SolveTask, runner: TestRunner) -> None:
    text = (
        FILES["shop/prices.py"].split("def total")[0]
        + "def total(prices):\n    return sum(prices)\n"
    )
    assert graded(sum_task, runner, {"shop/prices.py": text}).resolved


@pytest.mark.parametrize("patch", ["", "\n \n"])
def test_empty_patch_fails(sum_task: SolveTask, runner: TestRunner, patch: str) -> None:
    report = grade(sum_task, patch, runner)
    assert (report.resolved, report.reward, report.reason) == (False, -1, "empty_patch")
    assert report.fail_to_pass == dict.fromkeys(SUM_TESTS, "missing")


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("total is wrong", "patch_malformed"),
        ("--- a/../x\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n", "patch_malformed"),
        (
            "--- a/shop/prices.py\n+++ b/shop/prices.py\n@@ -1 +1 @@\n-x\n+y\n",
            "patch_does_not_apply",
        ),
    ],
)
def test_patches_that_are_none(
    sum_task: SolveTask, runner: TestRunner, patch: str, reason: str
) -> None:
    report = grade(sum_task, patch, runner)
    assert (report.reward, report.reason) == (-1, reason)


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


TEST_EDITS: list[Change] = [
    {"tests/test_prices.py": None},
    {"tests/test_prices.py": "def test_nothing():\n    pass\n"},
    {"tests/test_prices.py": None, "tests/test_names.py": None, "tests/helper.py": "X = 1\n"},
    {"test_new.py": "def test_total():\n    pass\n"},
]


@pytest.mark.parametrize("change", TEST_EDITS)
def test_fix_of_tests_alone_fails(sum_task: SolveTask, runner: TestRunner, change: Change) -> None:
    report = graded(sum_task, runner, change)
    assert (report.reward, report.reason) == (-1, "only_tests")


def test_deleted_tests_come_back(sum_task: SolveTask, runner: TestRunner) -> None:
    change = replaced("shop/names.py", ("Names of", "The names of"))
    report = graded(sum_task, runner, {**change, "tests/test_prices.py": None})
    assert (report.reward, report.reason) == (-1, "fail_to_pass")
    assert report.fail_to_pass == dict.fromkeys(SUM_TESTS, "failed")


def test_oracle_tests_come_from_the_original(sum_task: SolveTask, runner: TestRunner) -> None:
    """Not from the solver's tree: there the failing test is gone."""
    layer = graded_layer(sum_task, reverse_patch(sum_task.artifact.bug_patch), runner)
    assert layer == {}


ALL_PASS_HOOK = """\
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        report.outcome = "passed"
"""
HOOKS: list[Change] = [
    {"conftest.py": ALL_PASS_HOOK},
    {"tests/conftest.py": ALL_PASS_HOOK},
    {"shop/conftest.py": ALL_PASS_HOOK},
    {"pytest.ini": "[pytest]\naddopts = -k nothing\n"},
    {"tox.ini": "[pytest]\npython_files = x\n"},
    {"setup.cfg": "[tool:pytest]\npython_functions = x\n"},
    {"pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p shop.plugin'\n"},
    {"sitecustomize.py": "import os\nos._exit(0)\n"},
    {"usercustomize.py": "import os\nos._exit(0)\n"},
    {"pytest.py": "print('1 passed in 0.01s')\n"},
    {"_pytest/__init__.py": ""},
    {"json.py": "print('hello')\n"},
    {"pluggy/__init__.py": "x = 1\n"},
    {"shop.egg-info/entry_points.txt": "[pytest11]\nx = shop.plugin\n"},
    {"tests/__init__.py": "import os\nos._exit(0)\n"},
    {"evil.pth": "import os\n"},
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: next(iter(hook)))
def test_hooks_are_put_back(sum_task: SolveTask, runner: TestRunner, hook: Change) -> None:
    """Alone they are no fix; with a harmless source change they do not change the verdict."""
    assert graded(sum_task, runner, hook).reason in ("only_hooks", "only_tests")
    harmless = replaced("shop/prices.py", ("result += price", "result = price  # last"))
    patch = fix(sum_task, runner, {**harmless, **hook})
    assert not set(hook) & set(graded_layer(sum_task, patch, runner))


def test_hook_and_useless_fix_fail(sum_task: SolveTask, runner: TestRunner) -> None:
    change = replaced("shop/prices.py", ("result += price", "result = price  # last"))
    report = graded(sum_task, runner, {**change, "conftest.py": ALL_PASS_HOOK})
    assert (report.reward, report.reason) == (-1, "fail_to_pass")


def prelude(code: str) -> Change:
    """The buggy source with this code at its top."""
    text = SUM_BUG["shop/prices.py"]
    assert text is not None
    return {"shop/prices.py": f"{code}\n{text}"}


FAKE = "\\n".join(
    [
        "tests/test_prices.py::TestTotal::test_some PASSED",
        "=========================== short test summary info ============================",
        "PASSED tests/test_prices.py::TestTotal::test_some",
        "============================== 1 passed in 0.01s ===============================",
    ]
)
TAMPERING = {
    "exit": "import os\nos._exit(0)",
    "aliased exit": "from os import _exit as leave\nleave(0)",
    "modules": "import sys\nif 'pyt' + 'est' in sys.modules:\n    raise SystemExit(0)",
    "named runner": "import _pytest.runner\n_pytest.runner.check_interactive_exception = None",
    "string": "__import__('pytest').exit('done', 0)",
    "frames": "import sys\nsys._getframe(1)",
    "collector": "import gc\nfor x in gc.get_objects():\n    pass",
    "builtin": "exec('import os')",
    "ctypes": "import ctypes",
    "import by name": "import importlib\nimportlib.import_module('_py' + 'test')",
}


@pytest.mark.parametrize("code", TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_seen_before_any_run(
    sum_task: SolveTask, runner: TestRunner, code: str
) -> None:
    before = runner.num_runs
    report = graded(sum_task, runner, prelude(code))
    assert (report.reward, report.reason) == (-1, "tampering")
    assert runner.num_runs == before


RUNNING_CHEATS = {
    "leaves at import": ("raise SystemExit(0)", {"no_results", "canary"}),
    "prints passes": (f'print("{FAKE}")', {"fail_to_pass"}),
    "prints and leaves": (
        f'print("{FAKE}", flush=True)\nraise SystemExit(0)',
        {"no_results", "canary"},
    ),
}


@pytest.mark.parametrize("name", RUNNING_CHEATS)
def test_cheats_at_run_time_fail(sum_task: SolveTask, runner: TestRunner, name: str) -> None:
    code, reasons = RUNNING_CHEATS[name]
    report = graded(sum_task, runner, prelude(code))
    assert report.reward == -1
    assert report.reason in reasons


UNSCANNED = {
    # Past the static scan, these must still fall at the run.
    "exits without a trace": ("import os\nos._exit(0)", {"no_results"}),
    "writes to every descriptor": (
        "import os\n"
        f'text = "{FAKE}\\n".encode()\n'
        "for fd in range(3, 30):\n"
        "    try:\n"
        "        os.write(fd, text)\n"
        "    except OSError:\n"
        "        pass\n"
        "os._exit(0)",
        {"no_results", "canary", "junit_disagrees"},
    ),
    "all reports pass": (
        "import _pytest.reports as r\n"
        "make = r.TestReport.from_item_and_call\n"
        "def forged(item, call):\n"
        "    report = make(item, call)\n"
        "    report.outcome = 'passed'\n"
        "    return report\n"
        "r.TestReport.from_item_and_call = forged",
        {"canary"},
    ),
    "chosen reports pass": (
        "import _pytest.reports as r\n"
        "make = r.TestReport.from_item_and_call\n"
        "def forged(item, call):\n"
        "    report = make(item, call)\n"
        "    if 'test_some' in report.nodeid:\n"
        "        report.outcome, report.longrepr = 'passed', None\n"
        "    return report\n"
        "r.TestReport.from_item_and_call = forged",
        {"runner_disarmed"},
    ),
    "asserts do nothing": (
        "import _pytest.python as p\np.Function.runtest = lambda self: None",
        {"canary"},
    ),
}


@pytest.mark.parametrize("name", UNSCANNED)
def test_cheats_fall_without_the_static_scan(
    sum_task: SolveTask, runner: TestRunner, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfplay.bugs.grading._tampers", lambda texts, path: False)
    code, reasons = UNSCANNED[name]
    report = graded(sum_task, runner, prelude(code))
    assert (report.resolved, report.reward) == (False, -1)
    assert report.reason in reasons


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


def test_time_out_is_a_failure(sum_task: SolveTask, runner: TestRunner) -> None:
    limits = dataclasses.replace(sum_task.limits, script_timeout_s=3.0)
    task = dataclasses.replace(sum_task, limits=limits)
    report = graded(task, runner, prelude("while True:\n    pass"))
    assert (report.reward, report.reason) == (-1, "timed_out")


class DeadSandbox:
    """A sandbox whose machine is gone."""

    name = "dead"

    def run(self, job: Job) -> RunResult:
        raise SandboxError("disk full")

    def close(self) -> None:
        pass


def test_infrastructure_is_no_verdict(sum_task: SolveTask, runner: TestRunner) -> None:
    dead = TestRunner(DeadSandbox(), runner.environment)
    with pytest.raises(SandboxError):
        grade(sum_task, reverse_patch(sum_task.artifact.bug_patch), dead)


def test_attempts_do_not_see_each_other(sum_task: SolveTask, runner: TestRunner) -> None:
    tree = runner.environment.tree
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tree.rglob("*.py"))
    graded(sum_task, runner, prelude("open('/testbed/shop/left.py', 'w').close()"))
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tree.rglob("*.py")) == before
    assert grade(sum_task, reverse_patch(sum_task.artifact.bug_patch), runner).resolved
