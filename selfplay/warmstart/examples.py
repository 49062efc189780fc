"""Supervised examples for the warm start: a prompt of the run, and a good answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfplay.repo.history import PastChange
from selfplay.roles.compact.gold_answer import gold_answer
from selfplay.roles.compact.injector import InjectorPrompt, change_text
from selfplay.roles.compact.solver import CompactSolver
from selfplay.roles.prompts import render
from selfplay.sampling import Tokenizer
from selfplay.types import Role, SolveTask
from selfplay.warmstart.procedural_answers import ProceduralAnswer

Teaches = Role | Literal["trace"]
"""Whom an example teaches; "trace": what code does, which both roles stand on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedExample:
    """A prompt and the answer to imitate; `answer_ids` end with the end-of-turn token."""

    role: Teaches
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    answer: str

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and answer in one."""
        return self.prompt_ids + self.answer_ids

    @property
    def loss_mask(self) -> tuple[int, ...]:
        """1 for the tokens to be learnt: the answer's."""
        return (0,) * len(self.prompt_ids) + (1,) * len(self.answer_ids)


def make_example(
    role: Teaches, tokenizer: Tokenizer, prompt_ids: tuple[int, ...], answer: str
) -> SupervisedExample:
    """An answer in text, with the end of its turn."""
    return SupervisedExample(
        role=role,
        prompt_ids=prompt_ids,
        answer_ids=(*tokenizer.encode(answer), tokenizer.end_of_turn_id),
        answer=answer,
    )


def injector_example(tokenizer: Tokenizer, found: ProceduralAnswer) -> SupervisedExample:
    """Plant the mutation, asked for by its kind and line."""
    return make_example("injector", tokenizer, found.prompt.prompt_ids, found.answer)


def history_example(tokenizer: Tokenizer, found: ProceduralAnswer) -> SupervisedExample:
    """The same answer under the history strategy: the mutation was repaired by a past change."""
    prompt: InjectorPrompt = found.prompt
    mutation, source = found.mutation, prompt.listing.sources[prompt.task.target.path]
    original = source[len(mutation.before) : len(source) - len(mutation.after)]
    change = PastChange(commit="", subject="", before=mutation.function, after=original)
    text = render(
        "injector",
        listing=prompt.listing.render(),
        strategy="history",
        hint=None,
        change=change_text(change),
    )
    prompt_ids = tokenizer.render(render("system"), text)
    return make_example("injector", tokenizer, prompt_ids, found.answer)


def solver_example(solver: CompactSolver, task: SolveTask) -> SupervisedExample | None:
    """Repair a bug as its gold patch does; None when the prompt does not show the place."""
    found = gold_answer(solver, solver.prompt(task))
    if found is None:
        return None
    return make_example("solver", solver.tokenizer, found.prompt_ids, found.text)
