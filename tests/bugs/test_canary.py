"""The canary is collected wherever the project's own tests are, and the gold patch is resolved."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfplay.bugs.grading.canaries import make_canary
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import make_patch, reverse_patch
from selfplay.bugs.test_runs import pytest_framework, scripts
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, RunResult, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.types import BugArtifact, Limits, SolveTask, ValidationReport

from .shop import FILES, SUM_BUG, SUM_TESTS, as_layer

LIMITS = Limits(min_passing_tests=2)
TESTS = "tests/test_sum.py"
HEAD = "import unittest\nimport pytest\nfrom shop.prices import discount, total\n\n\n"
PLAIN = """\
def test_total():
    assert total([1, 2, 3]) == 6


def test_discount():
    assert discount(100, 10) == 90
"""
MARKED = PLAIN.replace("def ", "@pytest.mark.unit\ndef ")
METHODS = """\
class Sums({bases}):
    {word} test_total(self):
        assert total([1, 2, 3]) == 6

    {word} test_discount(self):
        assert discount(100, 10) == 90
"""
INHERITED = PLAIN.replace("()", "(self)").replace("\n", "\n    ").replace("    \n", "\n")
UNIT = "    if not item.get_closest_marker('unit')"
HOOK = "import pytest\n\n\ndef pytest_collection_modifyitems(config, items):\n"
MARKS = "[pytest]\nmarkers =\n    unit: a unit test\n"
PROJECTS = {
    "names by prefix": (
        PLAIN.replace("test_", "check_"), "[pytest]\npython_functions = check_*\n", "",
    ),
    "names by suffix": (
        PLAIN.replace("test_total", "total_spec").replace("test_discount", "discount_spec"),
        "[pytest]\npython_functions = *_spec\n",
        "",
    ),
    "classes by name": (
        METHODS.format(bases="", word="def"), "[pytest]\npython_classes = Sums\n", "",
    ),
    "skips unmarked": (
        MARKED, MARKS, f"{HOOK}    for item in items:\n    {UNIT}:\n"
        "            item.add_marker(pytest.mark.skip(reason='no kind'))\n",
    ),
    "deselects unmarked": (
        MARKED, MARKS, f"{HOOK}    items[:] = [i for i in items if i.get_closest_marker('unit')]\n",
    ),
    "refuses unmarked": (
        MARKED, MARKS, f"{HOOK}    for item in items:\n    {UNIT}:\n"
        "            raise pytest.UsageError('a test without a kind')\n",
    ),
    "knows its files": (
        PLAIN, "", f"{HOOK}    for item in items:\n        if item.path.name != 'test_sum.py':\n"
        "            raise pytest.UsageError('a file without an owner')\n",
    ),
    "parameters": (
        "@pytest.mark.parametrize('last', [3, 4])\n"
        "def test_total(last):\n    assert total([1, last]) == 1 + last\n\n\n"
        "@pytest.mark.parametrize(('cut', 'rest'), [(10, 90), (20, 80)])\n"
        "def test_discount(cut, rest):\n    assert discount(100, cut) == rest\n", "", "",
    ),
    "fixtures": (
        PLAIN.replace("()", "(prices)"), "", "import pytest\n\n\n@pytest.fixture\n"
        "def prices():\n    from shop.prices import total\n    assert total([]) == 0\n    yield\n",
    ),
    "unittest": (METHODS.format(bases="unittest.TestCase", word="def"), "", ""),
    "asynchronous": (
        METHODS.format(bases="unittest.IsolatedAsyncioTestCase", word="async def"), "", "",
    ),
    "inherited": (f"class Base:\n    {INHERITED}\n\nclass TestSums(Base):\n    x = 1\n", "", ""),
}  # fmt: skip
"""{what is particular: (tests, pytest.ini, conftest.py)}"""
Project = Callable[[str, str, str], tuple[BugArtifact, TestRunner]]


class BrokenAfter:
    """A sandbox whose machine is gone after some runs."""

    name = "broken"

    def __init__(self, inner: Sandbox, num_runs: int) -> None:
        self._inner, self._left = inner, num_runs

    def run(self, job: Job) -> RunResult:
        if not self._left:
            raise SandboxError("the engine does not answer")
        self._left -= 1
        return self._inner.run(job)

    def close(self) -> None:
        pass


@pytest.fixture
def project(environment: Environment, sandbox: Sandbox) -> Iterator[Project]:
    """Writes a variant of the shop with its own tests; gives its bug and a runner."""
    root = environment.tree.parent / "variant"

    def make(tests: str, ini: str, conftest: str) -> tuple[BugArtifact, TestRunner]:
        files = {"shop/__init__.py": "", "shop/prices.py": FILES["shop/prices.py"]}
        files |= {TESTS: HEAD + tests, "pytest.ini": ini, "conftest.py": conftest}
        for name, text in files.items():
            if text or name.endswith("__init__.py"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        make_readable(root)
        digest = f"{environment.digest}-{hash((tests, ini, conftest))}"
        runner = TestRunner(sandbox, dataclasses.replace(environment, tree=root, digest=digest))
        return artifact_of(root), runner

    yield make
    shutil.rmtree(root, ignore_errors=True)


def artifact_of(tree: Path) -> BugArtifact:
    """`total` forgets what it added; the first test of the file is taken out."""
    text = (
        (tree / TESTS)
        .read_text()
        .replace("[1, 2, 3]) == 6", "[3]) == 3")
        .replace("1 + last", "last")
    )
    text = text.replace("[1, last]", "[last]")
    return BugArtifact(
        test_script=pytest_framework.pytest_script([TESTS]),
        test_files=(TESTS,),
        test_parser=scripts.parser_source("pytest"),
        bug_patch=make_patch(tree, {}, as_layer(SUM_BUG)),
        weakening_patch=make_patch(tree, {}, as_layer({TESTS: text})),
    )


def task_of(artifact: BugArtifact, report: ValidationReport) -> SolveTask:
    return SolveTask(
        bug_id="", repo="", artifact=artifact, limits=LIMITS,
        fail_to_pass=report.fail_to_pass, pass_to_pass=report.pass_to_pass,
    )  # fmt: skip


@pytest.mark.parametrize("what", PROJECTS)
def test_right_fix_is_resolved_whatever_a_project_demands(project: Project, what: str) -> None:
    artifact, runner = project(*PROJECTS[what])
    report = validate(artifact, runner.environment, runner, LIMITS)
    assert report.verdict == "valid", report
    right = reverse_patch(artifact.bug_patch)
    assert grade(task_of(artifact, report), right, runner).reason == ""
    # any other right text, of which validation has not heard
    other = right.replace("+        result += price", "+        result = result + price")
    assert other != right
    assert grade(task_of(artifact, report), other, runner).reason == ""


def test_gold_patch_that_grading_refuses_is_no_bug(project: Project) -> None:
    """No copy is collected here: the bug is refused, and not every fix of it."""
    hook = f"{HOOK}    items[:] = [i for i in items if i.name in ('test_total', 'test_discount')]\n"
    artifact, runner = project(PLAIN, "", hook)
    report = validate(artifact, runner.environment, runner, LIMITS)
    assert (report.verdict, report.reason) == ("invalid", "gold_canary")
    assert report.checks[-1].name == "gold_resolves" and report.checks[-1].status == "fail"


def test_gold_patch_is_undecided_where_the_machine_fails(project: Project) -> None:
    artifact, runner = project(PLAIN, "", "")
    runs = validate(artifact, runner.environment, runner, LIMITS).num_runs
    failing = BrokenAfter(runner.sandbox, runs - 1)
    runner = TestRunner(failing, runner.environment)
    report = validate(artifact, runner.environment, runner, LIMITS)
    assert (report.verdict, report.reason) == ("undecided", "infrastructure")
    assert report.checks[-1].name == "gold_resolves"


def test_canary_is_a_function_of_the_graded_code(sum_task: SolveTask, runner: TestRunner) -> None:
    """Not foreseeable by the code, equal for equal code, and shared by bugs with the same tests."""
    environment = runner.environment
    first = make_canary(sum_task, {}, "pytest", environment)
    other = make_canary(sum_task, as_layer(SUM_BUG), "pytest", environment)
    assert (
        first.test_id != other.test_id and make_canary(sum_task, {}, "pytest", environment) == first
    )
    swapped = dataclasses.replace(
        sum_task, fail_to_pass=sum_task.pass_to_pass, pass_to_pass=sum_task.fail_to_pass
    )
    assert make_canary(swapped, {}, "pytest", environment) == first
    assert first.script == sum_task.artifact.test_script  # the copy lies in a file that runs anyway


def test_canary_fails_with_all_its_parameters(sum_task: SolveTask, runner: TestRunner) -> None:
    canary = make_canary(sum_task, {}, "pytest", runner.environment)
    name = canary.test_id
    assert not canary.failed({}) and canary.failed({name: "failed"})
    assert canary.failed({f"{name}[1]": "failed", f"{name}[2]": "failed", "other": "passed"})
    assert not canary.failed({f"{name}[1]": "failed", f"{name}[2]": "passed"})


def test_canary_of_single_tests_is_named_in_the_script(
    sum_task: SolveTask, runner: TestRunner
) -> None:
    script = pytest_framework.pytest_script(SUM_TESTS)
    artifact = dataclasses.replace(
        sum_task.artifact, test_script=script, test_files=("tests/test_prices.py",)
    )
    task = dataclasses.replace(sum_task, artifact=artifact, pass_to_pass=())
    canary = make_canary(task, {}, "pytest", runner.environment)
    assert scripts.script_targets(canary.script) == (*SUM_TESTS, canary.test_id)
    run = runner.run(canary.script, artifact.test_parser, canary.layer, timeout_s=30)
    assert canary.failed(run.table) and run.table[SUM_TESTS[0]] == "passed"


def test_without_a_test_to_copy_the_canary_is_a_plain_function(
    sum_task: SolveTask, runner: TestRunner
) -> None:
    task = dataclasses.replace(sum_task, fail_to_pass=("README.md::README.md",), pass_to_pass=())
    canary = make_canary(task, {}, "pytest", runner.environment)
    (path,) = canary.layer
    assert path.startswith("tests/test_") and scripts.script_targets(canary.script)[-1] == path
