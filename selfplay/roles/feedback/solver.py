"""What a solver is told of one try: the tests that it may see, run on the tree that it sees.

Tries do not build on each other: each edit starts from the numbered code of the prompt, so that
line numbers stay what they are. What is told is a function of `SolverView` and of what the tests
print in a sandbox in which nothing of the original lies (`bugs/sealing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from selfplay.bugs.patches.layers import normal_layer
from selfplay.bugs.sealing import sealed_environment
from selfplay.bugs.test_runs.runner import TestRun, TestRunner
from selfplay.compact.edits import common_length
from selfplay.compact.failure_readers import read_failures, test_name
from selfplay.compact.failures import Failure
from selfplay.compact.places import where
from selfplay.repo.languages.python_source import split_lines
from selfplay.roles.compact.injector import edited_layer
from selfplay.roles.compact.solver import (
    MAX_MESSAGES,
    MAX_TEST_LINES,
    CompactSolver,
    SolverPrompt,
    complaints,
    relevant_tests,
    shown_tests,
)
from selfplay.roles.prompts import render
from selfplay.roles.rejected import Rejected
from selfplay.sandbox.base import Sandbox
from selfplay.types import Layer

Fits = Callable[[str], bool]
"""Whether a text is short enough to be told."""
SIZES = ((MAX_TEST_LINES, MAX_MESSAGES), (MAX_TEST_LINES // 2, 2), (0, 1))
"""(lines of tests, messages) of what is told, the longest first."""
UNDONE = "Your edit was undone."


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of a try. `reason`: a code of `Rejected`, `tests` or `timed_out`, "" where every
    test that is shown passes; `text`: what the model is told, None where nothing fits."""

    reason: str
    text: str | None


class FeedbackSolver:
    """Replies to tries on bugs of one repository. Thread-safe; equal states are run once."""

    def __init__(self, solver: CompactSolver, sandbox: Sandbox, max_run_s: float) -> None:
        self.solver = solver
        self.max_run_s = max_run_s
        environment = sealed_environment(solver.prepared.environment)
        self.runner = TestRunner(sandbox, environment)

    def reply(self, prompt: SolverPrompt, answer: str, fits: Fits, cut_at: int = 0) -> Reply:
        """Read an edit and run the shown tests on it. `cut_at`: the tokens after which the answer
        was cut, which explains what is wrong with it. Raises `SandboxError`."""
        reply = self._reply(prompt, answer, fits)
        if not cut_at or not reply.reason:
            return reply
        said = f"The answer was cut at {cut_at} tokens. Be shorter."
        return _fitting("cut", [_told(said)], fits)

    def _reply(self, prompt: SolverPrompt, answer: str, fits: Fits) -> Reply:
        environment = self.solver.prepared.environment
        try:
            edited = edited_layer(environment, answer, prompt.listing, prompt.sealed)
        except Rejected as rejected:
            return _fitting(rejected.reason, [_complaint(rejected, prompt)], fits)
        task = prompt.task
        timeout_s = min(task.limits.script_timeout_s, self.max_run_s)
        run = self.runner.run(
            task.artifact.test_script,
            task.artifact.test_parser,
            normal_layer(environment.tree, {**prompt.restored, **edited}),
            timeout_s=timeout_s,
        )
        if run.timed_out:
            said = f"The tests do not end within {timeout_s:g} seconds. {UNDONE}"
            return _fitting("timed_out", [_told(said)], fits)
        visible = (*prompt.view.fail_to_pass, *prompt.view.pass_to_pass)
        failing = [test for test in visible if run.table.get(test) != "passed"]
        if not failing:
            return Reply(reason="", text=None)
        return _fitting("tests", self._failures(prompt, edited, run, failing), fits)

    def _failures(
        self, prompt: SolverPrompt, edited: Layer, run: TestRun, failing: Sequence[str]
    ) -> Iterator[str]:
        """What the tests said, ever shorter. A test that the prompt shows is named alone."""
        names = {test_name(test) for test in failing}
        failures = [
            _in_listing(failure, prompt, edited)
            for failure in read_failures(run.output)
            if failure.name in names or not prompt.view.partial
        ]
        view = replace(prompt.view, fail_to_pass=tuple(failing), oracle_patch="")
        bodies = relevant_tests(view, failures, self.solver.reached)
        for max_lines, num_messages in SIZES:
            text, shown = shown_tests(bodies, failures, max_lines or MAX_TEST_LINES)
            if not max_lines or text in prompt.text:
                text = "\n".join(shown)
            told = complaints(failures, shown)[:num_messages]
            messages = [message + where(failure, prompt.listing) for failure, message in told]
            yield _told(f"Still wrong. {UNDONE}", text, messages)
        yield _told(f"Still wrong. {UNDONE}")


def _told(problem: str, tests: str = "", messages: Sequence[str] = ()) -> str:
    return render("feedback", problem=problem, tests=tests, messages=messages)


def _fitting(reason: str, texts: Sequence[str] | Iterator[str], fits: Fits) -> Reply:
    return Reply(reason=reason, text=next((text for text in texts if fits(text)), None))


def _complaint(rejected: Rejected, prompt: SolverPrompt) -> str:
    """The reply to an answer that is no edit, or none that changes the code."""
    num_lines = len(prompt.listing.lines)
    said = {
        "bad_format": 'That is no edit. Write lines like "3| text", "3+ text" or "3-".',
        "bad_line": f"There is no such line: lines go from 1 to {num_lines}.",
        "no_change": "That edit changes nothing.",
        "syntax_error": f"With that edit the file cannot be parsed. {UNDONE}",
    }.get(rejected.reason, f"That edit cannot be used ({rejected.reason}).")
    return _told(said)


def _in_listing(failure: Failure, prompt: SolverPrompt, edited: Layer) -> Failure:
    """The failure with the lines of edited files as the prompt numbers them."""
    locations = []
    for path, line in failure.locations:
        change = edited.get(path)
        if change is not None and change.content is not None:
            new = split_lines(change.content.decode("utf-8", "surrogateescape"))
            line = former_row(prompt.listing.rows[path], new, line - 1) + 1
        locations.append((path, line))
    return replace(failure, locations=tuple(locations))


def former_row(old: Sequence[str], new: Sequence[str], row: int) -> int:
    """Where a row of a file stood before it was edited; a new row: the last old one before it.

    Example: `former_row("abd", "abcd", 3)` is 2, that of "d".
    """
    start = common_length(old, new)
    tail = common_length(old[start:][::-1], new[start:][::-1])
    if row < start:
        return row
    if row >= len(new) - tail:
        return row - len(new) + len(old)
    return max(0, min(row, len(old) - tail - 1))
