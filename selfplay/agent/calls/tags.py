"""Tool calls between tags, and what stands in them: JSON, parameters, Python."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator

from selfplay.agent.calls.as_json import call_of, make_call, quietly, read_json
from selfplay.chat import ToolCall

Found = tuple[int, ToolCall]
"""Where a call begins, and the call."""

_TAGGED = re.compile(
    r"<tool_call>(.*?)(?:</tool_call>|\Z)"
    r"|<\|tool_call\|>(.*?)(?:<\|/tool_call\|>|\Z)"
    r"|<\|tool_call>(.*?)(?:<tool_call\|>|\Z)"
    r"|<\|START_ACTION\|>(.*?)(?:<\|END_ACTION\|>|\Z)"
    r"|<\|tool_call_start\|>(.*?)(?:<\|tool_call_end\|>|\Z)"
    r"|<function_calls>(.*?)(?:</function_calls>|\Z)"
    r"|<TOOLCALL>(.*?)(?:</TOOLCALL>|\Z)"
    r"|<tools>(.*?)</tools>",
    re.DOTALL,
)
_FUNCTION = re.compile(
    r"<function=([^>\s]+)\s*>(.*?)(?:</function>|\Z)"
    r'|<(?:\w+:)?invoke name="([^"]+)"\s*>(.*?)(?:</(?:\w+:)?invoke>|\Z)',
    re.DOTALL,
)
_PARAMETER = re.compile(
    r"<parameter=([^>]+)>(.*?)</parameter>"
    r'|<(?:\w+:)?parameter name="([^"]+)"[^>]*>(.*?)</(?:\w+:)?parameter>',
    re.DOTALL,
)
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def tagged(said: str) -> Iterator[Found]:
    """Calls between the tags of any family."""
    for match in _TAGGED.finditer(said):
        body = next(group for group in match.groups() if group is not None)
        inner = [call for _, call in functions(body)] or bodies(body)
        if not match.group().endswith(">") and quietly(read_json, body) is None:
            continue  # cut before its end
        yield from ((match.start(), call) for call in inner)


def bodies(body: str) -> list[ToolCall]:
    """The calls that a text without tags holds."""
    text = body.strip()
    value = quietly(read_json, text)
    if isinstance(value, list) and len(value) > 1:
        calls = [call_of(one) for one in value]
        return [call for call in calls if call is not None]
    call = call_of(value) or _glm(text) or _gemma(text)
    return [call] if call is not None else _pythonic(text)


def functions(said: str) -> Iterator[Found]:
    """`<function=...>` and `<invoke name=...>`."""

    def read(match: re.Match[str]) -> ToolCall | None:
        name, body = match[1] or match[3], match[2] if match[1] else match[4]
        rest = _PARAMETER.sub("", body).strip()
        arguments = {
            (p[1] or p[3]).strip(): _line_breaks(p[2] if p[1] else p[4])
            for p in _PARAMETER.finditer(body)
        }
        return None if rest else make_call(name, arguments)

    return calls_at(said, _FUNCTION, read)


def _glm(body: str) -> ToolCall | None:
    name = body.partition("<arg_key>")[0].strip()
    if "<arg_key>" not in body and not re.fullmatch(r"\w+", body):
        return None
    return make_call(name, {p[1].strip(): _line_breaks(p[2]) for p in _PAIR.finditer(body)})


_GEMMA = re.compile(r"call:(\w+)\{(.*)\}", re.DOTALL)
_GEMMA_PAIR = re.compile(
    r'(\w+):(?:<\|"\|>(.*?)<\|"\|>|(-?[\d.]+|true|false|null))(?:,|\Z)', re.DOTALL
)


def _gemma(body: str) -> ToolCall | None:
    match = _GEMMA.fullmatch(body)
    if match is None or _GEMMA_PAIR.sub("", match[2]).strip():
        return None
    pairs = _GEMMA_PAIR.finditer(match[2])
    return make_call(
        match[1], {p[1]: p[2] if p[2] is not None else json.loads(p[3]) for p in pairs}
    )


def _pythonic(body: str) -> list[ToolCall]:
    """`bash(command="ls")`, alone, in a list, or one a line; nothing of it is run."""
    tree = quietly(ast.parse, body)
    if tree is None:
        return _unescaped(body)
    if not all(isinstance(node, ast.Expr) for node in tree.body):
        return []
    nodes = [node.value for node in tree.body]
    if len(nodes) == 1 and isinstance(nodes[0], ast.List):
        nodes = nodes[0].elts
    calls = []
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
            return []
        try:
            values = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
        except (ValueError, RecursionError):
            return []
        calls.append(make_call(node.func.id, values))
    return [call for call in calls if call is not None]


_UNESCAPED = re.compile(r"\[?(\w+)\((.*)\)\]?", re.DOTALL)
_TEXT = re.compile(r"""(\w+)=(['"])(.*?)\2(?:, (?=\w+=['"])|\Z)""", re.DOTALL)


def _unescaped(body: str) -> list[ToolCall]:
    """`[bash(command='echo 'a'<line break>ls')]`: as LFM's templates write texts that hold quotes
    and line breaks, which is no Python. A text ends where another follows, or the call ends."""
    match = _UNESCAPED.fullmatch(body.strip())
    texts = list(_TEXT.finditer(match[2])) if match else []
    if match is None or "".join(text.group() for text in texts) != match[2]:
        return []
    call = make_call(match[1], {text[1]: text[3] for text in texts})
    return [] if call is None or len(call.arguments) < len(texts) else [call]


def _line_breaks(value: str) -> str:
    """A value of a tag: one line break at either end belongs to the layout."""
    return value.removeprefix("\n").removesuffix("\n")


def calls_at(
    text: str, pattern: re.Pattern[str], read: Callable[[re.Match[str]], ToolCall | None]
) -> Iterator[Found]:
    """The calls that `read` makes of what a pattern matches."""
    for match in pattern.finditer(text):
        call = read(match)
        if call is not None:
            yield match.start(), call
