"""Records as plain JSON types and back; the types of their fields say what fits (msgspec).

Text stays text, whatever bytes it stands for: nothing here encodes it (`files.py` does).
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from selfplay.errors import UserError

T = TypeVar("T")
_MESSAGE = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")


def to_plain(record: object) -> Any:
    """Dicts, lists and scalars, in the order of the fields. Tuples may stay tuples."""
    return msgspec.to_builtins(record)


def from_plain(kind: type[T], document: Any, *, numbers_as_text: bool = False) -> T:
    """Inverse of `to_plain`; keys that are not known are left alone.

    Raises `UserError` that begins with the field, as in `artifact.test_files[0]: expected str, got
    int`. With `numbers_as_text`, "-inf" is a number, too.
    """
    try:
        return msgspec.convert(document, kind, strict=not numbers_as_text)
    except msgspec.ValidationError as error:
        raise UserError(_told(str(error))) from None


def _told(message: str) -> str:
    found = _MESSAGE.fullmatch(message)
    assert found is not None
    place, problem = (found["place"] or "").removeprefix("."), found["problem"]
    missing = _MISSING.fullmatch(problem)
    if missing:
        return f"{place}.{missing[1]}: is missing".removeprefix(".")
    text = problem[:1].lower() + problem[1:].replace("`", "")
    return f"{place}: {text}" if place else text
