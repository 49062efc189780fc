"""Where our verdict on a project's tests and the project's own `pytest` run differ, test by test.

    python scripts/compare_pytest.py WHAT... [--file LIST] [--timeout-s 600] [--log FILE] [--top 10]

WHAT and LIST are as for `survey_repos.py`. Each repository is prepared (or taken from the cache),
then its tests are run three ways in the same environment: as the project does it, by a bare
`python -m pytest` with the settings and addopts of the project and none of ours; as discovery
judged it (the profile); and as bugs are graded, by the shipped script on all test files of the
profile. An option of the project's addopts that pytest refuses here is left out, and said.

A gap is a set of tests of one repository on which two of them differ in the same way. Prints the
`--top` largest and, as the last line, one JSON object: {"repos": n, "tests": n, "same": n,
"gaps": [{"repo", "tests", "plain", "profile", "graded", "reason", "example"}...], "refused":
{repo: [option...]}, "failed": {repo: reason}}. The exit code is 0 whatever was found.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from survey_repos import LONGEST_REASON, packages, reason_of

from selfplay.bugs.test_runs.junit import unsupported_passes
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner, passed_tests
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.commands.output import print_json, print_table, say
from selfplay.config import SandboxConfig
from selfplay.errors import RepoError, SelfplayError
from selfplay.files import append_json_lines, read_json_lines
from selfplay.repo.discovery.kept_options import without_refused
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.discovery.pytest_config import root_config
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.spec import spec_from
from selfplay.sandbox.base import Job, Quota, Sandbox
from selfplay.sandbox.select import open_sandbox

READER = '''
"""Writes the outcome of every phase of every test; changes nothing."""
import json
found, exits = {}, []
def pytest_runtest_logreport(report):
    phase = [report.when, report.outcome, hasattr(report, "wasxfail")]
    found.setdefault(report.nodeid, []).append(phase)
def pytest_collectreport(report):
    if report.outcome != "passed":
        found[report.nodeid] = [["collect", report.outcome, False]]
def pytest_sessionfinish(session, exitstatus):
    exits.append(int(exitstatus))
def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        with open("/out/found.json", "w") as file:
            json.dump({"found": found, "exit": exits}, file)
'''
COLUMNS = ("repo", "tests", "plain", "profile", "graded", "reason", "example")
NO_TEST = "not run"


def main() -> int:
    """Compare the repositories that the command line names."""
    options = parse_options()
    if options.one:
        name, commit, url = json.loads(options.one)
        return compare_one(name, commit, url, options)
    lines = read_json_lines(options.log) if options.log else ()
    done = {(line["repo"], line["commit"]): line for _, line in lines}
    results: list[dict[str, Any]] = []
    for name, commit, url in packages(options.names, options.file):
        result = done.get((name, commit)) or in_own_process(name, commit, url, options)
        if options.log and (name, commit) not in done:
            append_json_lines(options.log, [result])
        results.append(result)
    gaps = sorted((g for r in results for g in r.get("gaps", ())), key=lambda gap: -gap["tests"])
    rows = [[gap[key] for key in COLUMNS] for gap in gaps[: options.top]]
    print_table("largest gaps", COLUMNS, rows)
    print_json(
        {
            "repos": sum("gaps" in result for result in results),
            "tests": sum(result.get("tests", 0) for result in results),
            "same": sum(result.get("same", 0) for result in results),
            "gaps": gaps,
            "refused": {r["repo"]: r["refused"] for r in results if r.get("refused")},
            "failed": {r["repo"]: r["failed"] for r in results if "failed" in r},
        }
    )
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="WHAT")
    parser.add_argument("--file", type=Path, help="a list of them, one a line")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="for each repository")
    parser.add_argument("--sandbox", default="bubblewrap")
    parser.add_argument("--log", type=Path, help="JSON lines of finished repositories")
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(name: str, commit: str, url: str, options: argparse.Namespace) -> dict[str, Any]:
    """The comparison of one repository, or why there is none."""
    say(f"comparing {name} {commit}".rstrip())
    argv = [sys.executable, __file__, "--one", json.dumps([name, commit, url])]
    argv += ["--timeout-s", str(options.timeout_s), "--sandbox", options.sandbox]
    known = {"repo": name, "commit": commit}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=options.timeout_s)
    except subprocess.TimeoutExpired:
        return known | {"failed": f"not done after {options.timeout_s:g} s"}
    if done.returncode:
        return known | {"failed": reason_of(done.stderr)}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return known | result


def compare_one(name: str, commit: str, url: str, options: argparse.Namespace) -> int:
    """Prints the comparison of one repository as JSON."""
    source = {"git": {"url": url, "commit": commit}}
    if not url:
        source = {"pypi": {"project": name, "version": commit}}
    sandbox = open_sandbox(options.sandbox, SandboxConfig(num_workers=1))
    try:
        prepared = prepare(spec_from(name, {"source": source}), sandbox)
        plain, refused = plain_run(prepared, sandbox, options.timeout_s)
        graded = graded_run(prepared, sandbox, options.timeout_s)
    except SelfplayError as error:
        say(str(error))
        return 2
    finally:
        sandbox.close()
    tests = sorted({*plain, *graded, *prepared.profile.tests, *prepared.profile.excluded})
    gaps = gaps_of(name, tests, plain, prepared.profile, graded)
    same = len(tests) - sum(gap["tests"] for gap in gaps)
    print_json({"tests": len(tests), "same": same, "gaps": gaps, "refused": refused})
    return 0


def plain_run(
    prepared: PreparedRepo, sandbox: Sandbox, timeout_s: float
) -> tuple[dict[str, str], list[str]]:
    """({test: outcome}, options that pytest refused) of the project's own run.

    Raises `RepoError` where it does not come to a report.
    """
    ours = {*prepared.profile.variables, "PYTEST_ADDOPTS"}
    environment = prepared.environment
    variables = {key: value for key, value in environment.variables.items() if key not in ours}
    variables["PYTHONPATH"] = f"/in:{variables.get('PYTHONPATH', '')}"
    addopts, refused = list(root_config(environment.tree).addopts), list[str]()
    while True:
        replaced = ("-o", f"addopts={shlex.join(addopts)}") if refused else ()
        job = Job(
            environment=dataclasses.replace(environment, variables=variables),
            argv=("python", "-m", "pytest", "-p", "selfplay_reader", *replaced),
            inputs={"selfplay_reader.py": READER.encode()},
            quota=Quota(timeout_s=timeout_s, output=64 << 20),
        )
        result = sandbox.run(job)
        text = result.output.decode(errors="replace")
        document = json.loads(result.files.get("found.json", b"{}"))
        if document.get("found") or result.timed_out:
            break
        kept = without_refused(addopts, text)
        if list(kept) == addopts:
            break
        for number, word in enumerate(addopts):
            value = number and addopts[number - 1] not in kept and not word.startswith("-")
            if value and "=" not in addopts[number - 1]:
                kept = tuple(other for other in kept if other != word)  # of the refused option
        refused += [word for word in addopts if word not in kept]
        addopts = list(kept)
    if not document.get("found"):
        raise RepoError(f"the project's own run: {' '.join(text[-LONGEST_REASON:].split())}")
    return {test: outcome(phases) for test, phases in document["found"].items()}, refused


def outcome(phases: Sequence[Sequence[Any]]) -> str:
    """What pytest's closing line counts a test as; an error counts as failed."""
    if any(word == "failed" for _, word, _ in phases):
        return "failed"
    if any(word == "skipped" or xfail for _, word, xfail in phases):
        return "skipped"
    return "passed"


def graded_run(prepared: PreparedRepo, sandbox: Sandbox, timeout_s: float) -> dict[str, str]:
    """{test: verdict} of the shipped script on the original code; a pass counts where the XML
    says the same."""
    script = pytest_script(prepared.profile.test_files)
    runner = TestRunner(sandbox=sandbox, environment=prepared.environment)
    run = runner.run(script, parser_source("pytest"), {}, timeout_s=timeout_s)
    bare = unsupported_passes(passed_tests(run.table), run.junit)
    return {**run.table, **dict.fromkeys(bare, "passed without XML")}


def judged(profile: RepoProfile, test: str) -> tuple[str, str]:
    """(verdict, reason) of discovery."""
    if test in profile.tests:
        return "passed", ""
    why = profile.excluded.get(test)
    if why is None:
        return NO_TEST, ""
    kind = why.partition(":")[0]
    return {"failing": "failed"}.get(kind, kind), why


def gaps_of(
    name: str,
    tests: Sequence[str],
    plain: Mapping[str, str],
    profile: RepoProfile,
    graded: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Sets of tests that are judged differently in the same way, the largest first.

    Grading says nothing of skipped tests, and is asked for the files of the profile alone.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    first: dict[tuple[str, str, str], tuple[str, str]] = {}
    for test in tests:
        verdict, why = judged(profile, test)
        mine = plain.get(test, NO_TEST)
        other = graded.get(test, verdict if verdict != "passed" else NO_TEST)
        if mine == verdict == other:
            continue
        counts[mine, verdict, other] += 1
        first.setdefault((mine, verdict, other), (why, test))
    return [
        {
            **{"repo": name, "tests": number, "plain": key[0], "profile": key[1]},
            **{"graded": key[2], "reason": re.sub(r"\s+", " ", first[key][0])[-LONGEST_REASON:]},
            "example": first[key][1],
        }
        for key, number in counts.most_common()
    ]


if __name__ == "__main__":
    sys.exit(main())
