"""The compact scaffold: one prompt, one short edit; the harness writes a bug's other files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from selfplay.agent.loop import OnTurn
from selfplay.bugs.test_runs.spectrum import SpectrumRecorder
from selfplay.chat import Transcript
from selfplay.config import PolicyConfig, ScaffoldConfig
from selfplay.curriculum.scaffold import Answer, RepoContext, Rollout, RolloutContext
from selfplay.roles.compact.gold_answer import gold_answer
from selfplay.roles.compact.injector import CompactInjector, InjectorPrompt
from selfplay.roles.compact.solver import CompactSolver, SolverPrompt
from selfplay.roles.rejected import Rejected
from selfplay.sampling import Policy, SampleRequest, Tokenizer, logprob_temperature
from selfplay.scripted.compact import ScriptedPolicy
from selfplay.types import (
    BugArtifact,
    Completion,
    InjectionTask,
    SolveTask,
    Strategy,
    Trajectory,
)

T = TypeVar("T")
Prompt = TypeVar("Prompt", InjectorPrompt, SolverPrompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactRoles:
    """Both roles in one turn, on one repository."""

    injector: CompactInjector
    solver: CompactSolver

    @classmethod
    def on(cls, context: RepoContext, tokenizer: Tokenizer, config: ScaffoldConfig) -> CompactRoles:
        """The roles on a prepared repository."""
        prepared = context.prepared
        return cls(
            injector=CompactInjector(prepared, tokenizer, context.runner, config),
            solver=CompactSolver(prepared, tokenizer, config, SpectrumRecorder(context.runner)),
        )


@dataclass(frozen=True, kw_only=True)
class CompactScaffold:
    """Both roles in one turn; `roles` by the repository's name. `screened`: prompts of bugs whose
    gold answer was asked for, until they are played."""

    roles: Mapping[str, CompactRoles]
    strategies: tuple[Strategy, ...] = ("direct", "removal", "history")
    targeted: bool = True
    num_open: int | None = None
    screened: dict[str, SolverPrompt] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        config: ScaffoldConfig,
        policy: Policy,
        repo_contexts: Mapping[str, RepoContext],
        on_turn: OnTurn | None = None,
    ) -> CompactScaffold:
        """See `Scaffold.open`."""
        roles = {
            name: CompactRoles.on(context, policy.tokenizer, config)
            for name, context in repo_contexts.items()
        }
        return cls(roles=roles)

    @classmethod
    def scripted(cls) -> Policy:
        """See `Scaffold.scripted`."""
        return ScriptedPolicy()

    @classmethod
    def longest(cls, config: ScaffoldConfig, policy: PolicyConfig) -> int:
        """A full prompt and a full answer."""
        return config.max_prompt_tokens + policy.max_new_tokens

    def inject(
        self, context: RolloutContext, tasks: Sequence[InjectionTask], num_samples: int
    ) -> list[list[Answer[BugArtifact]]]:
        """See `Scaffold.inject`. Reading an answer runs the oracle tests once."""
        prompts = [self.roles[task.repo].injector.prompt(task) for task in tasks]
        requests = [
            context.sampling.request("injector", prompt.prompt_ids, num_samples, task.task_id)
            for task, prompt in zip(tasks, prompts, strict=True)
        ]
        readers = [self.roles[task.repo].injector.artifact for task in tasks]
        groups = _sampled(context, requests, prompts, readers)
        return [
            [
                replace(
                    answer,
                    undo=functools.partial(
                        self.roles[task.repo].injector.undo, prompt, answer.rollout.answer
                    ),
                )
                for answer in group
            ]
            for task, prompt, group in zip(tasks, prompts, groups, strict=True)
        ]

    def solve(
        self, context: RolloutContext, tasks: Sequence[SolveTask], num_samples: int, salt: object
    ) -> list[list[Answer[str]]]:
        """See `Scaffold.solve`."""
        prompts, requests = self.ask_solver(context, tasks, num_samples, salt)
        readers = [self.roles[task.repo].solver.fix_patch for task in tasks]
        return _sampled(context, requests, prompts, readers)

    def ask_solver(
        self, context: RolloutContext, tasks: Sequence[SolveTask], num_samples: int, salt: object
    ) -> tuple[list[SolverPrompt], list[SampleRequest]]:
        """What each task's first answers are sampled from."""
        prompts = context.pool.map(self._prompt, tasks)
        self.screened.clear()
        requests = [
            context.sampling.request("solver", prompt.prompt_ids, num_samples, task.bug_id, salt)
            for task, prompt in zip(tasks, prompts, strict=True)
        ]
        return prompts, requests

    def _prompt(self, task: SolveTask) -> SolverPrompt:
        """The prompt of a task; a function of the task, whether it was made before or not."""
        known = self.screened.get(task.bug_id)
        if known is not None and known.task is task:
            return known
        return self.roles[task.repo].solver.prompt(task)

    def gold_answer(self, task: SolveTask) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """See `KnowsAnswers.gold_answer`."""
        solver = self.roles[task.repo].solver
        prompt = self.screened[task.bug_id] = solver.prompt(task)
        found = gold_answer(solver, prompt)
        if found is None:
            return None
        tokenizer = solver.tokenizer
        return found.prompt_ids, (*tokenizer.encode(found.text), tokenizer.end_of_turn_id)


def _sampled(
    context: RolloutContext,
    requests: Sequence[SampleRequest],
    prompts: Sequence[Prompt],
    readers: Sequence[Callable[[Prompt, str], T]],
) -> list[list[Answer[T]]]:
    return [
        [
            Answer(
                rollout=one_turn(request, completion),
                read=functools.partial(read_answer, reader, prompt, completion),
                key=(completion.text, completion.problem, completion.errored),
            )
            for completion in completions
        ]
        for request, prompt, reader, completions in zip(
            requests, prompts, readers, context.sample(requests), strict=True
        )
    ]


def read_answer(reader: Callable[[Prompt, str], T], prompt: Prompt, completion: Completion) -> T:
    """What one answer says. Raises `Rejected` where the engine gave none."""
    if completion.problem:
        raise Rejected(completion.problem, errored=completion.errored)
    return reader(prompt, completion.text)


def one_turn(request: SampleRequest, completion: Completion) -> Rollout:
    """The rollout of a role that answers once."""
    return Rollout(
        trajectory=trajectory(request, completion),
        answer=completion.text,
        status="truncated" if completion.finish_reason == "length" else "completed",
        policy_version=completion.policy_version,
    )


def trajectory(request: SampleRequest, completion: Completion) -> Trajectory:
    """Prompt and answer as aligned lists.

    Example: prompt (5, 6), answer (7, 8) with logprobs (-1., -2.) gives ids (5, 6, 7, 8),
    mask (0, 0, 1, 1) and logprobs (0., 0., -1., -2.).
    """
    said = Transcript()
    said.add(request.prompt_ids, completion)
    made = said.trajectory(logprob_temperature(request.temperature))
    assert made is not None
    return made
