"""The injector in one turn: a numbered function in the prompt, a short edit as the answer.

The model plants the bug; the harness writes the rest of the artifact around it: oracle test files,
script, parser, and the weakening patch that removes the tests that fail (docs/formats.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from selfplay.bug_sources.procedural import Mutation, propose
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import parser_source, runner_script
from selfplay.compact.edits import EditError, Listing, edited_numbers, parse_edit, render_edit
from selfplay.compact.excerpts import excerpt, fit_listing
from selfplay.compact.oracle_tests import OracleTests
from selfplay.config import ScaffoldConfig
from selfplay.errors import UserError
from selfplay.repo.history import PastChange, past_changes
from selfplay.repo.languages.functions import FunctionInfo
from selfplay.repo.languages.python_source import split_lines
from selfplay.repo.languages.registry import language_of
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.prompts import bare_question, render
from selfplay.roles.rejected import Rejected
from selfplay.sampling import Tokenizer
from selfplay.sandbox.base import Environment
from selfplay.seeds import derive_rng
from selfplay.types import BugArtifact, FileChange, InjectionTask, Layer

MAX_PAST_CHANGES = 20
MAX_CHANGE_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """Which kind of bug is wanted, and in which line of the listing: a source of variety."""

    kind: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorPrompt:
    """One injection as the model sees it, with what is needed to read the answer."""

    task: InjectionTask
    prompt_ids: tuple[int, ...]
    text: str
    listing: Listing
    hint: Hint | None


class CompactInjector:
    """Injector prompts and artifacts of one repository. Thread-safe."""

    def __init__(
        self,
        prepared: PreparedRepo,
        tokenizer: Tokenizer,
        runner: TestRunner,
        scaffold: ScaffoldConfig,
    ) -> None:
        self.prepared = prepared
        self.tokenizer = tokenizer
        self.scaffold = scaffold
        self.runner = runner
        self.oracle = OracleTests(
            prepared.profile, max_files=scaffold.max_oracle_files, max_s=scaffold.max_oracle_s
        )
        self._functions = {(f.path, f.qualname): f for f in prepared.functions}

    def function(self, task: InjectionTask) -> FunctionInfo:
        """The target's function. Raises `UserError` when the repository has none of that name."""
        target = task.target
        found = self._functions.get((target.path, target.function))
        if found is None:
            raise UserError(
                f"target {target.path}::{target.function}: {self.prepared.name} has no such "
                "function; choose one of PreparedRepo.functions"
            )
        return found

    def prompt(self, task: InjectionTask, hint: Hint | None = None) -> InjectorPrompt:
        """The prompt of one task: a function of the task alone, unless a hint is given.

        Raises `UserError` for an unknown target, or a history task without a past change.
        """
        function = self.function(task)
        source = self.prepared.source(function.path)
        change = self._change(task) if task.strategy == "history" else ""

        def text_of(listing: Listing, chosen: Hint | None) -> str:
            return render(
                "injector",
                listing=listing.render(),
                strategy=task.strategy,
                hint=chosen,
                change=change,
            )

        system = render("system")
        widest = Hint(kind="condition", line=99)
        listing = fit_listing(
            [lambda size: excerpt(source, function, max_lines=size)],
            lambda _: source,
            lambda shown: len(self.tokenizer.render(system, text_of(shown, widest))),
            max_tokens=self.scaffold.max_prompt_tokens,
            max_functions=1,
            max_lines=self.scaffold.max_function_lines,
        )
        if hint is None and task.strategy != "history":
            hint = self._draw_hint(task, listing, source, function)
        text = text_of(listing, hint)
        return InjectorPrompt(
            task=task,
            prompt_ids=self.tokenizer.render(system, text),
            text=text,
            listing=listing,
            hint=hint,
        )

    def _draw_hint(
        self, task: InjectionTask, listing: Listing, source: str, function: FunctionInfo
    ) -> Hint | None:
        """A listed line that an operator of the strategy fits, then a kind that fits the line. A
        task that wants some kinds gets the first of them that fits any line."""
        fitting: dict[int, set[str]] = {}
        for mutation in propose(source, function):
            hint = hint_for(listing, mutation, function.path)
            if hint and mutation.removal == (task.strategy == "removal"):
                fitting.setdefault(hint.line, set()).add(hint.kind)
        if not fitting:
            return None
        known = set().union(*fitting.values())
        wanted = next((kind for kind in task.kinds if kind in known), None)
        if wanted is not None:
            fitting = {line: {wanted} for line, kinds in fitting.items() if wanted in kinds}
        rng = derive_rng(task.task_id, "hint")
        line = rng.choice(sorted(fitting))
        return Hint(kind=rng.choice(sorted(fitting[line])), line=line)

    def _change(self, task: InjectionTask) -> str:
        """The past change to undo, as removed and added lines."""
        target = task.target
        changes = past_changes(self.prepared, target.path, target.function, limit=MAX_PAST_CHANGES)
        matching = [c for c in changes if target.commit in (None, c.commit)]
        if not matching:
            raise UserError(
                f"target {target.path}::{target.function}: no past change"
                f"{f' in commit {target.commit}' if target.commit else ''} in the history of "
                f"{self.prepared.name}; choose another target or strategy"
            )
        return change_text(derive_rng(task.task_id, "change").choice(matching))

    def artifact(self, prompt: InjectorPrompt, answer: str) -> BugArtifact:
        """The five files around the model's edit; runs the oracle tests on both trees once.

        Raises `Rejected` when the answer plants no bug that the tests notice.
        """
        task, profile = prompt.task, self.prepared.profile
        environment = self.prepared.environment
        layer = edited_layer(environment, answer, prompt.listing)
        files = self._oracle_files(task)
        script = runner_script(profile.runner, files)
        parser = parser_source(profile.runner)
        run = self.runner.run(script, parser, layer, timeout_s=task.limits.script_timeout_s)
        if run.timed_out:
            raise Rejected("timed_out")
        known = [test for test, info in profile.tests.items() if info.file in files]
        failing = [test for test in known if run.table.get(test) == "failed"]
        if not any(run.table.get(test) == "passed" for test in known):
            raise Rejected("all_tests_fail")
        if not failing:
            raise Rejected("no_failing_test")
        broken = [file for file in files if run.table.get(file) == "failed"]  # as a whole
        weakened = weakening_layer(environment.tree, [*failing, *broken])
        return BugArtifact(
            test_script=script,
            test_files=files,
            test_parser=parser,
            bug_patch=make_patch(environment.tree, {}, layer),
            weakening_patch=make_patch(environment.tree, {}, weakened),
            meta={
                "repo": task.repo,
                "strategy": task.strategy,
                "path": task.target.path,
                "function": task.target.function,
                "commit": task.target.commit,
                "hint": prompt.hint.kind if prompt.hint else None,
            },
        )

    def undo(
        self, prompt: InjectorPrompt, answer: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(prompt, answer) of a solver that sees the edited function, is told the line but nothing
        of the tests, and takes the edit back; None for what is no change of code. Runs nothing.

        Such prompts are those of the warm start's examples without tests: how likely that answer
        is tells which edits are worth a validation.
        """
        path = prompt.task.target.path
        function, original = self.function(prompt.task), self.prepared.source(path)
        try:
            layer = edited_layer(self.prepared.environment, answer, prompt.listing)
        except Rejected:
            return None
        content = layer[path].content if set(layer) == {path} else None
        if content is None:
            return None
        text = content.decode("utf-8", "surrogateescape")
        longer = len(split_lines(text)) - len(split_lines(original))
        shown = dataclasses.replace(function, end_line=function.end_line + longer)
        if shown.end_line <= shown.start_line:
            return None
        listing = Listing(
            [excerpt(text, shown, max_lines=self.scaffold.max_function_lines)], {path: text}
        )
        try:
            gold = render_edit(listing, {path: original})
        except ValueError:
            return None
        told = edited_numbers(gold)[:1] if self.scaffold.max_suspect_lines else ()
        question = bare_question(listing.render(), told)
        end = self.tokenizer.end_of_turn_id
        return (
            self.tokenizer.render(render("system"), question),
            (*self.tokenizer.encode(gold), end),
        )

    def _oracle_files(self, task: InjectionTask) -> tuple[str, ...]:
        """Test files that pass on the original when they run without the rest of the suite.

        Files may pass only behind others, which register or import something. The run is the one
        that the validation begins with. Raises `Rejected` when no files are left.
        """
        runner, unfit = self.prepared.profile.runner, set[str]()
        while True:
            files = self.oracle.files(
                task.target.path, task.target.function, task.limits.min_passing_tests, unfit
            )
            if not files:
                raise Rejected("not_covered", f"{task.target.path}::{task.target.function}")
            original = self.runner.run(
                runner_script(runner, files),
                parser_source(runner),
                {},
                timeout_s=task.limits.script_timeout_s,
            )
            if original.timed_out:
                raise Rejected("timed_out")
            found = self.oracle.unfit(files, original.table)
            if not found:
                return files
            unfit |= found


def hint_for(listing: Listing, mutation: Mutation, path: str) -> Hint | None:
    """The hint that asks for a mutation; None when its first line is not listed."""
    number = listing.number(path, mutation.line - 1)
    return Hint(kind=mutation.kind, line=number) if number else None


def change_text(change: PastChange) -> str:
    """At most `MAX_CHANGE_LINES` changed lines of a past change."""
    return "\n".join(change.changed_lines()[:MAX_CHANGE_LINES])


def edited_layer(
    environment: Environment, answer: str, listing: Listing, below: Layer | None = None
) -> Layer:
    """The changed files of an answer, on top of `below`.

    Raises `Rejected`: bad_format, bad_line, syntax_error, or no_change (which includes edits of
    comments, docstrings and layout alone).
    """
    try:
        changed = parse_edit(answer, listing)
    except EditError as error:
        raise Rejected(error.reason, str(error)) from error
    if not all(language_of(path).is_valid(text) for path, text in changed.items()):
        raise Rejected("syntax_error")
    before = listing.sources
    if all(language_of(path).same_code(before[path], text) for path, text in changed.items()):
        raise Rejected("no_change", "the code is the same")
    return {
        path: _file_change(environment, below or {}, path, text) for path, text in changed.items()
    }


def _file_change(
    environment: Environment, below: Mapping[str, FileChange], path: str, text: str
) -> FileChange:
    if path in below:
        executable = below[path].executable
    else:
        file = environment.tree / path
        executable = file.exists() and bool(file.stat().st_mode & 0o100)
    return FileChange(content=text.encode("utf-8", "surrogateescape"), executable=executable)
