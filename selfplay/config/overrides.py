"""The command line's `key=value` words, read as their fields want them.

Hydra's own grammar refuses a path with a bracket, a comma or a letter with an accent, and reads
`1e3` as a number. A field that holds text takes whatever follows `=` as it stands, unless that is
quoted, null or an interpolation; a list takes its items so.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)
_ITEM = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,]*)\s*(?:,|$)""", re.DOTALL)
_FUNCTION = re.compile(r"\s*(\[|\{|(choice|range|interval|glob|sort|shuffle|tag)\()")


def read_override(schema: type[Any], word: str, *, sweep: bool = False) -> str:
    """`word` as Hydra reads it, with text quoted where the field of `schema` holds text.

    In a sweep the commas of a text part the values that are tried.
    """
    match = _OVERRIDE.fullmatch(word)
    kind = _type_of(schema, match["key"].split(".")) if match else None
    if match is None or kind is None:
        return word
    key, value = match["key"], match["value"]
    if value[:1] in ("'", '"') or "${" in value or not value:
        return word
    if sweep and kind is not list and "," in value and not _FUNCTION.match(value):
        return f"{key}={','.join(_items(value))}"
    if sweep and is_sweep(word):
        return word
    if value.startswith("[") and value.endswith("]") and kind is not str:
        return word if _is_readable(word) else f"{key}=[{','.join(_items(value[1:-1]))}]"
    if kind is str or (kind is Any and not _is_readable(word)):
        return word if value == "null" else f"{key}={quoted(value)}"
    return word


def quoted(text: str) -> str:
    """A text in Hydra's quotes: backslashes count before a quote alone."""
    inner = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", text)
    tail = len(inner) - len(inner.rstrip("\\"))
    return f"'{inner}{inner[len(inner) - tail :]}'"


def _items(text: str) -> list[str]:
    """The items of a list, each as one text unless it is quoted."""
    items = [match[1].strip() for match in _ITEM.finditer(text) if match[1].strip()]
    return [item if item[0] in "'\"" else quoted(item) for item in items]


def is_sweep(word: str) -> bool:
    """Whether Hydra reads several values in an override."""
    try:
        return bool(OverridesParser.create().parse_override(word).is_sweep_override())
    except HydraException:
        return False


def _is_readable(word: str) -> bool:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return not override.is_sweep_override()


def _type_of(schema: Any, names: list[str]) -> Any:
    """`str`, `list` or `Any` of a field; None for groups, numbers and what is not there."""
    hints = typing.get_type_hints(schema) if dataclasses.is_dataclass(schema) else {}
    kind = hints.get(names[0])
    if len(names) > 1:
        return _type_of(kind, names[1:])
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kinds = [item for item in typing.get_args(kind) if item is not type(None)]
        kind = kinds[0] if len(kinds) == 1 else None
    if typing.get_origin(kind) is list:
        return list if typing.get_args(kind) == (str,) else None
    return kind if kind in (str, Any) else None
