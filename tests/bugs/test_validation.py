"""Consistency validation: each check by an artifact that fails it, and the pitfalls of others."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from selfplay.bugs.patch import apply_patch, make_patch
from selfplay.bugs.scripts import parser_source, pytest_script, unittest_script
from selfplay.bugs.testing import TestRunner
from selfplay.bugs.validation import CHECKS, failure_excerpt, validate
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, RunResult, Sandbox
from selfplay.types import BugArtifact, Limits, ValidationReport

from .shop import (
    FILES,
    SUM_BUG,
    SUM_TESTS,
    TEST_FILES,
    Change,
    MakeArtifact,
    as_layer,
    replaced,
)

NAMES_BUG = replaced("shop/names.py", ("word[0].upper()", "word[0].lower()"))
NAMES_TESTS = ("tests/test_names.py::TestNames::test_initials",)
OWN_SCRIPT = "python -m pytest -v -rpfE -p no:cacheprovider --color=no " + " ".join(TEST_FILES)
OWN_PARSER = """
import json, re, sys
table = {}
for line in sys.stdin:
    match = re.match(r"(PASSED|FAILED) (\\S+)", line)
    if match:
        table[match[2]] = match[1].lower()
print(json.dumps(table))
"""


@pytest.fixture(scope="module")
def good(make_artifact: MakeArtifact) -> BugArtifact:
    return make_artifact(SUM_BUG, SUM_TESTS)


def decided(report: ValidationReport) -> tuple[str, str]:
    """(name, reason) of the check that decided; ("", "") when valid."""
    assert [check.name for check in report.checks] == [name for name, _ in CHECKS]
    passed = [check.status == "pass" for check in report.checks]
    if report.verdict == "valid":
        assert all(passed)
        return "", ""
    stop = passed.index(False)
    assert {check.status for check in report.checks[stop + 1 :]} <= {"not_run"}
    return report.checks[stop].name, report.checks[stop].reason


def test_valid_artifact_and_its_cost(
    good: BugArtifact, environment: Environment, sandbox: Sandbox
) -> None:
    """First-order, one file: at most five runs of the suite; again: none."""
    runner = TestRunner(sandbox, environment)
    report = validate(good, environment, runner)
    assert decided(report) == ("", "")
    assert report.fail_to_pass == SUM_TESTS
    assert len(report.pass_to_pass) == 9
    assert report.flaky == ()
    assert report.num_runs == runner.num_runs == 5
    assert "TestTotal.test_some" in report.failure_output
    assert "PASSED" not in report.failure_output
    assert validate(good, environment, runner).num_runs == 0


def test_two_files_each_contribute(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    artifact = make_artifact({**SUM_BUG, **NAMES_BUG}, SUM_TESTS + NAMES_TESTS)
    limits = Limits(min_changed_files=2, min_failing_tests=2)
    report = validate(artifact, environment, runner, limits)
    assert decided(report) == ("", "")
    assert set(report.fail_to_pass) == {*SUM_TESTS, *NAMES_TESTS}


STATIC: list[tuple[str, str, dict[str, object]]] = [
    ("test_files", "no_test_files", {"test_files": ()}),
    ("test_files", "test_file_missing", {"test_files": ("tests/test_none.py",)}),
    ("test_files", "test_file_missing", {"test_files": ("tests",)}),
    ("test_files", "unsafe_path", {"test_files": ("../x",)}),
    ("test_files", "unsafe_path", {"test_files": ("/etc/passwd",)}),
    ("test_files", "test_files_incomplete", {"test_files": ("tests/test_names.py",)}),
    ("test_files", "weakening_empty", {"weakening_patch": ""}),
    ("test_files", "weakening_malformed", {"weakening_patch": "what"}),
    ("scope", "bug_empty", {"bug_patch": "\n"}),
    ("scope", "bug_malformed", {"bug_patch": "what"}),
    ("scope", "bug_does_not_apply",
     {"bug_patch": "--- a/shop/prices.py\n+++ b/shop/prices.py\n@@ -1 +1 @@\n-a\n+b\n"}),
    ("forbidden_content", "parser_import", {"test_parser": "import os\n"}),
    ("forbidden_content", "script_git", {"test_script": "git log\n"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reason", "change"), STATIC)
def test_static_failures_cost_no_run(
    good: BugArtifact,
    environment: Environment,
    sandbox: Sandbox,
    name: str,
    reason: str,
    change: dict[str, object],
) -> None:
    artifact = dataclasses.replace(good, **change)  # type: ignore[arg-type]
    report = validate(artifact, environment, TestRunner(sandbox, environment))
    assert decided(report) == (name, reason)
    assert (report.verdict, report.num_runs) == ("invalid", 0)


SCOPES: list[tuple[str, Change]] = [
    ("touches_oracle_test", replaced("tests/test_names.py", ("AL", "al"))),
    ("touches_hook_file", {"tests/conftest.py": "x = 1\n"}),
    ("touches_hook_file", {"setup.cfg": "[tool:pytest]\n"}),
    ("too_few_files", {"README.md": "# Changed\n"}),
    ("too_few_files", {"tests/helper.py": "x = 1\n"}),
    ("syntax_error", replaced("shop/prices.py", ("def total(prices):", "def total(prices)"))),
    ("no_code_change", replaced("shop/prices.py", ("Prices in cents", "Cents"))),
]


@pytest.mark.parametrize(("reason", "bug"), SCOPES)
def test_scope(
    make_artifact: MakeArtifact,
    environment: Environment,
    runner: TestRunner,
    reason: str,
    bug: Change,
) -> None:
    report = validate(make_artifact(bug, SUM_TESTS), environment, runner)
    assert decided(report) == ("scope", reason)


def test_min_changed_files(good: BugArtifact, environment: Environment, runner: TestRunner) -> None:
    report = validate(good, environment, runner, Limits(min_changed_files=2))
    assert decided(report) == ("scope", "too_few_files")


@pytest.mark.parametrize(
    ("parser", "script", "check", "reason"),
    [
        ("raise SystemExit(1)", None, "parser", "parser_failed"),
        ("print('{}')", None, "parser", "parser_empty"),
        ('print(\'{"a": "PASSED"}\')', None, "parser", "parser_failed"),
        (None, "true\n", "parser", "parser_empty"),
        (None, "sleep 99\n", "parser", "timed_out"),
        (OWN_PARSER, "printf 'FAILED a\\n'\n", "forbidden_content", "script_result_writing"),
        (OWN_PARSER, OWN_SCRIPT + " -k total", "script", "too_few_passing"),
        (OWN_PARSER, OWN_SCRIPT, "", ""),
    ],
)
def test_parser_and_script(
    good: BugArtifact,
    environment: Environment,
    runner: TestRunner,
    parser: str | None,
    script: str | None,
    check: str,
    reason: str,
) -> None:
    artifact = dataclasses.replace(
        good, test_parser=parser or good.test_parser, test_script=script or good.test_script
    )
    limits = Limits(script_timeout_s=20.0 if reason == "timed_out" else 90.0)
    assert decided(validate(artifact, environment, runner, limits)) == (check, reason)


def test_tests_that_fail_on_the_original(
    good: BugArtifact, environment: Environment, sandbox: Sandbox
) -> None:
    """A bug is not what failed before."""

    class Older:
        """The same shop, in which one test fails already."""

        name = "older"

        def run(self, job: Job) -> RunResult:
            broken = as_layer(NAMES_BUG)
            return sandbox.run(dataclasses.replace(job, layer={**broken, **job.layer}))

        def close(self) -> None:
            pass

    report = validate(good, environment, TestRunner(Older(), environment))
    assert decided(report) == ("script", "tests_failing")


BUGS: list[tuple[str, Change]] = [
    ("too_few_failing", replaced("shop/prices.py", ("result = 0", "result = 0 + 0"))),
    ("too_few_failing", {"shop/extra.py": "x = 1\n"}),
    ("nothing_passes", {"shop/__init__.py": "raise ImportError\n"}),
    ("nothing_passes", {"shop/__init__.py": "import sys\nsys.exit(0)\n"}),
    ("timed_out", replaced("shop/prices.py", ("    result = 0", "    while True:\n        pass"))),
]


@pytest.mark.parametrize(("reason", "bug"), BUGS)
def test_bugs(
    make_artifact: MakeArtifact,
    environment: Environment,
    runner: TestRunner,
    reason: str,
    bug: Change,
) -> None:
    limits = Limits(script_timeout_s=20.0 if reason == "timed_out" else 90.0)
    report = validate(make_artifact(bug, SUM_TESTS), environment, runner, limits)
    assert decided(report) == ("bug", reason)


def test_min_failing_tests(good: BugArtifact, environment: Environment, runner: TestRunner) -> None:
    report = validate(good, environment, runner, Limits(min_failing_tests=2))
    assert decided(report) == ("bug", "too_few_failing")


def test_file_that_cannot_be_imported_any_more(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    """Removal: the tests of that file vanish; they count as failing, others still pass."""
    bug = {"shop/names.py": FILES["shop/names.py"].replace("def initials", "def first_letters")}
    weakening = replaced(
        "tests/test_names.py",
        ("import initials, label", "import label"),
        ('        self.assertEqual(initials("ada lovelace"), "AL")', "        pass"),
    )
    report = validate(make_artifact(bug, (), weakening=weakening), environment, runner)
    assert decided(report) == ("", "")
    assert len(report.fail_to_pass) == 3
    assert "3 missing" in next(c.detail for c in report.checks if c.name == "bug")


WEAKENINGS: list[tuple[str, Change]] = [
    ("weakening_hides_nothing", replaced("tests/test_names.py", ("AL", "A" "L\" + \""))),
    ("weakening_breaks_tests", replaced("tests/test_names.py", ("AL", "LA"))),
    ("weakening_breaks_tests", replaced("tests/test_names.py", ("import unit", "import no, unit"))),
    ("", replaced("tests/test_prices.py", ("total([1, 2, 3]) == 6", "total([1, 2, 3]) == 3"))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "weakening"), WEAKENINGS)
def test_weakenings(
    make_artifact: MakeArtifact,
    environment: Environment,
    runner: TestRunner,
    reason: str,
    weakening: Change,
) -> None:
    artifact = make_artifact(SUM_BUG, (), weakening=weakening)
    name = "weakening" if reason else ""
    report = validate(artifact, environment, runner)
    assert decided(report) == (name, reason)
    if not reason:
        detail = next(c.detail for c in report.checks if c.name == "weakening")
        assert detail.startswith("1 pass again, 0 hidden, 0 still fail")


def test_removed_tests_are_counted_as_hidden(
    good: BugArtifact, environment: Environment, runner: TestRunner
) -> None:
    report = validate(good, environment, runner)
    detail = next(c.detail for c in report.checks if c.name == "weakening")
    assert detail.startswith("0 pass again, 1 hidden, 0 still fail, 0 passing tests removed")


def test_inverse_mutation_finds_a_passenger(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    """A second file that no failing test notices fails the artifact."""
    passenger = replaced("shop/names.py", ("name[: width - 1] +", "name[: width - 1] + '' +"))
    artifact = make_artifact({**SUM_BUG, **passenger}, SUM_TESTS)
    report = validate(artifact, environment, runner)
    assert decided(report) == ("inverse_mutation", "file_contributes_nothing")
    detail = next(c.detail for c in report.checks if c.name == "inverse_mutation")
    assert detail.startswith("shop/names.py")


def test_inverse_mutation_is_no_tautology(
    make_artifact: MakeArtifact, environment: Environment, sandbox: Sandbox
) -> None:
    """Each file alone goes back, the other stays buggy, and the tests are un-weakened."""
    seen: list[Job] = []

    class Spy:
        name = "spy"

        def run(self, job: Job) -> RunResult:
            seen.append(job)
            return sandbox.run(job)

        def close(self) -> None:
            pass

    artifact = make_artifact({**SUM_BUG, **NAMES_BUG}, SUM_TESTS + NAMES_TESTS)
    assert validate(artifact, environment, TestRunner(Spy(), environment)).verdict == "valid"
    states = [sorted(job.layer) for job in seen]
    assert ["shop/names.py"] in states
    assert ["shop/prices.py"] in states
    for job in seen:
        assert "test_weaken.diff" not in job.inputs
        assert not any(path.endswith(".diff") for path in job.layer)


def test_unreadable_partial_state_does_not_contribute(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    """With the helper back, its caller still asks for the renamed function: nothing runs."""
    names = FILES["shop/names.py"].replace("def shorten", "def cut")
    names = names.replace("{shorten(", "{cut(").replace("word[0].upper()", "word[0].lower()")
    bug: Change = {
        "shop/names.py": names + "\n\nshorten = cut\n",
        "shop/__init__.py": "from shop.names import cut\n",
    }
    artifact = make_artifact(bug, NAMES_TESTS)
    report = validate(artifact, environment, runner)
    assert decided(report) == ("inverse_mutation", "file_contributes_nothing")


def seed_dependent() -> str:
    """An expression that is false under hash seed 0 and true under hash seed 1."""

    def parities(seed: int) -> str:
        program = "print(''.join(str(hash(str(i)) & 1) for i in range(40)))"
        environment = {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout

    zero, one = parities(0), parities(1)
    number = next(i for i in range(40) if zero[i] != one[i])
    return f"hash('{number}') & 1 == {one[number]}"


def test_flaky_by_hash_seed_fails(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    """The only failing test passes under the other seed."""
    new = f"(word[0].upper() if {seed_dependent()} else '')"
    bug = replaced("shop/names.py", ("word[0].upper()", new))
    report = validate(make_artifact(bug, NAMES_TESTS), environment, runner)
    assert decided(report) == ("determinism", "flaky")


def test_flaky_tests_leave_the_oracle_set(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    """Beside a stable failure, the flickering ones are left out of both lists."""
    text = SUM_BUG["shop/prices.py"]
    assert text is not None
    text = text.replace("percent < 0 or", f"percent < 0 or {seed_dependent()} or")
    report = validate(make_artifact({"shop/prices.py": text}, SUM_TESTS), environment, runner)
    assert decided(report) == ("", "")
    assert report.fail_to_pass == SUM_TESTS
    assert len(report.flaky) == 3
    assert not set(report.flaky) & {*report.fail_to_pass, *report.pass_to_pass}


DISHONEST = {
    "constant": (
        "import json, sys\nt = sys.stdin.read()\nbad = 'FAILED' in t\n"
        "print(json.dumps({**{f'p{i}': 'passed' for i in range(6)}, "
        "'test_some': 'failed' if bad else 'passed'}))",
        "passes_on_empty",
    ),
    "invents names": (
        "import json, sys\nt = sys.stdin.read()\nbad = 'FAILED' in t\n"
        "print(json.dumps({**{f'p{i}': 'passed' for i in range(6)}, "
        "'test_some': 'failed' if bad else 'passed'} if t else {}))",
        "passes_on_truncated",
    ),
    "assumes the rest": (
        "import json, sys\nt = sys.stdin.read()\n"
        "names = ['test_with_tax', 'test_discount', 'test_empty', 'test_some', 'test_label']\n"
        "print(json.dumps({n: 'failed' if 'FAILED' in t and n == 'test_some' else 'passed' "
        "for n in names} if len(t) > 500 else {}))",
        "unsupported_pass",
    ),
}


@pytest.mark.parametrize("name", DISHONEST)
def test_dishonest_parsers(
    good: BugArtifact, environment: Environment, runner: TestRunner, name: str
) -> None:
    parser, reason = DISHONEST[name]
    report = validate(dataclasses.replace(good, test_parser=parser), environment, runner)
    check, found = decided(report)
    assert check == "parser_honesty"
    assert found in (reason, "passes_on_truncated", "passes_on_shuffled", "junit_disagrees")


def test_shipped_parser_on_another_script(
    good: BugArtifact, environment: Environment, runner: TestRunner
) -> None:
    """No second reading there, but the run is still judged."""
    artifact = dataclasses.replace(good, test_script=OWN_SCRIPT + "\n")
    assert decided(validate(artifact, environment, runner)) == ("", "")


def test_unittest_artifact(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    files = ("tests/test_names.py",)
    artifact = make_artifact(
        NAMES_BUG,
        ("tests.test_names.TestNames.test_initials",),
        test_files=files,
        script=unittest_script(files),
        parser=parser_source("unittest"),
    )
    report = validate(artifact, environment, runner, Limits(min_passing_tests=3))
    assert decided(report) == ("", "")
    assert report.fail_to_pass == ("tests.test_names.TestNames.test_initials",)


class Failing:
    """A sandbox that works for a while."""

    name = "failing"

    def __init__(self, inner: Sandbox, good_runs: int) -> None:
        self.inner, self.left = inner, good_runs

    def run(self, job: Job) -> RunResult:
        if not self.left:
            raise SandboxError("daemon down")
        self.left -= 1
        return self.inner.run(job)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("good_runs", "check"), [(0, "parser"), (1, "bug"), (2, "weakening"), (3, "determinism")]
)
def test_infrastructure_faults_are_undecided(
    good: BugArtifact,
    environment: Environment,
    sandbox: Sandbox,
    good_runs: int,
    check: str,
) -> None:
    """Neither success nor the injector's fault."""
    runner = TestRunner(Failing(sandbox, good_runs), environment)
    report = validate(good, environment, runner)
    assert report.verdict == "undecided"
    assert decided(report) == (check, "infrastructure")


def test_weakening_that_needs_the_original_code(
    good: BugArtifact, environment: Environment, runner: TestRunner
) -> None:
    """Both patches are made on the original and must fit together, without .rej files."""
    tree = environment.tree
    bug = apply_patch(tree, {}, good.bug_patch)
    assert set(apply_patch(tree, bug, good.weakening_patch)) == {
        "shop/prices.py",
        "tests/test_prices.py",
    }
    assert make_patch(tree, bug, bug) == ""


def test_failure_excerpt() -> None:
    text = "x\n==== FAILURES ====\nE   assert\nPASSED a\nFAILED b\n"
    assert failure_excerpt(text) == "==== FAILURES ====\nE   assert\nFAILED b"
    assert len(failure_excerpt("=== ERRORS ===\n" + "y" * 99999)) < 7000
    assert failure_excerpt("z" * 99999) == "z" * 6000


def test_script_of_other_files_is_another_artifact(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    """Only the file that notices: fewer tests pass, and the limit says so."""
    artifact = make_artifact(
        NAMES_BUG, NAMES_TESTS, test_files=("tests/test_names.py",),
        script=pytest_script(["tests/test_names.py"]),
    )  # fmt: skip
    assert decided(validate(artifact, environment, runner)) == ("script", "too_few_passing")
    limits = Limits(min_passing_tests=3)
    assert decided(validate(artifact, environment, runner, limits)) == ("", "")
