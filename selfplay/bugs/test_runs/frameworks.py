"""The test frameworks that the harness runs by itself: one table of what it has to know of each.

How to add one: docs/architecture.md, "Languages".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs.test_runs import pytest_framework, tap_framework
from selfplay.bugs.test_runs.parsers import pytest_verbose
from selfplay.repo.discovery import tap, tap_output


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """One framework: scripts are recognised by their whole text, and only such are trusted.

    parse        a run's output -> {test id: "passed" or "failed"}
    parser       the program that does it, as it goes into artifacts
    script       targets -> script
    targets      script -> its targets; None for a text that is none of ours
    same_on      (script of ours, other targets) -> script
    target       test id -> the target that runs it ("" for a test of another framework)
    test_file    names of files that it may collect
    excerpt      (output, characters) -> what tells the failures; None for another's output
    module       (script, path for JUnit XML) -> words after `python -m` that do the same
    recording    (script, name of a plugin) -> words after `python -m` that run it with the recorder
                 of lines (`spectrum.py`); () where there is none
    writes_junit whether a run tells its results a second time, in JUnit XML
    """

    parse: Callable[[str], dict[str, str]]
    parser: Path
    script: Callable[[Iterable[str]], str]
    targets: Callable[[str], tuple[str, ...] | None]
    same_on: Callable[[str, Iterable[str]], str]
    target: Callable[[str], str]
    test_file: re.Pattern[str]
    excerpt: Callable[[str, int], str | None]
    module: Callable[[str, str], tuple[str, ...]] = lambda *_: ()
    recording: Callable[[str, str], tuple[str, ...]] = lambda *_: ()
    writes_junit: bool = False


FRAMEWORKS: dict[str, Framework] = {
    "tap": Framework(
        parse=tap_output.parse,
        parser=Path(tap_output.__file__),
        script=tap.tap_script,
        targets=tap_framework.tap_targets,
        same_on=tap_framework.same_on,
        target=tap_framework.tap_target,
        test_file=re.compile(r"^.*\.t$"),
        excerpt=tap_framework.tap_excerpt,
    ),
    "pytest": Framework(
        parse=pytest_verbose.parse,
        parser=Path(pytest_verbose.__file__),
        script=pytest_framework.pytest_script,
        targets=pytest_framework.pytest_targets,
        same_on=pytest_framework.same_on,
        target=lambda test: test.partition("[")[0],
        test_file=re.compile(r"^(test.*|.*_tests?)\.py$"),
        excerpt=pytest_framework.pytest_excerpt,
        module=pytest_framework.pytest_module,
        recording=pytest_framework.recording_words,
        writes_junit=True,
    ),
}
USUAL = "pytest"
"""The framework of tests whose own script is not ours."""
