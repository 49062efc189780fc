"""Every case on every sandbox, and what the suite must hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .bench import open_bench
from .case import ArtifactCase, Case, FixCase
from .families import CASES, FAMILIES
from .projects import PROJECTS
from .table import DOCUMENT, table

DOCS = Path(__file__).resolve().parents[2] / "docs"
BACKENDS = ["forked", pytest.param("docker", marks=pytest.mark.docker)]
UNREACHED = {
    "weakening_does_not_apply": "in scope: the bug may not touch what the weakening touches",
    "nothing_to_pass": "no validated task lacks FAIL_TO_PASS",
    "parser_empty": "with the bug: without a pass the reason is nothing_passes",
    "parser_failed": "of a fix: shipped parsers read any text",
    "gold_": "with the reason of a grading: tests/bugs/test_canary.py has projects of that kind",
    "gold_canary": "the same",
    "gold_no_results": "the same",
    "gold_fail_to_pass": "the same",
    "gold_exit_status_disagrees": "the same",
}
"""Reason codes that an artifact or a fix cannot reach in every place where they are listed."""


@pytest.fixture(scope="module", params=BACKENDS)
def verdicts(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[str]]]:
    """The verdicts on the chosen cases by id: they are on their way, several at a time."""
    names = {item.name for item in request.session.items}
    wanted = [case for case in CASES if f"test_verdict[{request.param}-{case.id}]" in names]
    num_threads = 2 * (os.cpu_count() or 1)  # some only wait for a script that hangs
    with open_bench(request.param) as bench, ThreadPoolExecutor(num_threads) as threads:
        yield {case.id: threads.submit(bench.verdict, case) for case in wanted}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_verdict(verdicts: dict[str, Future[str]], case: Case) -> None:
    assert verdicts[case.id].result() == case.want


def test_what_is_told_by_reading_costs_no_run() -> None:
    """Cheapest first: static checks, and fixes that are out before a run."""
    with open_bench("forked") as bench:
        static = ("test_files/", "scope/", "forbidden_content/")
        for case in (case for case in CASES if case.want.startswith(static)):
            assert bench.verdict(case) == case.want and bench.num_runs == 0, case.id
        for repo in PROJECTS:
            bench.task(repo)
        spent = bench.num_runs
        out = ("tampering", "only_tests", "only_hooks", "empty_patch", "patch_malformed")
        for case in (case for case in CASES if case.want in out):
            assert bench.verdict(case) == case.want and bench.num_runs == spent, case.id


def test_flaky_tests_are_on_no_list() -> None:
    case = next(case for case in CASES if case.name.startswith("a flickering failure beside"))
    assert isinstance(case, ArtifactCase)
    with open_bench("forked") as bench:
        report = bench.report(case)
    assert report.verdict == "invalid"
    assert not set(report.flaky) & {*report.fail_to_pass, *report.pass_to_pass}


def test_the_suite_is_wide_enough() -> None:
    assert len(CASES) >= 60
    repos = {case.repo for case in CASES}
    assert repos == set(PROJECTS) and len(repos) >= 3
    assert {"pytest", "unittest", "tap"} == {project.runner for project in PROJECTS.values()}
    assert len({case.id for case in CASES}) == len(CASES)
    valid = [case for case in CASES if case.want in ("valid", "resolved")]
    assert {case.repo for case in valid} == repos, "a suite that refuses everything is no suite"


def test_every_reason_code_is_reached() -> None:
    """The tables of docs/validation.md and the cases tell of the same reasons."""
    checks, grading = (DOCS / "validation.md").read_text().split("## Grading")
    listed = {
        f"{row[1]}/{reason}"
        for row in re.finditer(r"^\| `(\w+)` \|.*\|(.*)\|$", checks, re.MULTILINE)
        for reason in re.findall(r"`(\w+)`", row[2])
        if reason != "parser"  # "and those of"
    }
    artifacts = {case.want for case in CASES if isinstance(case, ArtifactCase)}
    reached = {want for want in artifacts if " " not in want and want != "valid"}
    assert listed - reached == {
        code for code in listed - reached if code.split("/")[1] in UNREACHED
    }
    checks_reached = {code.split("/")[0] for code in reached} | {"gold_resolves"}
    assert checks_reached == {code.split("/")[0] for code in listed}
    rows = re.findall(r"^\|((?: `\w+`,?)+) \|", grading, re.MULTILINE)
    reasons = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    graded = {case.want for case in CASES if isinstance(case, FixCase)} - {"resolved", "errored"}
    assert graded <= reasons
    assert reasons - graded <= set(UNREACHED)


def test_the_document_is_up_to_date() -> None:
    """After a change of the cases: `python scripts/conformance.py --write-docs`."""
    assert (DOCS / DOCUMENT).read_text() == table(FAMILIES)
