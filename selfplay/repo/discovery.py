"""Discovery: which tests a repository has, which of them can be trusted, and what each reaches."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfplay.errors import RepoError
from selfplay.repo.profile import RepoProfile, TestInfo
from selfplay.sandbox.base import Environment, Job, Quota, RunResult, Sandbox

log = logging.getLogger(__name__)
TIMEOUT_S = 900.0
PYTEST = ("python", "-m", "pytest", "-q", "-p", "selfplay_probe", "-p", "no:cacheprovider")
OPTIONS = ("--continue-on-collection-errors", "-o", "addopts=", "--tb=short", "--color=no")
SAVE_BYTE_CODE = '"$@"; code=$?; tar -C /tmp/pyc -cf /out/pyc.tar . 2>/dev/null; exit $code'


def discover(environment: Environment, sandbox: Sandbox, byte_code: Path) -> RepoProfile:
    """Run the suite twice, once with coverage and once plainly under another hash seed.

    Tests that pass both times are kept; others are excluded with a reason. The second run's
    byte code (standard library and test frameworks included) is unpacked into `byte_code`.
    Raises `RepoError` when no test passes.
    """
    covered = _run(environment, sandbox, {"SELFPLAY_COVERAGE": "1"}, ())
    first = _probe(covered)
    plain = _run(
        environment,
        sandbox,
        {
            "PYTHONHASHSEED": "1",
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": "/tmp/pyc",
        },
        ("sh", "-c", SAVE_BYTE_CODE, "sh"),
    )
    second = _probe(plain)
    unpack(plain.files.get("pyc.tar", b""), byte_code)
    return profile_of(first, second)


def _run(
    environment: Environment,
    sandbox: Sandbox,
    variables: Mapping[str, str],
    wrapper: tuple[str, ...],
) -> RunResult:
    here = Path(__file__).parent
    inputs = {
        "selfplay_probe.py": (here / "probe.py").read_bytes(),
        "functions.py": (here / "functions.py").read_bytes(),
    }
    python_path = f"/in:{environment.variables.get('PYTHONPATH', '')}"
    return sandbox.run(
        Job(
            environment=replace(
                environment, variables={**environment.variables, "PYTHONPATH": python_path}
            ),
            argv=(*wrapper, *PYTEST, *OPTIONS),
            inputs=inputs,
            variables=variables,
            quota=Quota(timeout_s=TIMEOUT_S, output=64 << 20),
        )
    )


def _probe(result: RunResult) -> dict[str, Any]:
    if result.timed_out:
        raise RepoError(f"discovery: the test suite did not end within {TIMEOUT_S:.0f} s")
    try:
        document: dict[str, Any] = json.loads(result.files["probe.json"])
    except (KeyError, ValueError):
        tail = result.output[-600:].decode(errors="replace")
        raise RepoError(f"discovery: pytest did not run to its end: {tail}") from None
    return document


def profile_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> RepoProfile:
    """Merge both runs' probe documents into a profile."""
    tests: dict[str, TestInfo] = {}
    excluded: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for test, entry in first["results"].items():
        other = second["results"].get(test)
        mine, theirs = _outcome(entry), _outcome(other) if other else "missing"
        file = entry["file"]
        if other:
            seconds[file] = seconds.get(file, 0.0) + other["seconds"]
        if mine == theirs == "passed":
            tests[test] = TestInfo(
                file=file,
                duration_s=round(other["seconds"] if other else 0.0, 4),
                functions=frozenset(first["reached"].get(test, ())),
            )
        elif mine == theirs == "skipped":
            excluded[test] = "skipped"
        elif mine == theirs:
            excluded[test] = f"failing: {entry['why']}"
        else:
            excluded[test] = f"flaky: {mine}, then {theirs}"
    if not tests:
        why = next(iter(excluded.values()), "none was collected")
        raise RepoError(f"discovery: no passing test found ({why})")
    files = {info.file for info in tests.values()}
    return RepoProfile(
        runner="pytest",
        test_files={file: round(seconds[file], 4) for file in sorted(files)},
        tests=tests,
        excluded=excluded,
    )


def _outcome(entry: Mapping[str, Any]) -> str:
    """passed only when every phase passed and nothing was expected to fail."""
    outcomes = entry["outcomes"]
    if any(outcome == "failed" for _, outcome, _ in outcomes):
        return "failed"
    if any(outcome == "skipped" or xfail for _, outcome, xfail in outcomes):
        return "skipped"
    called = any(when == "call" and outcome == "passed" for when, outcome, _ in outcomes)
    return "passed" if called else "skipped"


def unpack(archive: bytes, target: Path) -> None:
    """Unpack the byte code that a sandbox left behind: plain files and directories only."""
    target.mkdir(parents=True, exist_ok=True)
    if not archive:
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(target, filter="data")
