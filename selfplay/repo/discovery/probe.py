"""A pytest plugin that discovery passes into the sandbox: outcome, seconds and functions of each
test. Self-contained: it runs beside the repository's own tests. Writes /out/probe.json, and the
test that is running into /out/running, so that one that ends the whole run is known."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from python_functions import list_python_functions  # type: ignore[import-not-found]

ROOT = Path("/testbed")
results: dict[str, dict[str, Any]] = {}
places: dict[str, list[str]] = {}
"""Test id -> its file and the kind of its item."""
ended: list[str] = []
"""Files that raise SystemExit when they are imported."""
measured: Any = None
exit_code = -1
began = time.monotonic()
stopped = False


def pytest_configure(config: Any) -> None:
    global measured
    if os.environ.get("SELFPLAY_COVERAGE"):
        import coverage

        measured = coverage.Coverage(
            data_file=None, source=[str(ROOT)], config_file=False, messages=False
        )
        with contextlib.suppress(coverage.CoverageException):  # before it could be chosen
            # sys.monitoring, the default of Python 3.14, tells a line's first test alone
            measured.set_option("run:core", "ctrace")
        measured.start()


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    left_out = set(json.loads(Path("/in/left_out.json").read_text(encoding="utf-8")))
    items[:] = [item for item in items if item.nodeid not in left_out]
    for item in items:
        file = Path(getattr(item, "path", None) or item.fspath)
        inside = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else str(file)
        places[item.nodeid] = [inside, type(item).__name__]


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: Any) -> Iterator[None]:
    """A file that ends the interpreter when it is imported is a broken file, not a broken run."""
    if isinstance(collector, pytest.Module):
        note_running(collector.nodeid)
    outcome: Any = yield
    error = outcome.excinfo[1] if outcome.excinfo else None
    if error is None or isinstance(error, SystemExit):
        note_running("")
    if isinstance(error, SystemExit):
        why = f"ends the interpreter when it is imported (SystemExit: {error.code})"
        ended.append(collector.nodeid)
        outcome.force_result(pytest.CollectReport(collector.nodeid, "failed", why, []))


def note_running(nodeid: str) -> None:
    """Leave word of what is run, since which second, with a limit on its time; "": it is over."""
    since = f"{time.monotonic() - began:.0f} {nodeid}" if nodeid else ""
    Path("/out/running").write_text(since, encoding="utf-8", errors="surrogateescape")
    if nodeid:
        limit = float(os.environ["SELFPLAY_TEST_TIMEOUT_S"])
        faulthandler.dump_traceback_later(limit, exit=True, file=2)
    else:
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    note_running(nodeid)
    if measured is not None:
        measured.switch_context(nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: Any, nextitem: Any) -> None:
    """No test is begun behind this one when the time of the suite is over."""
    global stopped
    limit = os.environ["SELFPLAY_SUITE_TIMEOUT_S"]
    if nextitem is not None and time.monotonic() - began > float(limit):
        stopped = True
        item.session.shouldstop = f"the suite takes more than {limit} s"


def pytest_runtest_logfinish(nodeid: str, location: Any) -> None:
    note_running("")
    if measured is not None:
        measured.switch_context("")


def pytest_runtest_logreport(report: Any) -> None:
    file, kind = places.get(report.nodeid) or (report.nodeid.split("::")[0], "")
    entry = results.setdefault(
        report.nodeid,
        {"file": file, "kind": kind, "seconds": 0.0, "outcomes": [], "why": ""},
    )
    entry["seconds"] += report.duration
    entry["outcomes"].append([report.when, report.outcome, hasattr(report, "wasxfail")])
    if report.outcome == "failed" and not entry["why"]:
        entry["why"] = str(getattr(report.longrepr, "reprcrash", None) or report.longrepr)[-300:]


def pytest_collectreport(report: Any) -> None:
    """A file that cannot be read, or that skips itself as a whole."""
    if not report.passed:
        results[report.nodeid] = {
            "file": report.nodeid.split("::")[0],
            "seconds": 0.0,
            "outcomes": [["collect", report.outcome, False]],
            "why": str(report.longrepr)[-300:],
        }


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    global exit_code
    exit_code = int(exitstatus)


def pytest_unconfigure(config: Any) -> None:
    reached: dict[str, list[int]] = {}
    functions: list[str] = []
    unreached = files_not_reached() if stopped else {}
    if measured is not None:
        with warnings.catch_warnings():  # the project may have made errors of them
            warnings.simplefilter("ignore")
            measured.stop()
            reached, functions = functions_of_tests(measured.get_data())
    document = {
        **{"results": results, "reached": reached, "functions": functions},
        **{"exit": exit_code, "ended": ended, "own_words": has_own_words(config)},
        **{"unreached": unreached, "num_files": len({file for file, _ in places.values()})},
    }
    Path("/out/probe.json").write_text(json.dumps(document), encoding="utf-8")


def files_not_reached() -> dict[str, str]:
    """{file: why}; tests of them that were run are taken back."""
    late = {file for test, (file, _) in places.items() if test not in results}
    for test in [test for test, entry in results.items() if entry["file"] in late]:
        del results[test]
    limit = float(os.environ["SELFPLAY_SUITE_TIMEOUT_S"])
    return dict.fromkeys(sorted(late), f"the tests before it took {limit:g} s")


def has_own_words(config: Any) -> bool:
    """Whether the project calls "passed" and the like by other words in pytest's output, or has
    changed how results are told at all."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    coloured = reporter is not None and reporter._tw.hasmarkup
    if coloured or config.option.no_summary or config.option.reportchars != "fE":
        return True
    known = ("_pytest.", "pytest_subtests", "selfplay_")
    hooks = config.hook.pytest_report_teststatus.get_hookimpls()
    return not all(hook.function.__module__.startswith(known) for hook in hooks)


def functions_of_tests(data: Any) -> tuple[dict[str, list[int]], list[str]]:
    """({test id: [number, ...]}, ["path::qualname", ...] by number) from the executed lines inside
    function bodies."""
    reached: dict[str, list[int]] = {}
    names: list[str] = []
    for name in data.measured_files():
        path = Path(name)
        if not path.is_relative_to(ROOT) or not path.is_file():
            continue
        relative = path.relative_to(ROOT).as_posix()
        source = path.read_bytes().decode("utf-8", "surrogateescape")
        functions = list_python_functions(source, relative)
        contexts = data.contexts_by_lineno(name)
        for function in functions:
            tests: set[str] = set()
            for line in range(function.start_line + 1, function.end_line + 1):
                tests.update(contexts.get(line, ()))
            for test in tests:
                if test:
                    reached.setdefault(test, []).append(len(names))
            names.append(f"{relative}::{function.qualname}")
    return reached, names
