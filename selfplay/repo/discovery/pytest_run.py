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
from selfplay.sandbox.base import WORKDIR, Environment, Job, Quota, RunResult, Sandbox

log = logging.getLogger(__name__)
TIMEOUT_S = 900.0
TEST_TIMEOUT_S = 120
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


class Suite:
    """Runs a repository's whole suite; tests that end a run are left out of the next one."""

    def __init__(self, environment: Environment, sandbox: Sandbox) -> None:
        python_path = f"/in:{environment.variables.get('PYTHONPATH', '')}"
        variables = {**environment.variables, "PYTHONPATH": python_path}
        self.environment = replace(environment, variables=variables)
        self.sandbox = sandbox
        self.given = environment.variables
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
        when no run comes to its end."""
        while True:
            result = self._run(variables, wrapper, files)
            document, running = _read(result)
            if document is not None and document["exit"] in ENDED:
                return document, result
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
                **self.variables,
                **variables,
            },
            quota=Quota(timeout_s=TIMEOUT_S, output=64 << 20),
        )
        return self.sandbox.run(job)


def _read(result: RunResult) -> tuple[dict[str, Any] | None, str]:
    """The probe's document, if it was written, and the test that was running at the end."""
    running = result.files.get("running", b"").decode("utf-8", "surrogateescape")
    try:
        document: dict[str, Any] = json.loads(result.files["probe.json"])
    except (KeyError, ValueError):
        return None, running
    return document, running


def _broken_conftest(result: RunResult) -> str:
    """The folder below the root whose conftest.py pytest gave up on, or ""."""
    found = _CONFTEST.search(result.output)
    return found[1].decode("utf-8", "surrogateescape") if found else ""


def _trouble(result: RunResult, running: str) -> str:
    during = f" (during {running})" if running else ""
    if result.timed_out:
        return f"the test suite did not end within {TIMEOUT_S:.0f} s{during}"
    tail = result.output[-1200:].decode(errors="replace").strip()
    return f"pytest did not run to its end{during}: {tail}"
