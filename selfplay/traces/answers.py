"""What a model says that a call gives, read and compared with what it gave.

An answer is text from outside: it is parsed and never run. `x or True`, an object with an `__eq__`
of its own or the call itself are no values here, whatever they would compare equal to.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import Any

from selfplay.thinking import split

MAX_TEXT = 20_000
"""Characters of an answer that is parsed; a longer one is compared as text."""
MAX_DEPTH = 60
"""Containers in containers that are compared as values."""
_FENCE = re.compile(r"```[^\n`]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_TAGGED = re.compile(
    r"(?:\[ANSWER\]|<answer>)(.*?)(?:\[/ANSWER\]|</answer>|\Z)", re.DOTALL | re.IGNORECASE
)
_LABEL = re.compile(
    r"\**(?:the )?(?:final )?(?:(?:answer|output|result|value)\**\s*:|\?\?\**\s*[:=])\**\s*",
    re.IGNORECASE,
)
_MARKS = re.compile(r"(\*\*|`|\*\*`)([^`\n]+)(?:\*\*|`|`\*\*)")
_TOO_ODD = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def same_value(said: str, true: str) -> bool:
    """Whether two texts are the same Python literal, of the same types all through; where one of
    them is none (`nan`, an object's `repr`), whether they are the same text.

    The order of sets and of dicts, quotes and layout make no difference. `1`, `1.0` and `True`
    are three values.
    """
    one, two = _value(said), _value(true)
    if one is None or two is None:
        return said.strip() == true.strip()
    return bool(one == two)


def is_literal(text: str) -> bool:
    """Whether a text is a literal that `same_value` compares by value."""
    return _value(text) is not None


def answer_in(text: str, function: str, is_whole: bool = True) -> str:
    """The value that an answer to `assert FUNCTION(...) == ??` tells; which one it is never depends
    on what is true.

    That is all that was said, where it is a literal or such an assertion; else what stands in the
    last [ANSWER] tags, in the last code fence, in the last line that is such an assertion, in the
    first line, in the last line (where `is_whole`: it was not cut off), whichever of them is a
    literal first, without the marks that chats put around it; else all that was said, as it stands.
    """
    _, said = split(text)
    for part in _places(said.strip(), function, is_whole):
        bare = _bare(part)
        found = _asserted(bare, function) or bare
        if is_literal(found):
            return found.strip()
    return said.strip()


def _places(said: str, function: str, is_whole: bool) -> Iterator[str]:
    """Where an answer may stand, the surest place first."""
    yield said
    for mark in (_TAGGED, _FENCE):
        yield from [match[1].strip() for match in mark.finditer(said)][-1:]
    lines = [line.strip() for line in said.split("\n") if line.strip()]
    yield from [line for line in lines if _asserted(_bare(line), function)][-1:]
    yield from lines[:1]
    yield from lines[-1:] if is_whole else []


def _bare(text: str) -> str:
    """A text without `Answer:` or `?? =` before it, and without backticks or stars around it."""
    label = _LABEL.match(text)
    bare = text[label.end() :] if label else text
    marked = _MARKS.fullmatch(bare)
    return marked[2] if marked else bare


def _asserted(text: str, function: str) -> str | None:
    """What a single `assert FUNCTION(...) == VALUE`, or the comparison alone, has on its right; or
    on its left, where it is the other way round."""
    tree = _parsed(text)
    if tree is None or len(tree.body) != 1:
        return None
    statement = tree.body[0]
    if isinstance(statement, ast.Assert):
        test: ast.expr = statement.test
    elif isinstance(statement, ast.Expr):
        test = statement.value
    else:
        return None
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None
    sides = (test.left, test.comparators[0])
    calls = [_calls(side, function.rpartition(".")[2]) for side in sides]
    if not isinstance(test.ops[0], ast.Eq) or calls.count(True) != 1:
        return None
    return ast.get_source_segment(text, sides[calls[0]])


def _calls(side: ast.expr, name: str) -> bool:
    return isinstance(side, ast.Call) and isinstance(side.func, ast.Name) and side.func.id == name


def _parsed(text: str) -> ast.Module | None:
    if len(text) > MAX_TEXT:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in an answer is its own affair
            return ast.parse(text)
    except _TOO_ODD:
        return None


def _value(text: str) -> Any:
    """A literal in a form that is equal for equal values of the same types, None for any other
    text."""
    if len(text) > MAX_TEXT:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _typed(ast.literal_eval(text.strip()), 0)
    except _TOO_ODD:
        return None


def _typed(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(_typed(item, depth + 1) for item in value)
    if isinstance(value, set):
        return "set", frozenset(_typed(item, depth + 1) for item in value)
    if isinstance(value, dict):
        pairs = ((_typed(k, depth + 1), _typed(v, depth + 1)) for k, v in value.items())
        return "dict", frozenset(pairs)
    if isinstance(value, float | complex):
        return type(value).__name__, repr(value)  # -0.0 is not 0.0, and nan is nan
    return type(value).__name__, value
