"""Multi-turn chats as token ids: what an agent loop needs of a model's chat template.

A chat only ever grows: the prompt of turn t+1 is the prompt of turn t, the sampled completion, and
the ids of the observation. Nothing that was sampled is tokenised again (mechanics: token in, token
out). `render` opens a chat, `bridge` extends it, `parse` reads the tool call of a completion.
Where a template rewrites what stands before, `rewritten` gives the next prompt, and whoever keeps
the tokens begins a new sample there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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
