"""Tool calls as models write them: Hermes and Qwen tags, Llama JSON, fenced text.

A call is taken only when it is whole and alone: exactly one, well-formed, nothing after it. All
else is a `BadCall` that says what to mend; nothing is guessed or repaired.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from selfplay.chat import BadCall, ToolCall, ToolSpec

_END_OF_THINKING = "</think>"
_MAX_DEPTH = 50


class CallFormat(Protocol):
    """How one family of models writes a call."""

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        """What the system message says of the tools; "" where the chat template does."""
        ...

    def parse(self, text: str) -> ToolCall | BadCall:
        """The call of a message without its end-of-turn token."""
        ...


class TaggedCalls:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, as Hermes and Qwen write it."""

    opening, closing = "<tool_call>", "</tool_call>"
    shape = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'

    def instructions(self, tools: Sequence[ToolSpec]) -> str:
        return ""

    def parse(self, text: str) -> ToolCall | BadCall:
        thinking, spoken = _after_thinking(text)
        before, found, rest = spoken.partition(self.opening)
        thought = (thinking + before).strip()
        if not found:
            return BadCall(problem=f"There is no tool call. Write {self.shape}", thought=text)
        body, closed, after = rest.partition(self.closing)
        if not closed:
            problem = f"The tool call is not closed. End it with {self.closing}"
            return BadCall(problem=problem, thought=thought)
        if self.opening in after:
            return BadCall(
                problem="Only one tool call a turn is taken. Write one.", thought=thought
            )
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

    def parse(self, text: str) -> ToolCall | BadCall:
        before, tagged, body = text.partition(self.tag)
        if not tagged:
            before, body = "", text
        thought = before.strip()
        if self.tag in body:
            return BadCall(
                problem="Only one tool call a turn is taken. Write one.", thought=thought
            )
        if not body.lstrip().startswith("{"):
            problem = f"There is no tool call. The message must be {self.shape} and nothing else."
            return BadCall(problem=problem, thought=text)
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

    def parse(self, text: str) -> ToolCall | BadCall:
        thinking, spoken = _after_thinking(text)
        lines = spoken.splitlines()
        starts = [i for i, line in enumerate(lines) if line.strip() == self.opening]
        if not starts:
            return BadCall(problem=f"There is no tool call. Write\n{self.shape}", thought=text)
        thought = (thinking + "\n".join(lines[: starts[0]])).strip()
        if len(starts) > 1:
            return BadCall(
                problem="Only one tool call a turn is taken. Write one.", thought=thought
            )
        rest = lines[starts[0] + 1 :]
        end = next((i for i, line in enumerate(rest) if line.strip() == self.fence), None)
        if end is None:
            problem = f"The tool call is not closed. End it with a line {self.fence}"
            return BadCall(problem=problem, thought=thought)
        if any(line.strip() for line in rest[end + 1 :]):
            problem = "Nothing may follow the tool call. Write your thoughts before it."
            return BadCall(problem=problem, thought=thought)
        return read_call("\n".join(rest[:end]), self.shape, thought)


def read_call(text: str, shape: str, thought: str) -> ToolCall | BadCall:
    """The call in a JSON object with `name` and `arguments` (or `parameters`), and no other key."""

    def bad(problem: str) -> BadCall:
        return BadCall(problem=f"{problem} Write {shape}", thought=thought)

    try:
        call = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse)
        json.dumps(call, ensure_ascii=False).encode("utf-8")
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
    if _depth(arguments) > _MAX_DEPTH:
        return bad("The tool call is nested too deeply.")
    return ToolCall(name=name, arguments=arguments, thought=thought)


def _after_thinking(text: str) -> tuple[str, str]:
    """Reasoning up to its closing tag, and the message proper; calls in the former do not count."""
    before, closed, after = text.rpartition(_END_OF_THINKING)
    return (before + closed, after)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _depth(value: Any) -> int:
    """Levels of nesting; shallow recursion is safe, because the JSON reader went as deep."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
