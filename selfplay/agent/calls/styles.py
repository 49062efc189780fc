"""Every way in which models write a tool call, read back without knowing the model.

A chat template shows which one is the model's own (`renderer.py`); models are also asked through
servers that hide their templates, and some write another style than they were taught. A call is
taken only where it cannot be meant otherwise: one call in the whole message.

    <tool_call>{"name": "bash", "arguments": {"command": "ls"}}</tool_call>          Hermes, Qwen
    <tool_call><function=bash><parameter=command>ls</parameter></function></tool_call>   Qwen-Coder
    <tool_call>bash<arg_key>command</arg_key><arg_value>ls</arg_value></tool_call>          GLM
    <invoke name="bash"><parameter name="command">ls</parameter></invoke>               MiniMax
    [TOOL_CALLS]bash[ARGS]{"command": "ls"}        [TOOL_CALLS][{"name": ..., ...}]     Mistral
    <|channel|>commentary to=functions.bash <|message|>{"command": "ls"}<|call|>        gpt-oss
    <|tool_call|>[{"name": ..., ...}]        call:bash{command:...}             Phi, Granite, Gemma
    <function_calls>bash(command="ls")</function_calls>                                OLMo, LFM
    a json fence or a bare fence with {"name": ..., "arguments": ...}; a shell fence
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from selfplay.agent.blocks import blocks
from selfplay.agent.calls.as_json import call_of, make_call, quietly, read_json
from selfplay.agent.calls.tags import Found, bodies, calls_at, functions, tagged
from selfplay.chat import BadCall, ToolCall

SHELLS = frozenset(["bash", "sh", "shell", "zsh"])
ONLY_ONE = "Only one tool call a turn is taken. Write one."


def only_call(said: str) -> ToolCall | BadCall | None:
    """The one call of a message in any style; None when there is none, bad when there are two."""
    found: list[Found] = []
    for style in _STYLES:
        found = list(style(said))
        if found:
            break
    if not found:
        return None
    start, call = found[0]
    thought = said[:start].strip()
    if len(found) > 1:
        return BadCall(problem=ONLY_ONE, thought=thought)
    return ToolCall(name=call.name, arguments=call.arguments, thought=thought)


_MISTRAL = re.compile(
    r"\[TOOL_CALLS\]\s*(\w+)(?:\[CALL_ID\]\w+)?\[ARGS\](\{.*?\})(?=\s*(?:\[TOOL_CALLS\]|</s>|\Z))",
    re.DOTALL,
)
_MISTRAL_LIST = re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])(?:</s>)?\s*\Z", re.DOTALL)
_HARMONY = re.compile(
    r"(?:<\|start\|>assistant)?(?:<\|channel\|>\w+)? to=(?:functions\.)?(\w+)(?:<\|channel\|>\w+)?"
    r"[ ]*(?:<\|constrain\|>)?(?:json|code)?[ ]*<\|message\|>(.*?)(?:<\|call\|>|<\|end\|>|\Z)",
    re.DOTALL,
)
_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?(\w+)(?:<｜tool▁sep｜>)?\s*"
    r"(?:```json\n)?(\{.*?\})\s*(?:```)?\s*<｜tool▁call▁end｜>",
    re.DOTALL,
)
_JSON_START = re.compile(r"(?:\A|\n|<\|python_tag\|>)[ \t]*(?=[{\[])")
_KIMI = re.compile(
    r"<\|tool_call_begin\|>\s*(?:functions\.)?(\w+)(?::\d+)?\s*<\|tool_call_argument_begin\|>"
    r"(.*?)<\|tool_call_end\|>",
    re.DOTALL,
)


def _marked(said: str) -> Iterator[Found]:
    def read(match: re.Match[str]) -> ToolCall | None:
        return make_call(match[1], quietly(read_json, match[2]))

    for pattern in (_MISTRAL, _HARMONY, _DEEPSEEK, _KIMI):
        yield from calls_at(said, pattern, read)
    for match in _MISTRAL_LIST.finditer(said):
        yield from ((match.start(), call) for call in bodies(match[1]))


def _json_blocks(said: str) -> Iterator[Found]:
    """Fences of any name that hold one JSON object with a name and arguments."""
    for block in blocks(said):
        call = call_of(quietly(read_json, "\n".join(block.lines)))
        if call is not None and block.closed:
            yield said.find("```", len(block.before)), call


def _whole(said: str) -> Iterator[Found]:
    """JSON at the beginning of lines, the last of it at the end of the message."""
    text = said.rstrip()
    found: list[Found] = []
    end = 0
    for match in _JSON_START.finditer(text):
        if match.end() >= end:
            decoded = quietly(json.JSONDecoder().raw_decode, text[match.end() :])
            size = decoded[1] if decoded else 0
            call = call_of(quietly(read_json, text[match.end() : match.end() + size]))
            if call is not None:
                end = match.end() + size
                found.append((match.end(), call))
    yield from found if end == len(text) else ()


def _shell_blocks(said: str) -> Iterator[Found]:
    for block in blocks(said):
        command = "\n".join(block.lines).strip("\n")
        if block.word in SHELLS and block.closed and command.strip():
            yield (
                said.find("```", len(block.before)),
                ToolCall(name="bash", arguments={"command": command}),
            )


_STYLES: tuple[Callable[[str], Iterator[Found]], ...] = (
    tagged, functions, _marked, _json_blocks, _whole, _shell_blocks,
)  # fmt: skip
