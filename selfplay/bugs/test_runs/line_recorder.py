"""A pytest plugin that goes into the sandbox: which lines the tests run. Self-contained.

Reads /in/judged.json, {test id: 1 for a failing test, 0 for a passing one}; writes /out/lines.json,
{path: {line: [failing tests that run it, passing ones]}} of the repository's own files. What runs
when a module is imported belongs to no test.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

ROOT = Path("/testbed")
judged: dict[str, int] = {}
measured: Any = None


def pytest_configure(config: Any) -> None:
    global measured
    import coverage

    judged.update(json.loads(Path("/in/judged.json").read_text(encoding="utf-8")))
    measured = coverage.Coverage(
        data_file=None, source=[str(ROOT)], config_file=False, messages=False
    )
    with contextlib.suppress(coverage.CoverageException):  # before it could be chosen
        # sys.monitoring, the default of Python 3.14, tells a line's first test alone
        measured.set_option("run:core", "ctrace")
    measured.start()


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    measured.switch_context(nodeid if nodeid in judged else "")


def pytest_runtest_logfinish(nodeid: str, location: Any) -> None:
    measured.switch_context("")


def pytest_unconfigure(config: Any) -> None:
    with warnings.catch_warnings():  # the project may have made errors of them
        warnings.simplefilter("ignore")
        measured.stop()
        data = measured.get_data()
    found: dict[str, dict[int, list[int]]] = {}
    for name in data.measured_files():
        path = Path(name)
        if not path.is_relative_to(ROOT):
            continue
        counts = {
            line: [sum(judged[test] for test in tests), sum(not judged[test] for test in tests)]
            for line, run_by in data.contexts_by_lineno(name).items()
            if (tests := {test for test in run_by if test})
        }
        if counts:
            found[path.relative_to(ROOT).as_posix()] = counts
    Path("/out/lines.json").write_text(json.dumps(found), encoding="utf-8")
