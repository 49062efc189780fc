"""Discovery: which tests a repository has, which of them can be trusted, and what each reaches."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfplay.errors import RepoError
from selfplay.repo.archives import unpack_tar
from selfplay.repo.profile import RepoProfile, TestInfo
from selfplay.repo.tap import discover_tap, tap_files
from selfplay.sandbox.base import WORKDIR, Environment, Job, Quota, RunResult, Sandbox

log = logging.getLogger(__name__)
TIMEOUT_S = 900.0
TEST_TIMEOUT_S = 120
MAX_LEFT_OUT = 8
"""Tests that may end a whole run (crash, hang, interrupt) before the repository is given up."""
PYTEST = ("python", "-m", "pytest", "-q", "-p", "selfplay_probe", "-p", "no:cacheprovider")
OPTIONS = ("--continue-on-collection-errors", "-o", "addopts=", "--tb=short", "--color=no")
PATTERNS: tuple[tuple[str, ...], ...] = (
    (),
    ("-o", "python_files=test*.py *test.py *tests.py"),  # what unittest would find, and more
)
SAVE_BYTE_CODE = '"$@"; code=$?; tar -C /tmp/pyc -cf /out/pyc.tar . 2>/dev/null; exit $code'
ENDED = {0, 1, 5}
"""pytest's exit codes of a run that came to its end: passed, failed, nothing collected."""


class _Suite:
    """Runs a repository's whole suite; tests that end a run are left out of the next one."""

    def __init__(self, environment: Environment, sandbox: Sandbox) -> None:
        python_path = f"/in:{environment.variables.get('PYTHONPATH', '')}"
        variables = {**environment.variables, "PYTHONPATH": python_path}
        self.environment = replace(environment, variables=variables)
        self.sandbox = sandbox
        self.options: tuple[str, ...] = ()
        self.left_out: dict[str, str] = {}

    def run(
        self, variables: Mapping[str, str], wrapper: tuple[str, ...] = ()
    ) -> tuple[dict[str, Any], RunResult]:
        """The probe's document and the run. Raises `RepoError` when no run comes to its end."""
        while True:
            result = self._run(variables, wrapper)
            document, running = _read(result)
            if document is not None and document["exit"] in ENDED:
                return document, result
            if not running or running in self.left_out or len(self.left_out) == MAX_LEFT_OUT:
                raise RepoError(f"discovery: {_trouble(result, running)}")
            self.left_out[running] = "ends the whole run: it crashes, hangs or interrupts pytest"
            log.warning("%s %s", running, self.left_out[running])

    def _run(self, variables: Mapping[str, str], wrapper: tuple[str, ...]) -> RunResult:
        here = Path(__file__).parent
        inputs = {
            "selfplay_probe.py": (here / "probe.py").read_bytes(),
            "python_functions.py": (here / "python_functions.py").read_bytes(),
            "left_out.json": json.dumps(list(self.left_out)).encode(),
        }
        job = Job(
            environment=self.environment,
            argv=(*wrapper, *PYTEST, *OPTIONS, *self.options),
            inputs=inputs,
            variables={"SELFPLAY_TEST_TIMEOUT_S": str(TEST_TIMEOUT_S), **variables},
            quota=Quota(timeout_s=TIMEOUT_S, output=64 << 20),
        )
        return self.sandbox.run(job)


def discover(environment: Environment, sandbox: Sandbox, byte_code: Path) -> RepoProfile:
    """Run the suite twice, once with coverage and once plainly under another hash seed.

    Tests that pass both times are kept; others are excluded with a reason. Where the repository's
    own settings lead pytest to no passing test, wider file names are tried. The second run's
    byte code of the standard library and the installed packages is unpacked into `byte_code`.
    Where pytest finds no passing test and there are `*.t` files, these are run as TAP tests.
    Raises `RepoError` when no test passes.
    """
    speaks_tap = bool(tap_files(environment.tree))
    if speaks_tap and not any(environment.tree.rglob("*.py")):
        return _discover_tap(environment, sandbox, byte_code)
    suite = _Suite(environment, sandbox)
    first: dict[str, Any] = {}
    for suite.options in PATTERNS:
        first, _ = suite.run({"SELFPLAY_COVERAGE": "1"})
        if any(_outcome(entry) == "passed" for entry in first["results"].values()):
            break
    else:
        if speaks_tap:
            return _discover_tap(environment, sandbox, byte_code)
    second, plain = suite.run(
        {
            "PYTHONHASHSEED": "1",
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": "/tmp/pyc",
        },
        ("sh", "-c", SAVE_BYTE_CODE, "sh"),
    )
    unpack(plain.files.get("pyc.tar", b""), byte_code)
    return profile_of(first, second, suite.left_out)


def _discover_tap(environment: Environment, sandbox: Sandbox, byte_code: Path) -> RepoProfile:
    byte_code.mkdir(parents=True, exist_ok=True)
    return discover_tap(environment, sandbox)


def _read(result: RunResult) -> tuple[dict[str, Any] | None, str]:
    """The probe's document, if it was written, and the test that was running at the end."""
    running = result.files.get("running", b"").decode("utf-8", "surrogateescape")
    try:
        document: dict[str, Any] = json.loads(result.files["probe.json"])
    except (KeyError, ValueError):
        return None, running
    return document, running


def _trouble(result: RunResult, running: str) -> str:
    during = f" (during {running})" if running else ""
    if result.timed_out:
        return f"the test suite did not end within {TIMEOUT_S:.0f} s{during}"
    tail = result.output[-600:].decode(errors="replace").strip()
    return f"pytest did not run to its end{during}: {tail}"


def profile_of(
    first: Mapping[str, Any], second: Mapping[str, Any], left_out: Mapping[str, str]
) -> RepoProfile:
    """Merge both runs' probe documents into a profile."""
    tests: dict[str, TestInfo] = {}
    excluded = dict(left_out)
    seconds: dict[str, float] = {}
    for test, entry in first["results"].items():
        if test in left_out:
            continue
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
        raise RepoError(f"discovery: no passing test found (the first: {why})")
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
    """Unpack the byte code that a sandbox left behind: plain files and directories only.

    The tree's own is left out: every later run sees `target`, and byte code of the original source
    is the answer to every bug (and of the oracle tests, which a solver's tree lacks).
    """
    target.mkdir(parents=True, exist_ok=True)
    if not archive:
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        unpack_tar(tar, target, _packages_only(tar))


def _packages_only(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        top = parts[0] if parts else ""
        if (member.isfile() or member.isdir()) and top not in (WORKDIR.strip("/"), "in", "tmp"):
            yield member
