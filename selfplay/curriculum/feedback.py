"""The feedback scaffold: the compact one, whose solver may try again when it has seen the tests.

One episode is one trajectory with one reward (RLEF, arXiv 2410.02089): prompt, edit, what the tests
said, edit, ... The last edit is the answer; it is graded like any other. With one try this is the
compact scaffold, token for token.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from selfplay.agent.loop import OnTurn, TurnRecord
from selfplay.chat import ChatRenderer, Transcript
from selfplay.config import FeedbackConfig, PolicyConfig, ScaffoldConfig
from selfplay.curriculum.compact import CompactScaffold, read_answer
from selfplay.curriculum.scaffold import Answer, RepoContext, Rollout, RolloutContext
from selfplay.errors import InfrastructureError
from selfplay.roles.compact.solver import SolverPrompt
from selfplay.roles.feedback.solver import FeedbackSolver, Reply
from selfplay.roles.prompts import render
from selfplay.sampling import Policy, SampleRequest, logprob_temperature
from selfplay.types import Completion, EpisodeStatus, SolveTask

log = logging.getLogger(__name__)
Ending = Literal["passed", "tries", "no_answer", "tokens", "errored"]


@dataclass(kw_only=True)
class Tries:
    """The episode of one attempt: its chat so far. `ending` None: it goes on with `prompt_ids`."""

    task: SolveTask
    prompt: SolverPrompt
    number: int
    temperature: float
    prompt_ids: tuple[int, ...]
    chat: Transcript = field(default_factory=Transcript)
    turns: list[TurnRecord] = field(default_factory=list)
    last: Completion | None = None
    ending: Ending | None = None
    error: str = ""

    @property
    def completion(self) -> Completion:
        """The answer that counts so far: the last one."""
        assert self.last is not None
        return self.last

    def take(self, completion: Completion) -> None:
        """Record the next answer. Where the engine has none, the episode is over."""
        self.last = completion
        if not completion.problem or not self.turns:
            self.chat.add(self.prompt_ids, completion)
        if completion.problem:
            self.error = completion.problem
            cut = completion.problem == "context_length"
            self.ending = "errored" if completion.errored else "tokens" if cut else "no_answer"
        else:
            self.turns.append(
                TurnRecord(
                    thought="", tool="edit", arguments={"answer": completion.text}, observation=""
                )
            )

    def hear(self, reply: Reply | InfrastructureError, renderer: ChatRenderer) -> None:
        """Go on with what came of the last answer, or end."""
        if isinstance(reply, InfrastructureError):
            log.warning("%s: %s", self.task.bug_id, reply)
            self.ending, self.error = "errored", str(reply)
        elif not reply.reason:
            self.ending = "passed"
        elif reply.text is None:
            self.ending, self.error = "tokens", "no room for what the tests said"
        else:
            said = self.completion.token_ids
            self.prompt_ids = renderer.bridge(self.prompt_ids, said, reply.text)
            self.turns[-1] = replace(self.turns[-1], observation=reply.text)

    def rollout(self) -> Rollout:
        """What was sampled; of the status of the last answer."""
        last = self.completion
        status: EpisodeStatus = "truncated" if last.finish_reason == "length" else "completed"
        if self.ending == "tokens":
            status = "truncated"
        trajectory = self.chat.trajectory(self.temperature)
        return Rollout(
            trajectory=trajectory,
            answer=last.text,
            status="errored" if self.ending == "errored" else status,
            policy_version=trajectory.policy_version if trajectory else last.policy_version,
            info={
                "ending": self.ending,
                "error": self.error,
                "num_tries": len(self.turns),
                "system": render("system"),
                "user": self.prompt.text,
                "turns": [asdict(turn) for turn in self.turns],
            },
        )


@dataclass(frozen=True, kw_only=True)
class FeedbackScaffold(CompactScaffold):
    """Injection is the compact scaffold's. `solvers` by the repository's name; all live episodes of
    a step are sampled together, round by round, and their tests run in parallel."""

    solvers: Mapping[str, FeedbackSolver]
    renderer: ChatRenderer
    limits: FeedbackConfig

    @classmethod
    def open(
        cls,
        config: ScaffoldConfig,
        policy: Policy,
        repo_contexts: Mapping[str, RepoContext],
        on_turn: OnTurn | None = None,
    ) -> FeedbackScaffold:
        """See `Scaffold.open`."""
        roles = CompactScaffold.open(config, policy, repo_contexts).roles
        return cls(
            roles=roles,
            solvers={
                name: FeedbackSolver(
                    roles[name].solver, context.runner.sandbox, config.feedback.max_run_s
                )
                for name, context in repo_contexts.items()
            },
            renderer=policy.tokenizer.chat(tools=False),
            limits=config.feedback,
        )

    @classmethod
    def longest(cls, config: ScaffoldConfig, policy: PolicyConfig) -> int:
        """A full prompt, and all tries with what is told between them."""
        told = config.feedback.max_feedback_tokens
        tries = config.feedback.max_tries
        return config.max_prompt_tokens + tries * policy.max_new_tokens + (tries - 1) * told

    def solve(
        self, context: RolloutContext, tasks: Sequence[SolveTask], num_samples: int, salt: object
    ) -> list[list[Answer[str]]]:
        """See `Scaffold.solve`."""
        prompts, requests = self.ask_solver(context, tasks, num_samples, salt)
        groups = [
            [
                Tries(
                    task=task,
                    prompt=prompt,
                    number=number,
                    temperature=logprob_temperature(request.temperature),
                    prompt_ids=prompt.prompt_ids,
                )
                for number in range(num_samples)
            ]
            for task, prompt, request in zip(tasks, prompts, requests, strict=True)
        ]
        live = [episode for group in groups for episode in group]
        answers = [answer for group in context.sample(requests) for answer in group]
        for tries in range(1, self.limits.max_tries + 1):
            for episode, answer in zip(live, answers, strict=True):
                episode.take(answer)
            live = [episode for episode in live if episode.ending is None]
            if tries == self.limits.max_tries:
                break
            self._reply(context, live)
            live = [episode for episode in live if episode.ending is None]
            again = [self._request(context, episode, salt, tries) for episode in live]
            answers = [group[0] for group in context.sample(again)] if again else []
        for episode in live:
            episode.ending = "tries"
        return [[self._answer(episode) for episode in group] for group in groups]

    def _reply(self, context: RolloutContext, live: Sequence[Tries]) -> None:
        """Run the tests on what was answered, equal answers to one task once."""
        distinct = {_said(episode): episode for episode in live}
        told = context.pool.map(self._look, distinct.values())
        replies = dict(zip(distinct, told, strict=True))
        for episode in live:
            episode.hear(replies[_said(episode)], self.renderer)

    def _look(self, episode: Tries) -> Reply | InfrastructureError:
        """The named boundary at which a fault of the sandbox becomes an ending."""
        prompt, answer = episode.prompt, episode.completion
        cut_at = len(answer.token_ids) if answer.finish_reason == "length" else 0

        def fits(text: str) -> bool:
            told = self.renderer.bridge(prompt.prompt_ids, (), text)
            return len(told) - len(prompt.prompt_ids) <= self.limits.max_feedback_tokens

        try:
            return self.solvers[episode.task.repo].reply(prompt, answer.text, fits, cut_at)
        except InfrastructureError as error:
            return error

    def _request(
        self, context: RolloutContext, episode: Tries, salt: object, tries: int
    ) -> SampleRequest:
        key = (episode.task.bug_id, salt, episode.number, "try", tries)
        return context.sampling.request("solver", episode.prompt_ids, 1, *key)

    def _answer(self, episode: Tries) -> Answer[str]:
        """Equal last answers say the same, whatever was tried before."""
        reader = self.roles[episode.task.repo].solver.fix_patch
        last, lost = episode.completion, episode.ending == "errored"
        return Answer(
            rollout=episode.rollout(),
            read=functools.partial(_read, reader, episode),
            key=(last.text, last.problem, last.errored, episode.error if lost else ""),
        )


def _read(reader: Callable[[SolverPrompt, str], str], episode: Tries) -> str:
    if episode.ending == "errored" and not episode.completion.problem:
        raise InfrastructureError(episode.error)
    return read_answer(reader, episode.prompt, episode.completion)


def _said(episode: Tries) -> tuple[str, str, bool]:
    answer = episode.completion
    return episode.task.bug_id, answer.text, answer.finish_reason == "length"
