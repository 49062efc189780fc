"""The test scripts and parsers that the harness itself writes into artifacts.

Scripts and parsers of an injector's own making are untrusted text; these are recognised by
equality, and only they are trusted (parsers may run in-process, scripts may be rewritten).
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.parsers import unittest_verbose
from selfplay.bugs.test_runs.pytest_framework import pytest_script

__all__ = ["parser_source", "pytest_script", "runner_script", "unittest_script"]
PARSERS: dict[str, Callable[[str], dict[str, str]]] = {
    **{name: framework.parse for name, framework in FRAMEWORKS.items()},
    "unittest": unittest_verbose.parse,  # for agents' own scripts: the harness runs pytest instead
}
FORMER_PARSERS = {
    "91a6970840b484d57a18426f0e96a5d009b1f78a755bd4293427413c4460e74e": "pytest",
    "ef2d96cb3d1ee8c7b135351143612e42fe0910a62b6d067295577cdc93ce0804": "unittest",
}
"""SHA-256 of what earlier versions shipped: whoever has such a text is read by today's parser."""


def parser_source(runner: str) -> str:
    """Text of the shipped parser of "pytest", "unittest" or "tap"."""
    return _parser_sources()[runner]


def parser_runner(parser: str) -> str | None:
    """The runner whose shipped parser this text is, now or once; None for any other text."""
    now = next((name for name, text in _parser_sources().items() if text == parser), None)
    digest = hashlib.sha256(parser.encode("utf-8", "surrogateescape")).hexdigest()
    return now or FORMER_PARSERS.get(digest)


def script_runner(script: str) -> str | None:
    """The framework whose script of ours this text is (whatever its files), None for any other."""
    found = (name for name, framework in FRAMEWORKS.items() if framework.targets(script))
    return next(found, None)


def script_targets(script: str) -> tuple[str, ...]:
    """The files of a shipped script, () for any other text."""
    return next(filter(None, (f.targets(script) for f in FRAMEWORKS.values())), ())


def with_targets(script: str, more: Iterable[str]) -> str:
    """A shipped script with further targets. Raises `ValueError` for any other text."""
    return on_targets(script, [*script_targets(script), *more])


def on_targets(script: str, targets: Iterable[str]) -> str:
    """A shipped script on other targets. Raises `ValueError` for any other text."""
    runner = script_runner(script)
    if runner is None:
        raise ValueError("not a shipped script")
    return FRAMEWORKS[runner].same_on(script, targets)


def script_module(script: str, junit_xml: str) -> tuple[str, ...]:
    """The words after `python -m` that do what a shipped script does; () for any other text.

    junit_xml    the path that the variable JUNIT_XML names when the script runs
    """
    runner = script_runner(script)
    return () if runner is None else FRAMEWORKS[runner].module(script, junit_xml)


def recording_module(script: str, plugin: str) -> tuple[str, ...]:
    """The words after `python -m` that run a shipped script with the recorder of lines; () for any
    other text, and where its framework has no recorder."""
    runner = script_runner(script)
    return () if runner is None else FRAMEWORKS[runner].recording(script, plugin)


def can_record(runner: str) -> bool:
    """Whether tests of a framework can be run with a recorder in them."""
    return bool(recording_module(runner_script(runner, ["tests"]), "recorder"))


def runner_script(runner: str, targets: Iterable[str]) -> str:
    """Script that runs targets (test files; for pytest also single tests) under a framework."""
    return FRAMEWORKS[runner].script(targets)


def unittest_script(targets: Iterable[str]) -> str:
    """Script that runs files (or dotted names) under unittest, for artifacts that are written by
    hand: no repository is run so, and as of any script that is not the harness's own, its results
    are read once (docs/validation.md)."""
    return f"#!/bin/sh\nexec python -m unittest -v -b {shlex.join(targets)}\n"


@cache
def _parser_sources() -> dict[str, str]:
    files = {name: framework.parser for name, framework in FRAMEWORKS.items()}
    files["unittest"] = Path(unittest_verbose.__file__)
    return {name: file.read_text("utf-8") for name, file in files.items()}
