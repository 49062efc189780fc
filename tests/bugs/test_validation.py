"""Validation: each check by an artifact that fails it, and what earlier systems got wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from selfplay.bugs.patches.layers import apply_patch, make_patch
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import CHECKS, failure_excerpt, validate
from selfplay.corpus.corpus import Corpus
from selfplay.sandbox.base import Environment, Job, RunResult, Sandbox
from selfplay.types import BugArtifact, Limits, ValidationReport

from .shop import (
    FILES,
    SUM_BUG,
    SUM_TESTS,
    TEST_FILES,
    MakeArtifact,
    replaced,
)

NAMES_BUG = replaced("shop/names.py", ("word[0].upper()", "word[0].lower()"))
NAMES_TESTS = ("tests/test_names.py::TestNames::test_initials",)
OWN_SCRIPT = "python -m pytest -v -rpfE -p no:cacheprovider --color=no " + " ".join(TEST_FILES)


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
    """First-order, one file: at most six runs of the suite; again: none."""
    runner = TestRunner(sandbox, environment)
    report = validate(good, environment, runner)
    assert decided(report) == ("", "")
    assert report.fail_to_pass == SUM_TESTS
    assert len(report.pass_to_pass) == 9
    assert report.flaky == ()
    assert report.num_runs == runner.num_runs == 6
    assert "TestTotal.test_some" in report.failure_output
    assert "PASSED" not in report.failure_output
    assert validate(good, environment, runner).num_runs == 0


def test_a_sandbox_that_cannot_run_the_repository_is_no_verdict(
    good: BugArtifact, environment: Environment, sandbox: Sandbox
) -> None:
    """sandbox=bubblewrap with a Docker image: every bug was found malformed."""
    image = dataclasses.replace(environment, image="python:3.11", mounts={}, digest="image")
    report = validate(good, image, TestRunner(sandbox, image))
    assert (report.verdict, report.reason) == ("undecided", "infrastructure")
    assert "use sandbox=docker" in next(c.detail for c in report.checks if c.detail[:3] == "the")


def test_what_the_original_cost_is_paid_once(
    good: BugArtifact,
    make_artifact: MakeArtifact,
    environment: Environment,
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    """The next bug of one file: three runs. In the next process: four, for the corpus knows."""
    other = make_artifact(NAMES_BUG, NAMES_TESTS)
    with Corpus(tmp_path / "corpus.sqlite") as corpus:
        runner = TestRunner(sandbox, environment, originals=corpus.run_cache)
        counts = [validate(artifact, environment, runner).num_runs for artifact in (good, other)]
        assert counts == [6, 3]
    with Corpus(tmp_path / "corpus.sqlite") as corpus:
        runner = TestRunner(sandbox, environment, originals=corpus.run_cache)
        report = validate(good, environment, runner)
    assert (report.verdict, report.num_runs, runner.num_runs) == ("valid", 4, 4)


def test_two_files_each_contribute(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner
) -> None:
    artifact = make_artifact({**SUM_BUG, **NAMES_BUG}, SUM_TESTS + NAMES_TESTS)
    limits = Limits(min_changed_files=2, min_failing_tests=2)
    report = validate(artifact, environment, runner, limits)
    assert decided(report) == ("", "")
    assert set(report.fail_to_pass) == {*SUM_TESTS, *NAMES_TESTS}


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


def test_removed_tests_are_counted_as_hidden(
    good: BugArtifact, environment: Environment, runner: TestRunner
) -> None:
    report = validate(good, environment, runner)
    detail = next(c.detail for c in report.checks if c.name == "weakening")
    assert detail.startswith("0 pass again, 1 hidden, 0 still fail, 0 passing tests removed")


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


def test_shipped_parser_on_another_script(
    good: BugArtifact, environment: Environment, runner: TestRunner
) -> None:
    """No second reading there, but the run is still judged."""
    artifact = dataclasses.replace(good, test_script=OWN_SCRIPT + "\n")
    assert decided(validate(artifact, environment, runner)) == ("", "")


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


BROKEN = "".join(f"\n\ndef {name}(*_):\n    1 / 0\n" for name in ("initials", "shorten", "label"))


@pytest.mark.parametrize(
    ("path", "more", "want"),
    [
        ("shop/names.py", BROKEN, ("", "")),
        ("shop/names.py", "\nraise ValueError\n", ("bug", "nothing_passes")),
        ("shop/__init__.py", "\nraise ValueError\n", ("bug", "nothing_passes")),
    ],
)
def test_every_oracle_test_may_fail_where_others_still_pass(
    make_artifact: MakeArtifact,
    environment: Environment,
    runner: TestRunner,
    path: str,
    more: str,
    want: tuple[str, str],
) -> None:
    """Fail, that is: what cannot be loaded at all is broken."""
    oracle = "tests/test_names.py"
    text = (environment.tree / path).read_text() + more
    weakening = {oracle: "def test_nothing():\n    pass\n"}
    artifact = make_artifact({path: text}, (), test_files=(oracle,), weakening=weakening)
    report = validate(artifact, environment, runner, Limits(min_passing_tests=1))
    assert decided(report) == want
    assert report.pass_to_pass == ()
