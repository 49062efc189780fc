"""A style of tool calls that is learned from what a chat template writes, without knowing a family.

The template is asked to write calls whose name, keys and values are known; what stands between them
is the style, and calls are read by it to the letter:

    <head>bash{"command": "ls"}<tail>                          a name, then its arguments as JSON
    <head>[{"bash": {"command": "ls"}}]<tail>                  a JSON value that holds all
    <head>bash<first>command<is>ls<more>path<is>a.py<last>     values as they are, every line break

A style that does not read back what the template wrote of awkward values is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from selfplay.agent.calls.as_json import call_of, make_call, quietly, read_json
from selfplay.agent.calls.styles import ONLY_ONE
from selfplay.chat import BadCall, ToolCall

NAME, KEYS = "probe_tool", ("one_probe", "two_probe")
Write = Callable[[str, Mapping[str, str]], str]
"""What a template writes of a call (its tool is called `NAME` and takes `KEYS`), up to the end of
the turn. May raise `UserError`."""
_VALUES = ("selfplay first value", "selfplay second value")
_AWKWARD: tuple[dict[str, str], ...] = (
    {KEYS[0]: "a \"b\" 'c' <d>\n\te &amp; {f}\n", KEYS[1]: "\n[1]\\n"},
    {KEYS[0]: "7"},
    {},
)
_WORD = re.compile(r"[\w.-]{1,64}")
_BOUND = re.compile(r"[<\[\n]")
_MIN_HEAD = 3
_KEY = "\0key\0"
"""Stands for a value's key in what closes the value."""

Read = tuple[ToolCall, int]
"""A call, and where its text ends."""


class _Body(Protocol):
    def read(self, text: str, start: int) -> Read | None:
        """The call whose text behind the head begins at `start`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedCalls:
    """How one template writes calls. `head` stands before each, `lead` before the first one."""

    head: str
    lead: str
    body: _Body

    def read(self, said: str) -> ToolCall | BadCall | None:
        """The one call of a message; None where none is written to the letter, or something
        follows it."""
        before, found, _ = said.partition(self.head)
        thought = before.rstrip().removesuffix(self.lead).strip()
        got = self.body.read(said, len(before) + len(found)) if found else None
        if got is None:
            return None
        call, end = got
        if self.head in said[end:]:
            return BadCall(problem=ONLY_ONE, thought=thought)
        if said[end:].strip():
            return None
        return replace(call, thought=thought)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """NAME `before` {JSON} `tail`."""

    before: str
    tail: str

    def read(self, text: str, start: int) -> Read | None:
        name = _WORD.match(text, start)
        if name is None or not text.startswith(self.before, name.end()):
            return None
        value, end = _value(text, name.end() + len(self.before))
        return _closed(make_call(name[0], value), text, end, self.tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """{JSON} `tail`."""

    tail: str

    def read(self, text: str, start: int) -> Read | None:
        value, end = _value(text, start)
        return _closed(_call_in(value), text, end, self.tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verbatim:
    """NAME `first` KEY `is_` VALUE `more` KEY `is_` VALUE `last`, or NAME `none`; a key may stand
    in what closes its value."""

    first: str
    is_: str
    more: str
    last: str
    none: str

    def read(self, text: str, start: int) -> Read | None:
        name = _WORD.match(text, start)
        if name is None:
            return None
        first, position = self.first.replace(NAME, name[0]), name.end()
        arguments: dict[str, str] = {}
        if text.startswith(first, position) and self._key(text, position + len(first)):
            position += len(first)
        else:
            return _closed(make_call(name[0], {}), text, position, self.none.replace(NAME, name[0]))
        while key := self._key(text, position):
            if key in arguments:
                return None
            start = position + len(key) + len(self.is_)
            more = self.more.replace(_KEY, key)
            last = self.last.replace(_KEY, key).replace(NAME, name[0])
            next_, end = self._next(text, start, more), text.find(last, start)
            if next_ >= 0 and (end < 0 or next_ <= end):
                arguments[key], position = _plain(text[start:next_]), next_ + len(more)
            elif end >= 0:
                arguments[key] = _plain(text[start:end])
                return _closed(make_call(name[0], arguments), text, end, last)
            else:
                return None
        return None

    def _key(self, text: str, position: int) -> str:
        """The key that stands there, "" for none."""
        key = _WORD.match(text, position)
        return key[0] if key and text.startswith(self.is_, key.end()) else ""

    def _next(self, text: str, start: int, more: str) -> int:
        """Where a value ends that another one follows, -1 for nowhere."""
        at = text.find(more, start)
        while at >= 0 and not self._key(text, at + len(more)):
            at = text.find(more, at + 1)
        return at


def _plain(value: str) -> str:
    """What XML writes as CDATA, where a value holds marks of its own."""
    if value.startswith("<![CDATA[") and value.endswith("]]>"):
        return value.removeprefix("<![CDATA[").removesuffix("]]>")
    return value


def learn(write: Write) -> LearnedCalls | None:
    """The style of what a template writes; None where it cannot be told. May raise `UserError`."""
    two = dict(zip(KEYS, _VALUES, strict=True))
    text = write(NAME, two)
    for before, body in (*_json_styles(text, two), *_verbatim_styles(text, write(NAME, {}))):
        head = _head(before)
        if len(head.strip()) < _MIN_HEAD:
            continue
        lead = before.removesuffix(head).strip().rpartition("\n")[2]
        found = LearnedCalls(head=head, lead=lead, body=body)
        if all(_same(found.read(write(NAME, given)), given) for given in (two, *_AWKWARD)):
            return found
    return None


def _json_styles(text: str, arguments: Mapping[str, str]) -> Iterator[tuple[str, _Body]]:
    for start in (match.start() for match in re.finditer(r"[{\[]", text)):
        value, end = _value(text, start)
        at = text.rfind(NAME, 0, start)
        if at >= 0 and value == arguments:
            between = text[at + len(NAME) : start]
            yield text[:at], _Named(before=between, tail=text[end:].strip())
        elif _same(_call_in(value), arguments):
            yield text[:start], _Whole(tail=text[end:].strip())


def _verbatim_styles(text: str, without: str) -> Iterator[tuple[str, _Body]]:
    before, _, _ = text.partition(KEYS[0])[0].rpartition(NAME)
    rest = text[len(before) + len(NAME) :]
    parts = []
    for known in (KEYS[0], _VALUES[0], KEYS[1], _VALUES[1]):
        part, found, rest = rest.partition(known)
        if not found:
            return
        parts.append(part)
    first, is_, more, again = parts
    if is_ != again or not more.strip() or not rest.strip() or first.startswith("("):
        return  # another `is_`; no end of a value; Python, whose values are literals
    yield (
        before,
        _Verbatim(
            first=first,
            is_=is_,
            more=more.replace(KEYS[0], _KEY),
            last=rest.rstrip().replace(KEYS[1], _KEY),
            none=without.removeprefix(before + NAME).strip(),
        ),
    )


def _head(before: str) -> str:
    """What stands directly before a call: from its last tag on, or line."""
    starts = [match.start() for match in _BOUND.finditer(before)]
    fitting = (at for at in reversed(starts) if len(before[at:].strip()) >= _MIN_HEAD)
    return before[next(fitting, 0) :]


def _value(text: str, start: int) -> tuple[Any, int]:
    """(JSON value that begins there, where it ends); (None, start) where none does."""
    decoded = quietly(json.JSONDecoder().raw_decode, text[start:])
    if decoded is None:
        return None, start
    end = start + decoded[1]
    return quietly(read_json, text[start:end]), end


def _call_in(value: Any) -> ToolCall | None:
    """`{"name": ..., "arguments": {...}}`, or `{NAME: {...}}`; alone, or in a list."""
    call = call_of(value)
    if call is None and isinstance(value, list) and len(value) == 1:
        (value,) = value
    if call is None and isinstance(value, dict) and len(value) == 1:
        ((name, arguments),) = value.items()
        call = make_call(name, arguments)
    return call


def _closed(call: ToolCall | None, text: str, end: int, tail: str) -> Read | None:
    """The call, if `tail` follows, whatever blanks stand before it."""
    rest, tail = text[end:].lstrip(), tail.strip()
    if call is None or not rest.startswith(tail):
        return None
    return call, len(text) - len(rest) + len(tail)


def _same(call: ToolCall | BadCall | None, arguments: Mapping[str, str]) -> bool:
    return isinstance(call, ToolCall) and (call.name, dict(call.arguments)) == (NAME, arguments)
