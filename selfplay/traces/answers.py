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
_TAGGED = re.compile(r"\[ANSWER\](.*?)(?:\[/ANSWER\]|\Z)", re.DOTALL)
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


def answer_in(text: str, function: str) -> str:
    """The value that an answer to `assert FUNCTION(...) == ??` tells; which one it is never depends
    on what is true.

    That is all that was said, where it is a literal or such an assertion; else what stands in the
    last [ANSWER] tags, in the last code fence, in the last line that is such an assertion, in the
    first line, whichever of them is a literal first; else all that was said, as it stands.
    """
    _, said = split(text)
    for part in _places(said.strip(), function):
        found = _asserted(part, function) or part
        if is_literal(found):
            return found.strip()
    return said.strip()


def _places(said: str, function: str) -> Iterator[str]:
    """Where an answer may stand, the surest place first."""
    yield said
    for mark in (_TAGGED, _FENCE):
        yield from [match[1].strip() for match in mark.finditer(said)][-1:]
    lines = [line.strip() for line in said.split("\n") if line.strip()]
    yield from [line for line in lines if _asserted(line, function)][-1:]
    yield from lines[:1]


def _asserted(text: str, function: str) -> str | None:
    """What a single `assert FUNCTION(...) == VALUE`, or the comparison alone, has on its right."""
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
    call = test.left
    if not isinstance(test.ops[0], ast.Eq) or not isinstance(call, ast.Call):
        return None
    if not isinstance(call.func, ast.Name) or call.func.id != function.rpartition(".")[2]:
        return None
    return ast.get_source_segment(text, test.comparators[0])


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
