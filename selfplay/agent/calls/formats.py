"""Tool calls as models write them: Hermes and Qwen tags, Llama JSON, fenced text.

A call in the model's own format is taken only when it is whole and alone: exactly one, well-formed,
nothing after it. Where there is none, one call in any other style is taken (`styles.py`). All
else is a `BadCall` that says what to mend; nothing is guessed or repaired. Nothing counts that was
only thought; `opened`: the prompt has begun the thinking.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from selfplay import thinking
from selfplay.agent.calls.as_json import MAX_DEPTH, depth, read_json
from selfplay.agent.calls.learned import LearnedCalls
from selfplay.agent.calls.styles import ONLY_ONE, only_call
from selfplay.chat import BadCall, ToolCall, ToolSpec


class CallFormat(Protocol):
    """How one family of models writes a call."""

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What the system message says of the tools; "" where the chat template does."""
        ...

    def parse(self, text: str, *, opened: bool = False) -> ToolCall | BadCall:
        """The call of a message without its end-of-turn token."""
        ...


class TaggedCalls:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, as Hermes and Qwen write it."""

    opening, closing = "<tool_call>", "</tool_call>"
    shape = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        return ""

    def parse(self, text: str, *, opened: bool = False) -> ToolCall | BadCall:
        thought_of, spoken = thinking.split(text, opened=opened)
        before, found, rest = spoken.partition(self.opening)
        thought = (thought_of + before).strip()
        if not found:
            return other_style(thought_of, spoken, f"Write {self.shape}")
        body, closed, after = rest.partition(self.closing)
        if not closed:
            problem = f"The tool call is not closed. End it with {self.closing}"
            return BadCall(problem=problem, thought=thought)
        if self.opening in after:
            return BadCall(problem=ONLY_ONE, thought=thought)
        if after.strip():
            problem = f"Nothing may follow {self.closing}. Write your thoughts before the call."
            return BadCall(problem=problem, thought=thought)
        return read_call(body, self.shape, thought)


class LlamaCalls:
    """`{"name": ..., "parameters": {...}}` as the whole message, or after `<|python_tag|>`."""

    tag = "<|python_tag|>"
    shape = '{"name": ..., "parameters": {...}}'

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        return ""

    def parse(self, text: str, *, opened: bool = False) -> ToolCall | BadCall:
        thought_of, spoken = thinking.split(text, opened=opened)
        before, tagged, body = spoken.partition(self.tag)
        if not tagged:
            before, body = "", spoken
        thought = (thought_of + before).strip()
        if self.tag in body:
            return BadCall(problem=ONLY_ONE, thought=thought)
        if not body.lstrip().startswith("{"):
            problem = f"The message must be {self.shape} and nothing else."
            return other_style(thought_of, spoken, problem)
        return read_call(body, self.shape, thought)


class FencedCalls:
    """A fenced block with a JSON object, for chat templates that know no tools."""

    fence = "```"
    opening = "```tool_call"
    shape = '```tool_call\n{"name": ..., "arguments": {...}}\n```'

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """The tools as JSON, one a line, and how to call one."""
        lines = [
            json.dumps(
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                }
            )
            for tool in tools
        ]
        return (
            "You can call these tools, one in each message:\n"
            + "\n".join(lines)
            + f"\nEnd each message with one call, written like this:\n{self.shape}"
        )

    def parse(self, text: str, *, opened: bool = False) -> ToolCall | BadCall:
        thought_of, spoken = thinking.split(text, opened=opened)
        lines = spoken.splitlines()
        starts = [i for i, line in enumerate(lines) if line.strip() == self.opening]
        if not starts:
            return other_style(thought_of, spoken, f"Write\n{self.shape}")
        thought = (thought_of + "\n".join(lines[: starts[0]])).strip()
        if len(starts) > 1:
            return BadCall(problem=ONLY_ONE, thought=thought)
        rest = lines[starts[0] + 1 :]
        end = next((i for i, line in enumerate(rest) if line.strip() == self.fence), None)
        if end is None:
            problem = f"The tool call is not closed. End it with a line {self.fence}"
            return BadCall(problem=problem, thought=thought)
        if any(line.strip() for line in rest[end + 1 :]):
            problem = "Nothing may follow the tool call. Write your thoughts before it."
            return BadCall(problem=problem, thought=thought)
        return read_call("\n".join(rest[:end]), self.shape, thought)


@dataclass(frozen=True, slots=True)
class OwnCalls:
    """The style in which a chat template writes calls; `shape`: one that it has written; `learned`:
    how it is read to the letter."""

    shape: str
    learned: LearnedCalls | None = None

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        return ""

    def parse(self, text: str, *, opened: bool = False) -> ToolCall | BadCall:
        thought_of, spoken = thinking.split(text, opened=opened)
        got = self.learned.read(spoken) if self.learned else None
        if got is not None:
            return replace(got, thought=(thought_of + got.thought).strip())
        return other_style(thought_of, spoken, f"Write\n{self.shape}")


def other_style(thought_of: str, spoken: str, hint: str) -> ToolCall | BadCall:
    """The one call of a message that has none in the format that was asked for."""
    call = only_call(spoken)
    if isinstance(call, ToolCall):
        thought = (thought_of + call.thought).strip()
        return ToolCall(name=call.name, arguments=call.arguments, thought=thought)
    problem = call.problem if call else f"There is no tool call. {hint}"
    return BadCall(problem=problem, thought=(thought_of + spoken).strip())


def read_call(text: str, shape: str, thought: str) -> ToolCall | BadCall:
    """The call in a JSON object with `name` and `arguments` (or `parameters`), and no other key."""

    def bad(problem: str) -> BadCall:
        return BadCall(problem=f"{problem} Write {shape}", thought=thought)

    try:
        call = read_json(text)
    except UnicodeEncodeError:
        return bad("The tool call holds half a character (a lone surrogate).")
    except RecursionError:
        return bad("The tool call is nested too deeply.")
    except ValueError as error:
        return bad(f"The tool call is not valid JSON ({error}).")
    if not isinstance(call, dict):
        return bad("The tool call must be a JSON object.")
    if call.get("type") == "function":
        del call["type"]
    keys = set(call) - {"name"}
    if "name" not in call or len(keys) != 1 or not keys <= {"arguments", "parameters"}:
        return bad("The tool call must have the keys name and arguments, and no other.")
    name, arguments = call["name"], call[keys.pop()]
    if not isinstance(name, str) or not name:
        return bad("The name of the tool must be a text.")
    if not isinstance(arguments, dict):
        return bad("The arguments must be a JSON object.")
    if depth(arguments) > MAX_DEPTH:
        return bad("The tool call is nested too deeply.")
    return ToolCall(name=name, arguments=arguments, thought=thought)
