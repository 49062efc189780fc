"""Procedural answers and supervised examples: made by the prompts and grammar of the run."""

from __future__ import annotations

import itertools

from selfplay.bugs.artifact import solve_task
from selfplay.bugs.validation.validate import validate
from selfplay.compact.edits import parse_edit
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.compact.injector import CompactInjector
from selfplay.roles.compact.solver import CompactSolver
from selfplay.warmstart.examples import history_example, injector_example, solver_example
from selfplay.warmstart.procedural_answers import (
    procedural_answers,
    procedural_artifact,
    procedural_bugs,
)


def test_answers_are_distinct_expressible_and_reproducible(injector: CompactInjector) -> None:
    found = list(itertools.islice(procedural_answers(injector, seed=1), 40))
    assert found == list(itertools.islice(procedural_answers(injector, seed=1), 40)) or [
        (f.task, f.answer) for f in found
    ] == [(f.task, f.answer) for f in itertools.islice(procedural_answers(injector, seed=1), 40)]
    assert len({(f.task.target, f.mutation.source) for f in found}) == len(found) == 40
    for item in found:
        changed = parse_edit(item.answer, item.prompt.listing)
        assert changed == {"pkg/core.py": item.mutation.source}
        assert item.prompt.hint is not None and item.prompt.hint.kind == item.mutation.kind
        assert (item.task.strategy == "removal") is item.mutation.removal
        assert len(item.answer.split("\n")) <= 5
    other = itertools.islice(procedural_answers(injector, seed=2), 40)
    assert [f.answer for f in other] != [f.answer for f in found]


def test_functions_take_turns_and_are_bounded(injector: CompactInjector) -> None:
    found = list(procedural_answers(injector, seed=1, max_per_function=2))
    names = [f.task.target.function for f in found]
    assert {"clamp", "total", "Bag.add"} <= set(names) and "unused" not in names
    assert max(names.count(name) for name in names) <= 2


def test_bugs_name_their_operator(injector: CompactInjector) -> None:
    task, artifact = next(procedural_bugs(injector, seed=0))
    assert artifact.meta["operator"] and artifact.meta["strategy"] == task.strategy


def test_examples_of_both_roles(
    injector: CompactInjector, solver: CompactSolver, prepared: PreparedRepo
) -> None:
    for found in itertools.islice(procedural_answers(injector, seed=3), 12):
        planted = injector_example(injector.tokenizer, found)
        assert injector.tokenizer.decode(planted.answer_ids) == found.answer
        assert planted.answer_ids[-1] == injector.tokenizer.end_of_turn_id
        assert planted.prompt_ids == found.prompt.prompt_ids
        assert len(planted.token_ids) == len(planted.loss_mask)
        assert sum(planted.loss_mask) == len(planted.answer_ids)
        undone = injector.tokenizer.decode(history_example(injector.tokenizer, found).prompt_ids)
        assert "Past change:" in undone and undone.endswith("undo the change")
        artifact = procedural_artifact(injector, found)
        if artifact is None:
            continue
        limits = found.task.limits
        report = validate(artifact, prepared.environment, injector.runner, limits)
        if report.verdict != "valid":
            continue
        task = solve_task("project", artifact, report, limits)
        example = solver_example(solver, task)
        if example is not None:
            prompt = solver.prompt(task)
            assert example.prompt_ids == prompt.prompt_ids
            (fixed,) = parse_edit(example.answer, prompt.listing).values()
            assert fixed == prepared.source("pkg/core.py")
            assert solver.fix_patch(prompt, example.answer)
            return
    raise AssertionError("no valid bug among the first answers")
