"""Fenced blocks of a text: runs of three or more backticks on lines of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_OPENING = re.compile(r"([ \t]*)(`{3,})[ \t]*([^`\s]*)[ \t]*([^`]*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block, without the indentation of its fence.

    word, rest       what follows the opening fence on its line
    before, after    the text above and below it
    closed           whether its fence ends
    """

    word: str
    rest: str
    lines: tuple[str, ...]
    before: str
    after: str
    closed: bool


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a text, in order; a longer fence may hold shorter ones.

    Lines end with a line feed, or all of them as on Windows.
    """
    if text.count("\n") == text.count("\r\n"):
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    position = 0
    while position < len(lines):
        match = _OPENING.match(lines[position].rstrip("\r"))
        position += 1
        if match is None:
            continue
        indent, fence, start = match[1], match[2], position
        while position < len(lines) and not _closes(lines[position], indent, fence):
            position += 1
        yield Block(
            word=match[3],
            rest=match[4].strip(),
            lines=tuple(line.removeprefix(indent) for line in lines[start:position]),
            before="\n".join(lines[: start - 1]).strip(),
            after="\n".join(lines[position + 1 :]).strip(),
            closed=position < len(lines),
        )
        position += 1


def _closes(line: str, indent: str, fence: str) -> bool:
    """No deeper than it was opened: lines of the block may hold fences of their own."""
    shown = line.rstrip()
    return shown.lstrip() == fence and len(shown) <= len(indent) + len(fence)
