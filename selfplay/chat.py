"""Multi-turn chats as token ids: what an agent loop needs of a model's chat template.

A chat only ever grows: the prompt of turn t+1 is the prompt of turn t, the sampled completion, and
the ids of the observation. Nothing that was sampled is tokenised again (mechanics: token in, token
out). `render` opens a chat, `bridge` extends it, `parse` reads the tool call of a completion.
A `Transcript` keeps what was sampled as the aligned lists of one trajectory. Where a template
rewrites what stands before, `rewritten` gives the next prompt, and the transcript begins a new
piece, which is a sample of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from selfplay.types import Completion, Trajectory, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as a chat template shows it; `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """What a completion asks for. `thought` is the text before the call."""

    name: str
    arguments: Mapping[str, Any]
    thought: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadCall:
    """A completion without exactly one well-formed tool call; `problem` is an answer that helps
    the model to do better."""

    problem: str
    thought: str = ""


class ChatRenderer(Protocol):
    """One model's chat template and tool-call format. Stateless and thread-safe.

    `rewrites`: earlier turns are written in another way when the chat goes on; `bridge` is refused.
    """

    end_of_turn_id: int
    rewrites: bool

    def render(self, system: str, user: str, tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """Ids of the first prompt, up to where the model answers."""
        ...

    def bridge(
        self, prompt_ids: tuple[int, ...], completion_ids: tuple[int, ...], observation: str
    ) -> tuple[int, ...]:
        """The next prompt: begins with `prompt_ids + completion_ids`, closes the turn when the
        completion did not (cut by length), adds the observation as the tool's (or user's) message
        and opens the model's next turn. The end-of-turn token stands exactly once a turn."""
        ...

    def rewritten(
        self,
        system: str,
        user: str,
        tools: Sequence[ToolSpec],
        turns: Sequence[tuple[Sequence[int], str]],
    ) -> tuple[int, ...]:
        """The prompt after some (completion, observation), as the template writes it at once."""
        ...

    def parse(self, completion_ids: Sequence[int]) -> ToolCall | BadCall:
        """The tool call of a completion, in the model's native format."""
        ...


@dataclass(kw_only=True)
class Transcript:
    """The tokens of a chat that grows, as the aligned lists of its trajectory.

    Example: prompt (5, 6) and answer (7,), then the prompt (5, 6, 7, 8, 9) and answer (3, 4) give
    ids (5, 6, 7, 8, 9, 3, 4), mask (0, 0, 1, 0, 0, 1, 1) and the turns 2-3 and 5-7.
    """

    ids: tuple[int, ...] = ()
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    earlier: list[Transcript] = field(default_factory=list)

    def add(
        self, prompt_ids: tuple[int, ...], completion: Completion, *, rewrites: bool = False
    ) -> None:
        """Append an answer and what is new in its prompt, which begins with all that was before.

        With `rewrites`, a prompt that does not begins anew, and what was before is a piece of its
        own.
        """
        assert len(completion.token_ids) == len(completion.logprobs)
        if rewrites and prompt_ids[: len(self.ids)] != self.ids:
            self.earlier.append(
                Transcript(ids=self.ids, mask=self.mask, logprobs=self.logprobs, turns=self.turns)
            )
            self.ids, self.mask, self.logprobs, self.turns = (), [], [], []
        num_new = len(prompt_ids) - len(self.ids)
        assert num_new > 0 and prompt_ids[: len(self.ids)] == self.ids
        start = len(prompt_ids)
        end = start + len(completion.token_ids)
        self.ids = prompt_ids + completion.token_ids
        self.mask += [0] * num_new + [1] * len(completion.token_ids)
        self.logprobs += [0.0] * num_new + list(completion.logprobs)
        self.turns.append(Turn(start=start, end=end, policy_version=completion.policy_version))

    def trajectory(self, temperature: float) -> Trajectory | None:
        """The tokens up to the last sampled one; None when nothing was sampled. `temperature`: of
        the distribution that the log-probabilities belong to."""
        if not self.turns:
            return None
        return Trajectory(
            token_ids=self.ids,
            loss_mask=tuple(self.mask),
            logprobs=tuple(self.logprobs),
            policy_version=min(turn.policy_version for turn in self.turns),
            turns=tuple(self.turns),
            temperature=temperature,
            earlier=tuple(t for piece in self.earlier if (t := piece.trajectory(temperature))),
        )
