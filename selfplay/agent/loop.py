"""One agentic episode, turn by turn: prompt, completion, tool call, observation, next prompt.

Token ids in, token ids out: the chat only ever grows, and what was sampled is never tokenised
again. Where the model's template rewrites earlier turns, the tokens so far are a sample that ends
there, and the next prompt begins another one. `AgentEpisode` is a state machine, so that a driver
may sample many episodes in one batch and perform their calls in parallel (`agent/driver.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from selfplay.agent.tools import TOOLS, BadArguments, ToolBox
from selfplay.chat import BadCall, ChatRenderer, ToolCall, Transcript
from selfplay.config import AgentLimits
from selfplay.errors import InfrastructureError, SandboxSpent
from selfplay.sampling import SampleRequest, logprob_temperature
from selfplay.sandbox.session.session import Session
from selfplay.seeds import derive_seed
from selfplay.types import Completion, EpisodeStatus, Trajectory

log = logging.getLogger(__name__)
Ending = Literal[
    "submitted",
    "bad_calls",
    "no_answer",
    "turns",
    "tokens",
    "wall_time",
    "sandbox_spent",
    "errored",
]
STATUS: dict[Ending, EpisodeStatus] = {
    "submitted": "completed",
    "bad_calls": "completed",  # an answer that cannot be used, as in the compact scaffold
    "no_answer": "completed",  # the model was kept from answering (a filter): not solved
    "turns": "truncated",
    "tokens": "truncated",
    "wall_time": "truncated",
    "sandbox_spent": "truncated",
    "errored": "errored",
}
MIN_ANSWER = 16
"""Tokens that must be left for a turn to begin."""
MIN_OBSERVATION = 64
"""Bytes below which an observation is not cut any further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """One turn as text, for people. `tool` is "" when there was no usable call."""

    thought: str
    tool: str
    arguments: dict[str, str]
    observation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTask:
    """What an episode needs of its role.

    open      opens the sandbox, with all that belongs into it
    submit    judges a submission: None accepts it, a text refuses it and the episode goes on
    seed      of the sampling
    """

    name: str
    system: str
    user: str
    open: Callable[[], Session]
    submit: Callable[[Session], str | None]
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0


OnTurn = Callable[[str, int, TurnRecord], None]
"""Called with the task's name, the number of the turn from 1, and the turn."""


@dataclass(kw_only=True)
class AgentEpisode:
    """One episode. `open` first; then `request`, sample, `take` until `ending` is set; `close`.

    No method raises for what the model does or for a lost sandbox: these are endings.
    """

    task: AgentTask
    renderer: ChatRenderer
    limits: AgentLimits
    on_turn: OnTurn | None = None
    ending: Ending | None = None
    error: str = ""
    turns: list[TurnRecord] = field(default_factory=list)
    _session: Session | None = None
    _said: Transcript = field(default_factory=Transcript)
    _prompt: tuple[int, ...] = ()
    _told: list[tuple[tuple[int, ...], str]] = field(default_factory=list)
    _num_bad: int = 0
    _began: float = field(default_factory=time.monotonic)

    def open(self) -> None:
        """Open the sandbox and render the first prompt."""
        self._began = time.monotonic()
        self._prompt = self.renderer.render(self.task.system, self.task.user, TOOLS)
        self._check_room()
        if self.ending is None:
            self._guarded(self._open)

    def request(self) -> SampleRequest:
        """What to sample next."""
        assert self.ending is None
        room = self.limits.max_tokens - len(self._prompt)
        return SampleRequest(
            prompt_ids=self._prompt,
            max_new_tokens=min(self.limits.max_turn_tokens, room),
            temperature=self.task.temperature,
            top_p=self.task.top_p,
            seed=derive_seed(self.task.seed, len(self.turns)),
            end_of_turn_id=self.renderer.end_of_turn_id,
        )

    def take(self, completion: Completion) -> None:
        """Record a completion, perform its call, and make the next prompt or the ending."""
        assert self.ending is None and self._session is not None
        if completion.problem:
            self._no_answer(completion)
            return
        self._record(completion)
        self._guarded(lambda: self._perform(completion))
        if self.ending is None and len(self.turns) >= self.limits.max_turns:
            self.ending = "turns"
        if self.ending is None and time.monotonic() - self._began > self.limits.wall_s:
            self.ending = "wall_time"
        if self.ending is None:
            self._extend(completion)

    def close(self) -> None:
        """End the sandbox. Idempotent."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def status(self) -> EpisodeStatus:
        """Of an episode that has ended."""
        assert self.ending is not None
        return STATUS[self.ending]

    @property
    def trajectory(self) -> Trajectory | None:
        """The tokens up to the last sampled one; None when nothing was sampled."""
        return self._said.trajectory(logprob_temperature(self.task.temperature))

    def _open(self) -> None:
        self._session = self.task.open()

    def _guarded(self, step: Callable[[], None]) -> None:
        """The named boundary at which a lost sandbox becomes an ending."""
        try:
            step()
        except SandboxSpent as spent:
            self.ending, self.error = "sandbox_spent", str(spent)
        except InfrastructureError as error:
            log.warning("%s: %s", self.task.name, error)
            self.ending, self.error = "errored", str(error)

    def _no_answer(self, completion: Completion) -> None:
        """The engine tells why it has no answer; what was played before stays."""
        self.error = completion.problem
        if completion.errored:
            self.ending = "errored"
        else:
            self.ending = "tokens" if completion.problem == "context_length" else "no_answer"

    def _record(self, completion: Completion) -> None:
        """Append prompt and completion to the aligned lists."""
        assert self.renderer.end_of_turn_id not in completion.token_ids[:-1]
        self._said.add(self._prompt, completion, rewrites=self.renderer.rewrites)

    def _perform(self, completion: Completion) -> None:
        """The call's observation, or the ending that it brings."""
        call = self.renderer.parse(completion.token_ids)
        if completion.finish_reason == "length":
            if len(self._said.ids) >= self.limits.max_tokens - MIN_ANSWER:
                self._tell(call, "")
                self.ending = "tokens"
                return
            text = f"The answer was cut at {self.limits.max_turn_tokens} tokens. Be shorter."
            call = BadCall(problem=text, thought=call.thought)
        if isinstance(call, BadCall):
            self._refuse(call, call.problem)
        elif call.name == "submit" and not call.arguments:
            self._submit(call)
        else:
            self._use_tool(call)

    def _submit(self, call: ToolCall) -> None:
        assert self._session is not None
        answer = self.task.submit(self._session)
        self._num_bad = 0
        self._tell(call, answer or "")
        if answer is None:
            self.ending = "submitted"

    def _use_tool(self, call: ToolCall) -> None:
        assert self._session is not None
        tools = ToolBox(
            session=self._session,
            command_s=self.limits.command_s,
            max_output=self.limits.max_output,
        )
        left = self.limits.wall_s - (time.monotonic() - self._began)
        try:
            observation = tools.perform(call, left)
        except BadArguments as bad:
            self._refuse(call, str(bad))
        else:
            self._num_bad = 0
            self._tell(call, observation)

    def _refuse(self, call: ToolCall | BadCall, problem: str) -> None:
        """Answer a bad call; the last of too many on end is an ending."""
        self._num_bad += 1
        left = self.limits.max_bad_calls - self._num_bad
        self._tell(call, f"{problem}\n[{left} more calls of this kind end the task]")
        if left <= 0:
            self.ending = "bad_calls"

    def _tell(self, call: ToolCall | BadCall, observation: str) -> None:
        tool, arguments = "", {}
        if isinstance(call, ToolCall):
            tool = call.name
            arguments = {str(name): str(value) for name, value in call.arguments.items()}
        record = TurnRecord(
            thought=call.thought, tool=tool, arguments=arguments, observation=observation
        )
        self.turns.append(record)
        if self.on_turn is not None:
            self.on_turn(self.task.name, len(self.turns), record)

    def _extend(self, completion: Completion) -> None:
        """The next prompt. An observation that does not fit is cut; then the tokens are gone."""
        observation = self.turns[-1].observation
        while True:
            text = f"{observation}\n{self._budget(len(observation))}"
            self._prompt = self._grown(completion, text)
            if self.limits.max_tokens - len(self._prompt) >= MIN_ANSWER:
                self._told.append((completion.token_ids, text))
                return
            if len(observation) <= MIN_OBSERVATION:
                break
            half = len(observation) // 4
            observation = f"{observation[:half]}\n[... left out ...]\n{observation[-half:]}"
        self._prompt = self._said.ids
        self.ending = "tokens"

    def _grown(self, completion: Completion, text: str) -> tuple[int, ...]:
        """The prompt with one more observation, held to the invariants of the trajectory."""
        if self.renderer.rewrites:
            turns = [*self._told, (completion.token_ids, text)]
            return self.renderer.rewritten(self.task.system, self.task.user, TOOLS, turns)
        before = self._said.ids[: len(self._said.ids) - len(completion.token_ids)]
        prompt = self.renderer.bridge(before, completion.token_ids, text)
        done, end = len(self._said.ids), self.renderer.end_of_turn_id
        assert prompt[:done] == self._said.ids and len(prompt) > done
        closed = completion.token_ids[-1:] == (end,)
        assert (prompt[done] == end) != closed, "the end of a turn stands exactly once"
        return prompt

    def _budget(self, num_bytes: int) -> str:
        """What is left; tokens are counted before this observation."""
        turns = self.limits.max_turns - len(self.turns)
        tokens = max(0, self.limits.max_tokens - len(self._said.ids) - num_bytes // 4)
        return f"[{turns} turns and about {tokens} tokens left]"

    def _check_room(self) -> None:
        if self.limits.max_tokens - len(self._prompt) < MIN_ANSWER:
            self.ending, self.error = "tokens", "the task does not fit into the token limit"
