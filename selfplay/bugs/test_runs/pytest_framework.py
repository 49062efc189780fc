"""pytest as the harness runs it: the script that goes into artifacts, and what its output says."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

_HEAD = """\
#!/bin/sh
# Oracle tests with verbose output; with JUNIT_XML set, results are also written there.
set -f
exec python -m pytest -v -rpfE --tb=short --color=no -o cache_dir=/tmp/.cache -p no:randomly \\
  -o addopts= -o log_cli=false -o console_output_style=classic --continue-on-collection-errors \\
  --rootdir=. ${JUNIT_XML:+"--junitxml=$JUNIT_XML"} \\
  --"""
"""What holds of a project's own addopts comes in PYTEST_ADDOPTS (docs/repositories.md)."""
_NO_CACHE = _HEAD.replace("-o cache_dir=/tmp/.cache", "-p no:cacheprovider")
_HEADS = (_HEAD, _NO_CACHE, _NO_CACHE.replace("--rootdir=. ", ""))
"""As it is written now, and as earlier versions wrote it: their artifacts stay what they were."""
_JUNIT = "${JUNIT_XML:+--junitxml=$JUNIT_XML}"


def pytest_script(
    targets: Iterable[str], deselected: Iterable[str] = (), keywords: str = ""
) -> str:
    """Script that runs test files (or node ids) under pytest.

    deselected    ids that are left out, with all that begin like them (pytest's `--deselect`)
    keywords      an expression of names (pytest's `-k`); tests that it is false of are left out
    """
    return _script(_with_options(_HEAD, deselected, keywords), targets)


def same_on(script: str, targets: Iterable[str]) -> str:
    """A script of ours on other targets; what it leaves out is left out again."""
    return pytest_script(targets, deselected_tests(script), script_keywords(script))


def pytest_targets(script: str) -> tuple[str, ...] | None:
    """What a script of ours runs, None for any other text."""
    words = _words(script)
    return words.targets if words is not None else None


def deselected_tests(script: str) -> tuple[str, ...]:
    """What a script of ours leaves out of its files."""
    words = _words(script)
    return words.deselected if words is not None else ()


def script_keywords(script: str) -> str:
    """The expression of names that a script of ours runs, "" for all names."""
    words = _words(script)
    return words.keywords if words is not None else ""


def pytest_module(script: str, junit_xml: str) -> tuple[str, ...]:
    """The words after `python -m` that do what a script of ours does."""
    command = script.partition("exec python -m ")[2].replace(" \\\n", " ")
    return tuple(w if w != _JUNIT else f"--junitxml={junit_xml}" for w in shlex.split(command))


def recording_words(script: str, plugin: str) -> tuple[str, ...]:
    """The words after `python -m` that run a script of ours with one more plugin, in few words."""
    words = [word for word in pytest_module(script, "") if not word.startswith("--junitxml")]
    end = words.index("--")
    return (words[0], "-p", plugin, *words[1:end], "--tb=no", "-q", "-q", *words[end:])


def pytest_excerpt(output: str, size: int) -> str | None:
    """From the first ERRORS or FAILURES heading, without the lists of passes; None without one."""
    lines = output.splitlines()
    start = next((i for i, line in enumerate(lines) if _is_heading(line)), None)
    if start is None:
        return None
    kept = "\n".join(line for line in lines[start:] if not line.startswith("PASSED "))
    half = size // 2
    return kept if len(kept) <= size else f"{kept[:half]}\n...\n{kept[-half:]}"


def _is_heading(line: str) -> bool:
    return line[:1] == "=" and (" ERRORS =" in line or " FAILURES =" in line)


def _script(head: str, targets: Iterable[str]) -> str:
    return " \\\n  ".join([head, *(shlex.quote(target) for target in targets)]) + "\n"


def _with_options(head: str, deselected: Iterable[str], keywords: str) -> str:
    options = "".join(f"{shlex.quote(f'--deselect={test}')} \\\n  " for test in deselected)
    if keywords:
        options += f"{shlex.quote(f'-k={keywords}')} \\\n  "
    return f"{head.removesuffix('--')}{options}--"


@dataclass(frozen=True, slots=True)
class _Words:
    """What a script of ours says beyond its head."""

    deselected: tuple[str, ...]
    keywords: str
    targets: tuple[str, ...]


def _words(script: str) -> _Words | None:
    """None for any other text."""
    for head in _HEADS:
        begin = head.removesuffix("--")
        if not script.startswith(begin):
            continue
        try:
            words = shlex.split(script[len(begin) :].replace(" \\\n", " "))
        except ValueError:
            return None
        end = words.index("--") if "--" in words else len(words)
        options, targets = words[:end], tuple(words[end + 1 :])
        last = options[-1] if options else ""
        keywords = options.pop().removeprefix("-k=") if last.startswith("-k=") else ""
        deselected = tuple(word.removeprefix("--deselect=") for word in options)
        same = _script(_with_options(head, deselected, keywords), targets) == script
        return _Words(deselected, keywords, targets) if targets and same else None
    return None
