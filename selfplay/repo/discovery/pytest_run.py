"""One repository's whole suite, run in a sandbox with the probe, until a run comes to its end."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfplay.errors import RepoError
from selfplay.repo.discovery.pytest_settings import PytestSettings
from selfplay.repo.languages import python_functions
from selfplay.repo.spec import WHOLE, SuitePart
from selfplay.sandbox.base import WORKDIR, Environment, Job, Quota, RunResult, Sandbox

log = logging.getLogger(__name__)
TEST_TIMEOUT_S = 120
GRACE_S = 300.0
"""What a run has beyond the time of its suite: for the last test, and to tell what was found."""
TOO_LONG = (
    "take a part of the tests or more time: in a file NAME.yaml of repos.directory, beside the "
    "source (such as source: {{local: {{path: PATH}}}}), set tests: [FOLDER_OR_FILE, ...] or "
    "suite_timeout_s: SECONDS (now {now:g}), and say repo=NAME; see docs/repositories.md"
)
MAX_LEFT_OUT = 8
"""Tests that may end a whole run (crash, hang, interrupt) before the repository is given up."""
PYTEST = ("python", "-m", "pytest", "-q", "-p", "selfplay_probe")
OPTIONS = (
    *("--rootdir=.", "--continue-on-collection-errors", "-o", "addopts="),
    *("-o", "cache_dir=/tmp/.cache", "--tb=short", "--color=no"),
)
ENDED = {0, 1, 5}
"""pytest's exit codes of a run that came to its end: passed, failed, nothing collected."""
_CONFTEST = re.compile(
    rb"(?:unknown hook '\w+' in plugin <module '[^']+' from|ImportError while loading conftest) "
    rb"'" + WORKDIR.encode() + rb"/([^']+)/conftest\.py'"
)


class SuiteTooLong(RepoError):
    """A suite takes more time than it is given; says how to take a part of it."""


class Suite:
    """Runs a repository's suite, or the part of it that is wanted; tests that end a run are left
    out of the next one."""

    def __init__(self, environment: Environment, sandbox: Sandbox, part: SuitePart = WHOLE) -> None:
        python_path = f"/in:{environment.variables.get('PYTHONPATH', '')}"
        variables = {**environment.variables, "PYTHONPATH": python_path}
        self.environment = replace(environment, variables=variables)
        self.sandbox = sandbox
        self.given = environment.variables
        self.part = part
        self.settings = PytestSettings()
        self.left_out: dict[str, str] = {}

    @property
    def variables(self) -> dict[str, str]:
        """What the chosen settings add to the environment of every run."""
        return self.settings.variables(self.given)

    def run(
        self,
        variables: Mapping[str, str],
        wrapper: tuple[str, ...] = (),
        files: Sequence[str] = (),
    ) -> tuple[dict[str, Any], RunResult]:
        """The probe's document and the run, of everything or of these files. Raises `RepoError`
        when no run comes to its end, `SuiteTooLong` when it is too slow for that."""
        while True:
            result = self._run(variables, wrapper, files or self.part.paths)
            document, running, since_s = _read(result)
            late = document["unreached"] if document is not None else {}
            if document is not None and (document["exit"] in ENDED or late):
                if late and not document["results"]:
                    raise SuiteTooLong(f"discovery: {self._too_long(min(late))}")
                self._tell(document)
                return document, result
            hangs = running and result.duration_s - since_s >= TEST_TIMEOUT_S
            if result.timed_out and not hangs:
                raise SuiteTooLong(f"discovery: {self._too_long(running)}")
            broken = _broken_conftest(result)
            what = broken or running
            if not what or what in self.left_out or len(self.left_out) == MAX_LEFT_OUT:
                raise RepoError(f"discovery: {_trouble(result, running)}")
            self.left_out[what] = (
                "its conftest.py cannot be loaded, which ends the whole run"
                if broken
                else "ends the whole run: it crashes, hangs or interrupts pytest"
            )
            log.warning("%s %s", what, self.left_out[what])

    def _tell(self, document: Mapping[str, Any]) -> None:
        """Warn of what was not reached in time."""
        if document["unreached"]:
            log.warning(
                "the tests take more than %g s: %d of %d test files were not run to their end and "
                "are left out; %s",
                self.part.timeout_s,
                len(document["unreached"]),
                document["num_files"],
                TOO_LONG.format(now=self.part.timeout_s),
            )

    def _too_long(self, running: str) -> str:
        during = f" (during {running})" if running else ""
        limit = self.part.timeout_s
        remedy = TOO_LONG.format(now=self.part.timeout_s)
        return f"the test suite, or its first file, did not end in {limit:g} s{during}; {remedy}"

    def _run(
        self, variables: Mapping[str, str], wrapper: tuple[str, ...], named: Sequence[str]
    ) -> RunResult:
        here = Path(__file__).parent
        inputs = {
            "selfplay_probe.py": (here / "probe.py").read_bytes(),
            "python_functions.py": Path(python_functions.__file__).read_bytes(),
            "left_out.json": json.dumps(list(self.left_out)).encode(),
        }
        files = [f"--ignore={name}" for name in self.left_out if "::" not in name]
        without = tuple(f"{name}/" for name in self.left_out)
        named = [f for f in named if f not in self.left_out and not f.startswith(without)]
        job = Job(
            environment=self.environment,
            argv=(*wrapper, *PYTEST, *OPTIONS, *self.settings.options, *files, "--", *named),
            inputs=inputs,
            variables={
                "SELFPLAY_TEST_TIMEOUT_S": str(TEST_TIMEOUT_S),
                "SELFPLAY_SUITE_TIMEOUT_S": str(self.part.timeout_s),
                **self.variables,
                **variables,
            },
            quota=Quota(timeout_s=self.part.timeout_s + GRACE_S, output=64 << 20),
        )
        return self.sandbox.run(job)


def _read(result: RunResult) -> tuple[dict[str, Any] | None, str, float]:
    """The probe's document, if it was written, and the test that was running at the end, since
    which second."""
    word = result.files.get("running", b"").decode("utf-8", "surrogateescape")
    since, _, running = word.partition(" ")
    try:
        document: dict[str, Any] = json.loads(result.files["probe.json"])
    except (KeyError, ValueError):
        return None, running, float(since or 0)
    return document, running, float(since or 0)


def _broken_conftest(result: RunResult) -> str:
    """The folder below the root whose conftest.py pytest gave up on, or ""."""
    found = _CONFTEST.search(result.output)
    return found[1].decode("utf-8", "surrogateescape") if found else ""


def _trouble(result: RunResult, running: str) -> str:
    during = f" (during {running})" if running else ""
    tail = result.output[-1200:].decode(errors="replace").strip()
    return f"pytest did not run to its end{during}: {tail}"
