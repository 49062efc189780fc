"""The test scripts and parsers that the harness itself writes into artifacts.

Scripts and parsers of an injector's own making are untrusted text; these are recognised by
equality, and only they are trusted (parsers may run in-process, scripts may be rewritten).
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from selfplay.bugs.test_runs.parsers import pytest_verbose, unittest_verbose
from selfplay.repo.discovery import tap, tap_output

PARSERS: dict[str, Callable[[str], dict[str, str]]] = {
    "pytest": pytest_verbose.parse,
    "unittest": unittest_verbose.parse,
    "tap": tap_output.parse,
}
_PYTEST = """\
#!/bin/sh
# Oracle tests with verbose output; with JUNIT_XML set, results are also written there.
set -f
exec python -m pytest -v -rpfE --tb=short --color=no -o cache_dir=/tmp/.cache -p no:randomly \\
  -o addopts= -o log_cli=false -o console_output_style=classic --continue-on-collection-errors \\
  --rootdir=. ${JUNIT_XML:+"--junitxml=$JUNIT_XML"} \\
  --"""
"""What holds of a project's own addopts comes in PYTEST_ADDOPTS (docs/repositories.md)."""
_NO_CACHE = _PYTEST.replace("-o cache_dir=/tmp/.cache", "-p no:cacheprovider")
_PYTEST_HEADS = (_PYTEST, _NO_CACHE, _NO_CACHE.replace("--rootdir=. ", ""))
"""As it is written now, and as earlier versions wrote it: their artifacts stay what they were."""
_UNITTEST = """\
#!/bin/sh
# Oracle tests with verbose output.
exec python -m unittest -v -b"""
FORMER_PARSERS = {
    "91a6970840b484d57a18426f0e96a5d009b1f78a755bd4293427413c4460e74e": "pytest",
    "ef2d96cb3d1ee8c7b135351143612e42fe0910a62b6d067295577cdc93ce0804": "unittest",
}
"""SHA-256 of what earlier versions shipped: whoever has such a text is read by today's parser."""
_HEADS = {"pytest": _PYTEST, "unittest": _UNITTEST, "tap": tap.SCRIPT}


def pytest_script(
    test_files: Iterable[str], deselected: Iterable[str] = (), keywords: str = ""
) -> str:
    """Script that runs test files (or node ids) under pytest.

    deselected    ids that are left out, with all that begin like them (pytest's `--deselect`)
    keywords      an expression of names (pytest's `-k`); tests that it is false of are left out
    """
    return _script(_pytest_head(deselected, keywords), test_files)


def unittest_script(test_files: Iterable[str]) -> str:
    """Script that runs test files (or dotted names) under unittest."""
    return _script(_UNITTEST, test_files)


def parser_source(runner: str) -> str:
    """Text of the shipped parser of "pytest", "unittest" or "tap"."""
    return _parser_sources()[runner]


def parser_runner(parser: str) -> str | None:
    """The runner whose shipped parser this text is, now or once; None for any other text."""
    now = next((name for name, text in _parser_sources().items() if text == parser), None)
    digest = hashlib.sha256(parser.encode("utf-8", "surrogateescape")).hexdigest()
    return now or FORMER_PARSERS.get(digest)


def script_runner(script: str) -> str | None:
    """The runner whose shipped script this text is (whatever its files), None for any other."""
    return next((name for name in PARSERS if _files_of(name, script) is not None), None)


def script_targets(script: str) -> tuple[str, ...]:
    """The files of a shipped script, () for any other text."""
    for name in PARSERS:
        files = _files_of(name, script)
        if files is not None:
            return files
    return ()


def deselected_tests(script: str) -> tuple[str, ...]:
    """What a shipped pytest script leaves out of its files."""
    words = _pytest_words(script)
    return words.deselected if words is not None else ()


def script_keywords(script: str) -> str:
    """The expression of names that a shipped pytest script runs, "" for all names."""
    words = _pytest_words(script)
    return words.keywords if words is not None else ""


def with_targets(script: str, more: Iterable[str]) -> str:
    """A shipped script with further targets. Raises `ValueError` for any other text."""
    return on_targets(script, [*script_targets(script), *more])


def on_targets(script: str, targets: Iterable[str]) -> str:
    """A shipped script on other targets. Raises `ValueError` for any other text."""
    runner = script_runner(script)
    if runner is None:
        raise ValueError("not a shipped script")
    if runner == "pytest":
        return pytest_script(targets, deselected_tests(script), script_keywords(script))
    return runner_script(runner, targets)


def script_module(script: str, junit_xml: str) -> tuple[str, ...]:
    """The words after `python -m` that do what a shipped script does; () for any other text.

    junit_xml    the path that the variable JUNIT_XML names when the script runs
    """
    if script_runner(script) in (None, "tap"):
        return ()
    command = script.partition("exec python -m ")[2].replace(" \\\n", " ")
    option = "${JUNIT_XML:+--junitxml=$JUNIT_XML}"
    words = (w if w != option else f"--junitxml={junit_xml}" for w in shlex.split(command))
    return tuple(words)


def runner_script(runner: str, targets: Iterable[str]) -> str:
    """Script that runs targets (test files; for Python also single tests) under a runner."""
    return _script(_HEADS[runner], targets)


def _script(head: str, targets: Iterable[str]) -> str:
    return " \\\n  ".join([head, *(shlex.quote(target) for target in targets)]) + "\n"


def _pytest_head(deselected: Iterable[str], keywords: str = "", head: str = _PYTEST) -> str:
    options = "".join(f"{shlex.quote(f'--deselect={test}')} \\\n  " for test in deselected)
    if keywords:
        options += f"{shlex.quote(f'-k={keywords}')} \\\n  "
    return f"{head.removesuffix('--')}{options}--"


@dataclass(frozen=True, slots=True)
class _Words:
    """What a shipped pytest script says beyond its head."""

    deselected: tuple[str, ...]
    keywords: str
    targets: tuple[str, ...]


def _pytest_words(script: str) -> _Words | None:
    """None for any other text."""
    for head in _PYTEST_HEADS:
        begin = head.removesuffix("--")
        if not script.startswith(begin):
            continue
        try:
            words = shlex.split(script[len(begin) :].replace(" \\\n", " "))
        except ValueError:
            return None
        end = words.index("--") if "--" in words else len(words)
        options, targets = words[:end], tuple(words[end + 1 :])
        keywords = (
            options.pop().removeprefix("-k=") if options[-1:] and options[-1][:2] == "-k" else ""
        )
        deselected = tuple(word.removeprefix("--deselect=") for word in options)
        same = _script(_pytest_head(deselected, keywords, head), targets) == script
        return _Words(deselected, keywords, targets) if targets and same else None
    return None


def _files_of(runner: str, script: str) -> tuple[str, ...] | None:
    if runner == "pytest":
        words = _pytest_words(script)
        return words.targets if words is not None else None
    head = _HEADS[runner]
    if not script.startswith(head):
        return None
    try:
        files = tuple(shlex.split(script[len(head) :].replace(" \\\n", " ")))
    except ValueError:
        return None
    return files if files and runner_script(runner, files) == script else None


@cache
def _parser_sources() -> dict[str, str]:
    folder = Path(__file__).parent / "parsers"
    files = {name: folder / f"{name}_verbose.py" for name in ("pytest", "unittest")}
    files["tap"] = Path(tap_output.__file__)
    return {name: file.read_text("utf-8") for name, file in files.items()}
