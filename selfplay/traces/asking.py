"""What a model is asked about calls, in words: what a call gives, for evaluations and lessons."""

from __future__ import annotations

import ast
import re
import warnings

PREDICT = "Say what ?? stands for: one Python literal and nothing else."


def output_question(code: str, function: str, arguments: str) -> str:
    """A function's text and the assertion on a call of it, with its value left out.

    The docstring is left out, too: the examples in it would answer.
    """
    shown = "\n".join(line for _, line in code_lines(code))
    return f"{shown}\n\nassert {function}({arguments}) == ??"


def code_lines(code: str) -> list[tuple[int, str]]:
    """(number from 0, line) of a function's text without its docstring; all of it where that cannot
    be told."""
    lines = list(enumerate(re.split(r"\r\n|\r|\n", code)))  # as Python counts them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return lines
    head = body[0] if body else None
    if not isinstance(head, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return lines
    inner = head.body
    if len(inner) < 2 or ast.get_docstring(head, clean=False) is None:
        return lines
    first, last, after = inner[0].lineno, inner[0].end_lineno, inner[1].lineno
    if last is None or not head.lineno < first <= last < after:  # it shares a line
        return lines
    return [*lines[: first - 1], *lines[last:]]
