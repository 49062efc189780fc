"""Procedural bugs put through the injector's own path: prompt, answer, artifact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfplay.bug_sources.procedural import Mutation, by_operator, propose
from selfplay.compact.edits import render_edit
from selfplay.compact.excerpts import shown_whole
from selfplay.repo.languages.functions import FunctionInfo
from selfplay.roles.compact.injector import CompactInjector, Hint, InjectorPrompt, hint_for
from selfplay.roles.rejected import Rejected
from selfplay.seeds import derive_rng
from selfplay.types import BugArtifact, InjectionTask, Limits, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ProceduralAnswer:
    """A mutation written as the answer to the prompt that asks for such a bug."""

    prompt: InjectorPrompt
    mutation: Mutation
    answer: str

    @property
    def task(self) -> InjectionTask:
        """The task that the prompt belongs to."""
        return self.prompt.task


def procedural_answers(
    injector: CompactInjector,
    seed: int,
    *,
    functions: tuple[FunctionInfo, ...] | None = None,
    max_per_function: int | None = None,
    limits: Limits | None = None,
) -> Iterator[ProceduralAnswer]:
    """Distinct mutations in random order, one function after the other in turn.

    functions          to draw from; default: all that affordable tests reach and that are short
                       enough to be shown whole
    max_per_function   at most so many of each function

    Operators are drawn evenly, so that a frequent one (wrong names) does not crowd out the rest.
    Ends when nothing is left. Nothing is run.
    """
    limits = limits or Limits()
    rng = derive_rng(seed, injector.prepared.name, "procedural")
    pool = [
        f
        for f in (functions if functions is not None else injector.prepared.functions)
        if shown_whole(injector.prepared.source(f.path), f, injector.scaffold.max_function_lines)
        and injector.oracle.files(f.path, f.qualname, limits.min_passing_tests)
    ]
    rng.shuffle(pool)
    waiting: dict[FunctionInfo, dict[str, list[Mutation]]] = {}
    number = 0
    while pool:
        for function in list(pool):
            if function not in waiting:
                source = injector.prepared.source(function.path)
                waiting[function] = by_operator(propose(source, function))
            operators = waiting[function]
            if not operators or max_per_function == number:
                pool.remove(function)
                del waiting[function]
                continue
            operator = rng.choice(sorted(operators))
            mutation = operators[operator].pop(rng.randrange(len(operators[operator])))
            if not operators[operator]:
                del operators[operator]
            name = f"procedural/{seed}/{function.path}::{function.qualname}/{number}"
            found = procedural_answer(injector, function, mutation, name, limits)
            if found:
                yield found
        number += 1


def procedural_answer(
    injector: CompactInjector,
    function: FunctionInfo,
    mutation: Mutation,
    task_id: str,
    limits: Limits,
) -> ProceduralAnswer | None:
    """The prompt and answer of one mutation; None when it lies outside the listing."""
    task = InjectionTask(
        task_id=task_id,
        repo=injector.prepared.name,
        strategy="removal" if mutation.removal else "direct",
        target=Target(path=function.path, function=function.qualname),
        limits=limits,
    )
    prompt = injector.prompt(task, Hint(kind=mutation.kind, line=1))
    hint = hint_for(prompt.listing, mutation, function.path)
    if hint is None:
        return None
    prompt = injector.prompt(task, hint)
    try:
        answer = render_edit(prompt.listing, {function.path: mutation.source})
    except ValueError:
        return None
    return ProceduralAnswer(prompt=prompt, mutation=mutation, answer=answer)


def procedural_bugs(
    injector: CompactInjector, seed: int
) -> Iterator[tuple[InjectionTask, BugArtifact]]:
    """Artifacts of the mutations that the tests notice; not yet validated."""
    for found in procedural_answers(injector, seed):
        artifact = procedural_artifact(injector, found)
        if artifact is not None:
            yield found.task, artifact


def procedural_artifact(injector: CompactInjector, found: ProceduralAnswer) -> BugArtifact | None:
    """The artifact of one procedural answer (one test run); None when the tests see no bug."""
    try:
        artifact = injector.artifact(found.prompt, found.answer)
    except Rejected:
        return None
    meta = {**artifact.meta, "operator": found.mutation.operator}
    return BugArtifact(
        test_script=artifact.test_script,
        test_files=artifact.test_files,
        test_parser=artifact.test_parser,
        bug_patch=artifact.bug_patch,
        weakening_patch=artifact.weakening_patch,
        meta=meta,
    )
