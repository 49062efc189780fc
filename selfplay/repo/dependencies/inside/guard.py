"""Runs INSIDE a sandbox, a pytest plugin: test files that call `unittest.main()` when they are
imported (with no `if __name__ == "__main__"`) would run themselves, with pytest's arguments, and
end it. Under pytest that call does nothing; pytest collects their classes. Results are told in
pytest's own words, as the command line asks, whatever a conftest would have them called."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from typing import Any

import pytest


def run_nothing(*arguments: Any, **options: Any) -> None:
    """Stands for `unittest.main`."""


unittest.main = run_nothing  # type: ignore[assignment]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: Any) -> None:
    """Summary and colours as they were asked for, whatever a conftest has made of them."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    words = [str(word) for word in config.invocation_params.args]
    shown = [w[2:] for w in words if w.startswith("-r") and w[2:].isalpha()]
    config.option.no_summary = False
    if shown and reporter is not None:
        config.option.reportchars = reporter.reportchars = shown[-1]
    if "--color=no" in words and reporter is not None:
        reporter._tw.hasmarkup = False


@pytest.hookimpl(hookwrapper=True)
def pytest_report_teststatus(report: Any, config: Any) -> Iterator[None]:
    """What pytest itself, or a plugin for subtests, says of a report."""
    outcome: Any = yield
    given = {"report": report, "config": config}
    for one in reversed(config.hook.pytest_report_teststatus.get_hookimpls()):
        if one.function.__module__.startswith(("_pytest.", "pytest_subtests")):
            found = one.function(*(given[name] for name in one.argnames))
            if found:
                outcome.force_result(found)
                return
