"""A pytest plugin that goes into the sandbox: what the chosen tests run, event by event.

Self-contained. Reads /in/traces.json; appends one JSON line for each test to /out/traces.jsonl as
it ends, so that a test which ends the whole run costs those behind it alone. With `tracing` false
it only measures: the plain run that the cost is compared with. With `num_rows` the last lines are
kept (`tail.py`) and not all events. Only the body of a test is recorded, its fixtures are not.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selfplay_events import Log, now  # type: ignore[import-not-found]
from selfplay_tail import Tail  # type: ignore[import-not-found]
from selfplay_tracers import ThreadWatch, make_tracer  # type: ignore[import-not-found]

ROOT = "/testbed/"
asked: dict[str, Any] = {}
outcomes: dict[str, list[str]] = {}
crashes: dict[str, tuple[str, int]] = {}
recorded: dict[str, dict[str, Any]] = {}


def pytest_configure(config: Any) -> None:
    asked.update(json.loads(Path("/in/traces.json").read_text(encoding="utf-8")))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    chosen = set(asked["tests"])
    items[:] = [item for item in items if item.nodeid in chosen]


@pytest.hookimpl(hookwrapper=True, trylast=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    log = make_log() if asked["tracing"] else None
    tracer = make_tracer()
    drawn = chance()
    began = now()
    threads = ThreadWatch()
    if log is not None:
        threads.start()
        tracer.start(log)
    try:
        yield
    finally:
        if log is not None:
            tracer.stop()
            threads.stop()
        entry = recorded[item.nodeid] = {"seconds": now() - began}
        if log is not None:
            entry["why"] = "tracer" if tracer.disturbed else threads.found or log.why
            left = chance()
            entry["chance"] = "".join(s for name, s in left.items() if drawn.get(name, s) != s)
            entry.update(log.told())


def chance(getstate: Callable[[], Any] = random.getstate) -> dict[str, str]:
    """Digests of the global states of Python's random numbers, and numpy's where it is loaded; a
    test may have put functions of its own in their places, which are not called."""
    states = {"python": repr(getstate())}
    numpys = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
    if numpys is not None and type(numpys).__module__ == "numpy.random.mtrand":
        states["numpy"] = repr(numpys.get_state())
    return {name: hashlib.sha256(s.encode()).hexdigest()[:16] for name, s in states.items()}


def make_log() -> Any:
    files = {ROOT + path: path for path in asked["files"]}
    if asked.get("num_rows"):
        return Tail(files, asked["num_rows"], asked["max_events"], asked["max_seconds"])
    return Log(files, asked["max_events"], asked["max_bytes"], asked["max_seconds"])


def pytest_runtest_logreport(report: Any) -> None:
    crash = getattr(report.longrepr, "reprcrash", None)
    if report.when == "call" and crash is not None:
        crashes[report.nodeid] = (crash.path, crash.lineno)
    outcomes.setdefault(report.nodeid, []).append(f"{report.when} {report.outcome}")


def pytest_runtest_logfinish(nodeid: str, location: Any) -> None:
    entry = recorded.pop(nodeid, {"seconds": 0.0})
    told = {"test": nodeid, "outcomes": outcomes.pop(nodeid, []), "crash": crashes.get(nodeid)}
    line = json.dumps({**told, **entry})
    with Path("/out/traces.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
