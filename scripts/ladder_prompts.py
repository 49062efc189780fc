"""The prompts of `ladder.py`: one bug under every condition, with the gold answer in each language.

    now       the solver's prompt as it is
    untold    as `now` without what the tests' lines tell: another order of functions, no line named
    shown     the function to repair comes first, whatever the ranking says
    line      that, and the line is named
    kind      that, and the kind of the bug too
    four      as `now` with up to four functions
    test      as `now` with up to 24 lines of the tests
    both      the two together
    trace     as `now` with the last 5 lines that the shown test ran (`scaffold.trace_lines`)
    rich      1,500 tokens: more functions, whole docstrings, callers, neighbours, the whole test
    rich_kind all of it
    replace   as `shown`, answered with search/replace blocks
    whole     as `shown`, answered with the whole function

`replace` and `whole` have the beginning of the answer written for the model (`Case.prefill`), so
that what is measured is the edit and not the habit of saying something before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ladder_languages import EXAMPLE, LANGUAGES, gold_answer

from selfplay.bugs.patches.layers import apply_patch, read_file, reverse_patch, touched_files
from selfplay.bugs.test_runs.spectrum import Spectrum
from selfplay.compact.edits import Excerpt, Listing, render_edit
from selfplay.compact.excerpts import excerpt, fit_listing
from selfplay.compact.localization import suspect_lines
from selfplay.compact.places import where
from selfplay.compact.trace_rows import fitting, trace_rows
from selfplay.repo.languages.functions import FunctionInfo
from selfplay.repo.languages.python_source import split_lines
from selfplay.roles.compact.solver import (
    MAX_CANDIDATES,
    CompactSolver,
    SolverView,
    Suspects,
    complaints,
    failures_of,
    relevant_tests,
    shown_tests,
)
from selfplay.roles.prompts import bare_question, render
from selfplay.types import Layer, SolveTask

MAX_CALLERS, MAX_DOC_LINES, MAX_NEIGHBOUR_LINES = 4, 8, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one condition changes; None leaves the scaffold's own bound."""

    place: bool = False
    ask: str = "Fix the bug"
    language: str = "numbered"
    max_tokens: int | None = None
    max_functions: int | None = None
    test_lines: int | None = None
    more: bool = False
    spectrum: bool = True
    trace_lines: int = 0


TRACE_LINES = 5
_LINE, _KIND = "Fix the bug in line {line}", "Fix the bug: {kind} in line {line}"
_RICH = {"max_tokens": 1500, "max_functions": 3, "test_lines": 60, "more": True}
SHAPES = {
    "now": Shape(),
    "untold": Shape(spectrum=False),
    "shown": Shape(place=True),
    "line": Shape(place=True, ask=_LINE),
    "kind": Shape(place=True, ask=_KIND),
    "four": Shape(max_functions=4),
    "test": Shape(test_lines=24),
    "both": Shape(max_functions=4, test_lines=24),
    "trace": Shape(trace_lines=TRACE_LINES),
    "replace": Shape(place=True, language="replace"),
    "whole": Shape(place=True, language="whole"),
    "rich": Shape(**_RICH),  # type: ignore[arg-type]
    "rich_kind": Shape(place=True, ask=_KIND, **_RICH),  # type: ignore[arg-type]
}
CONDITIONS = tuple(SHAPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One prompt. `answer` is the gold answer, None where the prompt does not show the place;
    `place` counts its leading characters that say where, `prefill` is written for the model."""

    condition: str
    system: str
    user: str
    listing: Listing
    prefill: str = ""
    answer: str | None = None
    place: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """What the gold patch does to the sealed tree: texts of its files, and the first change."""

    sources: Mapping[str, str]
    path: str
    row: int
    function: FunctionInfo | None
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """One bug. `rank` is the place of its function among the suspects, 0 for none."""

    cases: tuple[Case, ...]
    rank: int
    lost: str


class Bug:
    """What the conditions of one bug have in common."""

    def __init__(self, solver: CompactSolver, task: SolveTask, example: bool = False) -> None:
        self.example = example
        self.solver = solver
        prompt = solver.prompt(task)
        self.view, self.sealed = prompt.view, prompt.sealed
        self.failures = failures_of(self.view)
        self.bodies = relevant_tests(self.view, self.failures, solver.reached)
        self.tests, self.names = shown_tests(self.bodies, self.failures)
        self.suspects = solver.suspects(self.view, self.failures, self.tests)
        untold = replace(self.view, spectrum=Spectrum())
        self.untold = solver.suspects(untold, self.failures, self.tests)
        self.gold = gold_of(solver, task, self.sealed, self.view)

    def ladder(self, wanted: Sequence[str]) -> Ladder:
        """The cases of these conditions."""
        names = [_name(f) for f in self.suspects.functions]
        function = self.gold.function
        rank = names.index(_name(function)) + 1 if function and _name(function) in names else 0
        cases = tuple(case for condition in wanted for case in self._cases(condition))
        return Ladder(cases=cases, rank=rank, lost=self._why_lost(rank))

    def _why_lost(self, rank: int) -> str:
        """Why `now` does not show the place; "" where it does."""
        (now,) = self._cases("now")
        if now.answer is not None:
            return ""
        if self.gold.function is None:
            return "outside_functions"
        if not rank:
            return "not_reached"
        shown = {(e.path, e.rows[0]) for e in now.listing.excerpts}
        function = self.gold.function
        if (function.path, function.start_line - 1) in shown:
            return "cut"
        return "ranked_low"

    def _cases(self, condition: str) -> Iterator[Case]:
        shape = SHAPES[condition]
        listing, more, tests, names = self._contents(shape)
        answer, number = None, 0
        try:
            answer = render_edit(listing, self.gold.sources)
            number = int(re.match(r"\d+", answer)[0])  # type: ignore[index]
        except (ValueError, KeyError):
            pass
        language = LANGUAGES[shape.language]
        trace = fitting(
            trace_rows(listing, self.view.last_lines, shape.trace_lines),
            lambda rows: self._size(
                self._text(listing, language.listing(listing), more, tests, names, rows)
            ),
            shape.max_tokens or self.solver.scaffold.max_prompt_tokens,
        )
        text = self._text(listing, language.listing(listing), more, tests, names, trace)
        assert text.endswith("Fix the bug")
        ask = shape.ask.format(line=number, kind=self.gold.kind or "code")
        if not shape.place and shape.spectrum:
            ask += self._named(listing)
        gold, place = gold_answer(language, listing, answer) if answer else (None, 0)
        yield Case(
            condition=condition,
            system=(language.system or render("system"))
            + (EXAMPLE + language.example if self.example else ""),
            user=text.removesuffix("Fix the bug") + ask,
            listing=listing,
            prefill=language.prefill,
            answer=gold,
            place=place,
        )

    def _contents(self, shape: Shape) -> tuple[Listing, str, str, list[str]]:
        """(listing, other code, code of the tests, their names)."""
        scaffold = self.solver.scaffold
        suspects = self.suspects if shape.spectrum else self.untold
        tests, names = self.tests, self.names
        if shape.test_lines:
            tests, names = shown_tests(self.bodies, self.failures, shape.test_lines)
        functions, sources = list(suspects.functions), {**suspects.sources}
        first = self.gold.function if shape.place else None
        if first is not None:
            functions = [first, *(f for f in functions if _name(f) != _name(first))]
            sources.setdefault(first.path, self.view.read(first.path) or "")
        if not functions:
            return Listing((), {}), "", tests, names
        budget = shape.max_tokens or scaffold.max_prompt_tokens

        def size(listing: Listing, more: str = "") -> int:
            return self._size(self._text(listing, listing.render(), more, tests, names))

        listing = fit_listing(
            [self._maker(suspects, f, shape) for f in functions[:MAX_CANDIDATES]],
            sources.__getitem__,
            size,
            max_tokens=budget,
            max_functions=shape.max_functions or scaffold.max_functions,
            max_lines=scaffold.max_function_lines * (2 if shape.more else 1),
        )
        more = ""
        for block in self._other_code(listing, functions) if shape.more else ():
            longer = f"{more}\n\n{block}" if more else block
            if size(listing, longer) > budget:
                break
            more = longer
        return listing, more, tests, names

    def _maker(
        self, suspects: Suspects, function: FunctionInfo, shape: Shape
    ) -> Callable[[int], Excerpt]:
        """An excerpt; where the place is given, around it."""
        source = suspects.sources.get(function.path) or self.view.read(function.path) or ""
        focus = suspects.rows.get(_name(function))
        if shape.place and self.gold.function == function:
            focus = self.gold.row

        def make(size: int) -> Excerpt:
            made = excerpt(source, function, max_lines=size, focus=focus)
            if not shape.more:
                return made
            heading = _docstring(source, function, made.heading)
            return Excerpt(path=made.path, rows=made.rows, heading=heading)

        return make

    def _other_code(self, listing: Listing, order: Sequence[FunctionInfo]) -> Iterator[str]:
        """Lines that call what is listed, then functions that it calls or that stand beside it."""
        starts = {(e.path, e.rows[0]) for e in listing.excerpts}
        listed = [f for f in order if (f.path, f.start_line - 1) in starts]
        others = [f for f in self._all_functions() if (f.path, f.start_line - 1) not in starts]
        callers = [line for f in listed for line in self._callers(f)]
        if callers:
            yield "Calls:\n" + "\n".join(dict.fromkeys(callers))
        words = set(re.findall(r"\w+", listing.render()))
        called = [f for f in others if f.qualname.rsplit(".", 1)[-1] in words]
        beside = sorted(
            (f for f in others if any(f.path == g.path for g in listed)),
            key=lambda f: min(abs(f.start_line - g.start_line) for g in listed if g.path == f.path),
        )
        for function in dict.fromkeys([*called, *beside]):
            source = self.view.read(function.path) or ""
            shown = excerpt(source, function, max_lines=MAX_NEIGHBOUR_LINES)
            lines = split_lines(source)
            yield "".join(lines[row] for row in shown.rows).rstrip()

    def _all_functions(self) -> list[FunctionInfo]:
        from selfplay.repo.languages.functions import list_functions

        return [
            f for path, text in self.suspects.sources.items() for f in list_functions(text, path)
        ]

    def _callers(self, function: FunctionInfo) -> list[str]:
        name = re.escape(function.qualname.rsplit(".", 1)[-1])
        pattern = re.compile(rf"(?<!def )\b{name}\(")
        found = []
        for path, text in self.suspects.sources.items():
            for number, line in enumerate(split_lines(text), 1):
                inside = function.start_line <= number <= function.end_line
                if pattern.search(line) and not (path == function.path and inside):
                    found.append(line.strip())
        return found[:MAX_CALLERS]

    def _named(self, listing: Listing) -> str:
        """ " in line 3 or 4": the end of the solver's own question."""
        named = suspect_lines(listing, self.view.spectrum, self.solver.scaffold.max_suspect_lines)
        return bare_question("", named).removeprefix("Fix the bug")

    def _size(self, text: str) -> int:
        return len(self.solver.tokenizer.render(render("system"), text))

    def _text(
        self,
        listing: Listing,
        shown: str,
        more: str,
        tests: str,
        names: Sequence[str],
        trace: Sequence[str] = (),
    ) -> str:
        told = complaints(self.failures, names)
        return render(
            "solver",
            listing=f"{shown}\n\n{more}" if more else shown,
            issue=self.view.problem_statement.strip()[:600],
            tests=tests,
            messages=[message + where(failure, listing) for failure, message in told],
            suspects=(),
            trace=trace,
        )


def gold_of(solver: CompactSolver, task: SolveTask, sealed: Layer, view: SolverView) -> Gold:
    """The gold patch on the sealed tree."""
    tree = solver.prepared.environment.tree
    patch = reverse_patch(task.artifact.bug_patch)
    fixed = apply_patch(tree, sealed, patch)
    sources = {}
    for path in touched_files(patch):
        content = read_file(tree, fixed, path)
        sources[path] = "" if content is None else content.decode("utf-8", "surrogateescape")
    path = next(iter(sources))
    old, new = split_lines(view.read(path) or ""), split_lines(sources[path])
    row = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old) - 1)
    from selfplay.repo.languages.functions import list_functions

    function = next(
        (
            f
            for f in list_functions("".join(old), path)
            if f.start_line - 1 <= row <= f.end_line  # a line added at the end counts
        ),
        None,
    )
    hint = task.artifact.meta.get("hint")
    return Gold(
        sources=sources,
        path=path,
        row=row,
        function=function,
        kind=hint if isinstance(hint, str) else "",
    )


def _docstring(source: str, function: FunctionInfo, heading: str) -> str:
    """The whole docstring below a heading, as comment lines."""
    import ast
    import textwrap

    text = "".join(split_lines(source)[function.start_line - 1 : function.end_line])
    try:
        node = ast.parse(textwrap.dedent(text)).body[0]
        told = ast.get_docstring(node)  # type: ignore[arg-type]
    except (SyntaxError, TypeError, IndexError):
        return heading
    lines = [line for line in (told or "").splitlines() if line.strip()][:MAX_DOC_LINES]
    return "\n# ".join(lines) if lines else heading


def _name(function: FunctionInfo) -> str:
    return f"{function.path}::{function.qualname}"
