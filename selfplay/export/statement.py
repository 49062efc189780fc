"""Issue texts made from the failing tests alone, and the check that they give nothing away."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selfplay.bugs.patches.diffs import parse_patch, reverse_patch
from selfplay.types import SolveTask

MAX_TESTS = 20
"""Tests that are named; of more, the number alone."""
_SUMMARY = re.compile(r"^(?:FAILED|ERROR) (?P<test>.+?) - (?P<said>.+)$", re.MULTILINE)
_MIN_TELLING = 8
"""Shorter lines than this, blanks left out, are found in any text."""


def problem_statement(task: SolveTask) -> str:
    """A text that names the failing tests and what they print; "" where it would give something of
    the gold patch or of the oracle tests away. Without what they print, where that alone does."""
    said = {match["test"]: match["said"] for match in _SUMMARY.finditer(task.failure_output)}
    for messages in (said, {}):
        text = _text(task, messages)
        if not leaks(text, task):
            return text
    return ""


def leaks(text: str, task: SolveTask) -> list[str]:
    """Lines of the gold patch and of the oracle test patch that the text holds."""
    flat = _flat(text)
    return [line for line in _secrets(task) if _flat(line) in flat]


def _secrets(task: SolveTask) -> Iterator[str]:
    """Lines that a repair adds, and those of the tests that specify it."""
    artifact = task.artifact
    for patch in (reverse_patch(artifact.bug_patch), reverse_patch(artifact.weakening_patch)):
        for file in parse_patch(patch):
            yield from (line.strip() for line in file.added if len(_flat(line)) >= _MIN_TELLING)


def _text(task: SolveTask, said: dict[str, str]) -> str:
    tests = task.fail_to_pass
    one = len(tests) == 1
    lines = [
        f"{'A test fails' if one else f'{len(tests)} tests fail'} in this repository:",
        "",
        *(
            f"- `{test}`" + (f": {said[test]}" if test in said else "")
            for test in tests[:MAX_TESTS]
        ),
    ]
    if len(tests) > MAX_TESTS:
        lines.append(f"- and {len(tests) - MAX_TESTS} more")
    lines += [
        "",
        f"The cause is in the code, not in the test{'' if one else 's'}. Find it and repair it; "
        f"{len(task.pass_to_pass)} other tests of the same files pass and must go on to pass.",
    ]
    return "\n".join(lines) + "\n"


def _flat(text: str) -> str:
    return "".join(text.split())
