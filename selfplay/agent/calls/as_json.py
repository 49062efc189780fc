"""A tool call as JSON: read strictly, for whichever format it stands in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from selfplay.chat import ToolCall

MAX_DEPTH = 50


def read_json(text: str) -> Any:
    """The value of a JSON text that says one thing only. Raises `ValueError`, `RecursionError`."""
    value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # no half characters
    if depth(value) > MAX_DEPTH + 1:
        raise RecursionError
    return value


def call_of(value: Any) -> ToolCall | None:
    """The call that an object with a name and arguments is, and nothing else in it."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if not isinstance(value, dict):
        return None
    value = dict(value)
    if isinstance(value.get("function"), dict):
        value = dict(value["function"])
    for key in ("type", "id", "tool_call_id", "index"):
        value.pop(key, None)
    keys = set(value) - {"name", "tool_name"}
    if len(value) != 2 or len(keys) != 1 or not keys <= {"arguments", "parameters", "args"}:
        return None
    name = value.get("name", value.get("tool_name"))
    arguments = value[keys.pop()]
    if isinstance(arguments, str):  # as OpenAI's API has them
        arguments = quietly(read_json, arguments)
    return make_call(name, arguments)


def make_call(name: Any, arguments: Any) -> ToolCall | None:
    """A call by a plausible name, None for another thing."""
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    name = name.strip().removeprefix("functions.")
    if not re.fullmatch(r"[\w.-]{1,64}", name):
        return None
    return ToolCall(name=name, arguments=arguments)


def quietly(read: Callable[[str], Any], text: str) -> Any:
    """What is read, None where it cannot be."""
    try:
        return read(text)
    except (ValueError, RecursionError, SyntaxError, MemoryError):
        return None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def depth(value: Any) -> int:
    """Levels of nesting; shallow recursion is safe, because the JSON reader went as deep."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0
