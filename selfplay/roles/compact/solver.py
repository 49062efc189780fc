"""The solver in one turn: failing tests and suspicious functions in, a short edit out.

What the prompt shows is a function of the sealed tree, the oracle test patch, the names of the
failing and passing tests, what the failing tests printed, which lines of the sealed tree they run
and with which values, and the profile of the original tests.
The bug patch and the original source never choose or show anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from selfplay.bugs.grading.public_tests import public_patch, public_tests
from selfplay.bugs.patches.layers import apply_patch, make_patch, read_file, touched_files
from selfplay.bugs.patches.paths import is_source_path
from selfplay.bugs.sealing import seal
from selfplay.bugs.test_runs.last_lines import LastLinesRecorder, TracedLine
from selfplay.bugs.test_runs.spectrum import Spectrum, SpectrumRecorder
from selfplay.compact.edits import Excerpt, Listing
from selfplay.compact.excerpts import excerpt, fit_listing
from selfplay.compact.failure_readers import read_failures, test_bodies, test_name
from selfplay.compact.failures import Failure, TestBody
from selfplay.compact.localization import by_words, ochiai, rank, reached_by_all, suspect_lines
from selfplay.compact.places import innermost, traceback_rows, where
from selfplay.compact.trace_rows import fitting, trace_rows
from selfplay.config import ScaffoldConfig
from selfplay.repo.discovery.test_names import test_names
from selfplay.repo.languages.functions import FunctionInfo, list_functions
from selfplay.repo.languages.python_source import split_lines
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.compact.injector import edited_layer
from selfplay.roles.prompts import render
from selfplay.sampling import Tokenizer
from selfplay.types import Layer, SolveTask

MAX_TEST_LINES = 10
MAX_TESTS = 2
MAX_MESSAGES = 3
MAX_CANDIDATES = 12
"""Functions that are looked at when the prompt is filled, best first."""
MAX_ISSUE_CHARACTERS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverView:
    """All that a solver's prompt may depend on.

    read             text of a file of the sealed tree, None when there is none
    read_test        the same with the oracle test patch applied
    oracle_patch     reverse of the weakening patch, or the public part of it
    partial          some failing tests are private: nothing of theirs may be shown
    spectrum         lines that the shown failing tests and the passing ones run
    last_lines       those of the first failing test whose code is shown, as they ran
    """

    read: Callable[[str], str | None]
    read_test: Callable[[str], str | None]
    oracle_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    failure_output: str
    problem_statement: str
    partial: bool = False
    spectrum: Spectrum = field(default_factory=Spectrum)
    last_lines: tuple[TracedLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverPrompt:
    """One task as the model sees it, with what is needed to read the answer.

    sealed    the state that is edited; restored: the same with the shown oracle tests in it
    """

    task: SolveTask
    prompt_ids: tuple[int, ...]
    text: str
    listing: Listing
    view: SolverView
    sealed: Layer
    restored: Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """Functions that may be to blame, most suspicious first, and what excerpts of them need.

    rows    {"path::qualname": 0-based row} of those on a traceback, its innermost line; of others
            the most suspicious one
    """

    functions: tuple[FunctionInfo, ...]
    sources: Mapping[str, str]
    rows: Mapping[str, int]

    def maker(self, function: FunctionInfo) -> Callable[[int], Excerpt]:
        """An excerpt of a function, of at most so many lines."""
        source = self.sources[function.path]
        focus = self.rows.get(f"{function.path}::{function.qualname}")
        return lambda size: excerpt(source, function, max_lines=size, focus=focus)


class CompactSolver:
    """Solver prompts and fix patches of one repository. Thread-safe.

    recorder    finds out which lines tests run, None: prompts do without, and without traces
    """

    def __init__(
        self,
        prepared: PreparedRepo,
        tokenizer: Tokenizer,
        scaffold: ScaffoldConfig,
        recorder: SpectrumRecorder | None = None,
    ) -> None:
        self.recorder = recorder if scaffold.max_suspect_lines else None
        self._tracer = (
            LastLinesRecorder(recorder.runner, scaffold.trace_lines)
            if recorder is not None and scaffold.trace_lines
            else None
        )
        self.prepared = prepared
        self.tokenizer = tokenizer
        self.scaffold = scaffold
        self._names = names = test_names(prepared.environment.tree)
        self.reached = {  # helpers of the tests are no place to repair anything
            test: [
                name
                for name in info.functions
                if is_source_path(name.split("::", 1)[0], names=names)
            ]
            for test, info in prepared.profile.tests.items()
        }

    def prompt(self, task: SolveTask) -> SolverPrompt:
        """The prompt of one task."""
        tree = self.prepared.environment.tree
        sealed = seal(self.prepared.environment, task.artifact).layer
        shown = public_tests(task, self.scaffold.public_share)
        if not self.scaffold.show_tests and task.problem_statement.strip():
            shown = ()
        oracle_patch = public_patch(tree, task, shown)
        restored = apply_patch(tree, sealed, oracle_patch) if oracle_patch else sealed

        def reader(layer: Layer) -> Callable[[str], str | None]:
            def read(path: str) -> str | None:
                content = read_file(tree, layer, path)
                return None if content is None else content.decode("utf-8", "surrogateescape")

            return read

        view = SolverView(
            read=reader(sealed),
            read_test=reader(restored),
            oracle_patch=oracle_patch,
            fail_to_pass=shown,
            pass_to_pass=task.pass_to_pass,
            failure_output=task.failure_output,
            problem_statement=task.problem_statement,
            partial=len(shown) < len(task.fail_to_pass),
            spectrum=self._spectrum(task, restored, shown),
        )
        if self._tracer is not None:
            view = replace(view, last_lines=self._last_lines(self._tracer, task, view, restored))
        text, listing = self.show(view)
        return SolverPrompt(
            task=task,
            prompt_ids=self.tokenizer.render(render("system"), text),
            text=text,
            listing=listing,
            view=view,
            sealed=sealed,
            restored=restored,
        )

    def _spectrum(self, task: SolveTask, restored: Layer, shown: tuple[str, ...]) -> Spectrum:
        """Of the tree that a solver sees, with the tests that it is shown; coverage takes time."""
        if self.recorder is None or not shown:
            return Spectrum()
        return self.recorder.record(
            task.bug_id,
            task.artifact.test_script,
            restored,
            failing=shown,
            passing=task.pass_to_pass,
            timeout_s=2 * task.limits.script_timeout_s,
        )

    def _last_lines(
        self, tracer: LastLinesRecorder, task: SolveTask, view: SolverView, restored: Layer
    ) -> tuple[TracedLine, ...]:
        """Of the first failing test whose code the prompt shows; of no other test anything."""
        failures = failures_of(view)
        _, names = shown_tests(relevant_tests(view, failures, self.reached), failures)
        paths = {f.path for f in self.prepared.functions} | set(view.spectrum.lines)
        found = tracer.record(
            task.bug_id,
            task.artifact.test_script,
            restored,
            tests=tuple(test for test in view.fail_to_pass if test_name(test) in names[:1]),
            files=sorted(path for path in paths if is_source_path(path, names=self._names)),
            timeout_s=task.limits.script_timeout_s,
        )
        return next(iter(found.values()), ())

    def show(self, view: SolverView) -> tuple[str, Listing]:
        """(text, listing) of a prompt, from what a solver may know."""
        failures = failures_of(view)
        bodies = relevant_tests(view, failures, self.reached)
        tests, shown = shown_tests(bodies, failures)
        told = complaints(failures, shown)
        issue = view.problem_statement.strip()[:MAX_ISSUE_CHARACTERS]
        suspects = self.suspects(view, failures, tests)
        system = render("system")

        def size(text: str) -> int:
            return len(self.tokenizer.render(system, text))

        def text_of(listing: Listing, trace: Sequence[str] = ()) -> str:
            return render(
                "solver",
                listing=listing.render(),
                issue=issue,
                tests=tests,
                messages=[message + where(failure, listing) for failure, message in told],
                trace=trace,
                suspects=suspect_lines(listing, view.spectrum, self.scaffold.max_suspect_lines),
            )

        if not suspects.functions:  # the files that the failing tests reach are gone altogether
            listing = Listing((), {})
            return text_of(listing), listing
        listing = fit_listing(
            [suspects.maker(function) for function in suspects.functions[:MAX_CANDIDATES]],
            suspects.sources.__getitem__,
            lambda shown: size(text_of(shown)),
            max_tokens=self.scaffold.max_prompt_tokens,
            max_functions=self.scaffold.max_functions,
            max_lines=self.scaffold.max_function_lines,
        )
        trace = fitting(
            trace_rows(listing, view.last_lines, self.scaffold.trace_lines),
            lambda rows: size(text_of(listing, rows)),
            self.scaffold.max_prompt_tokens,
        )
        return text_of(listing, trace), listing

    def suspects(self, view: SolverView, failures: Sequence[Failure], tests: str) -> Suspects:
        """The functions that the failing tests reach, ranked; `tests`: what is shown of these.

        Their most suspicious lines come first of all, where lines were recorded: of 111 held-out
        and 203 fresh bugs the function to repair was among the first two for 97 and 189; by whole
        functions alone, as the original's coverage and tracebacks tell them, for 89 and 182.
        """
        if not view.fail_to_pass:
            return self._pointed_to(view)
        run = view.spectrum
        scores = ochiai(view.fail_to_pass, view.pass_to_pass, self.reached)
        paths = {name.split("::", 1)[0] for name in scores}
        paths |= {path for path in run.lines if is_source_path(path, names=self._names)}
        sources = {path: text for path in sorted(paths) if (text := view.read(path)) is not None}
        functions = {
            f"{path}::{f.qualname}": f
            for path, text in sources.items()
            for f in list_functions(text, path)
        }
        peaks = {n: run.peak(f.path, f.start_line, f.end_line) for n, f in functions.items()}
        located = traceback_rows(failures, functions)
        ends = [name for failure in failures if (name := innermost(failure, functions))]
        scores = {n: scores.get(n, 0.0) for n in functions if n in scores or peaks[n][0]}
        order = rank(
            scores,
            in_all=reached_by_all(view.fail_to_pass, self.reached),
            located=located,
            innermost={name: count / len(ends) for name, count in Counter(ends).items()},
            mentioned=set(re.findall(r"\w+", tests)),
        )
        order.sort(key=lambda name: -peaks[name][0])
        if not scores:  # what the tests reached is gone: show where it may have been
            order = list(functions)
        return Suspects(
            functions=tuple(functions[name] for name in order),
            sources=sources,
            rows={n: line - 1 for n, (score, line) in peaks.items() if score} | located,
        )

    def _pointed_to(self, view: SolverView) -> Suspects:
        """Functions of all files that tests reach, by the words of the issue; no test has a say."""
        paths = sorted(
            {name.split("::", 1)[0] for names in self.reached.values() for name in names}
        )
        sources = {path: text for path in paths if (text := view.read(path)) is not None}
        functions = {
            f"{path}::{function.qualname}": function
            for path, text in sources.items()
            for function in list_functions(text, path)
        }
        texts = {
            name: f"{f.path} {f.qualname} {lines_of(sources[f.path], f.start_line, f.end_line)}"
            for name, f in functions.items()
        }
        order = by_words(view.problem_statement, texts)
        return Suspects(functions=tuple(functions[n] for n in order), sources=sources, rows={})

    def fix_patch(self, prompt: SolverPrompt, answer: str) -> str:
        """The patch from the sealed tree to the edited one. Raises `Rejected`."""
        tree, sealed = self.prepared.environment.tree, prompt.sealed
        edited = edited_layer(self.prepared.environment, answer, prompt.listing, sealed)
        return make_patch(tree, sealed, {**sealed, **edited})


def lines_of(source: str, first: int, last: int) -> str:
    """Lines of a text, counted from 1."""
    return "".join(split_lines(source)[first - 1 : last])


def failures_of(view: SolverView) -> list[Failure]:
    """What the failing tests printed, as far as it may be shown."""
    named = {test_name(test) for test in view.fail_to_pass}
    failures = read_failures(view.failure_output)
    return [failure for failure in failures if failure.name in named or not view.partial]


def relevant_tests(
    view: SolverView, failures: Sequence[Failure], reached: Mapping[str, Collection[str]]
) -> list[TestBody]:
    """Bodies of the failing tests: recorded ones, then by functions reached and length."""
    width: dict[str, int] = {}
    for test in view.fail_to_pass:
        width[test_name(test)] = max(width.get(test_name(test), 0), len(reached.get(test, ())))
    recorded = {failure.name for failure in failures}
    files = touched_files(view.oracle_patch) if view.oracle_patch else ()
    files = files or tuple(dict.fromkeys(t.split("::", 1)[0] for t in view.fail_to_pass))
    bodies = [
        body
        for path in files
        for body in test_bodies(path, view.read_test(path) or "", view.fail_to_pass)
    ]
    return sorted(
        bodies, key=lambda b: (b.name not in recorded, width.get(b.name, 0), len(b.lines), b.name)
    )


def shown_tests(
    bodies: Sequence[TestBody], failures: Sequence[Failure], max_lines: int = MAX_TEST_LINES
) -> tuple[str, list[str]]:
    """(code of one or two tests within `max_lines`, their names)."""
    lines: list[str] = []
    names: list[str] = []
    for body in bodies:
        room = max_lines - len(lines)
        if len(names) == MAX_TESTS or (names and len(body.lines) > room):
            break
        failed = {f.name: f for f in reversed(failures)}.get(body.name)
        numbers = [line for _, line in failed.locations if line in body.numbers] if failed else []
        lines += body.cut(room, numbers[0] if numbers else None)
        names.append(body.name)
    return "\n".join(lines), names


def complaints(failures: Sequence[Failure], names: Sequence[str]) -> list[tuple[Failure, str]]:
    """What the shown tests complained of; any failure's when none of them is recorded."""
    matching = [f for name in names for f in failures if f.name == name] or list(failures[:1])
    first = {failure.name: failure for failure in reversed(matching)}
    each = MAX_MESSAGES if len(first) <= 1 else 1
    found = [(message, f) for f in reversed(first.values()) for message in f.messages[:each]]
    return [(failure, message) for message, failure in dict(reversed(found)).items()][::-1][
        :MAX_MESSAGES
    ]
