"""What a model is asked about calls, in words: what a call gives, for evaluations and lessons."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings

_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
LONG = 6
"""Characters of a value that does not stand in a comment by chance."""
PREDICT = "Say what ?? stands for: one Python literal and nothing else."


def output_question(code: str, function: str, arguments: str) -> str:
    """A function's text and the assertion on a call of it, with its value left out.

    The docstring is left out, too: the examples in it would answer.
    """
    shown = "\n".join(line for _, line in code_lines(code))
    return f"{shown}\n\nassert {function}({arguments}) == ??"


def code_lines(code: str) -> list[tuple[int, str]]:
    """(number from 0, line) of a function's text without its docstring and those of functions in
    it; all of it where that cannot be told."""
    lines = list(enumerate(re.split(r"\r\n|\r|\n", code)))  # as Python counts them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return lines
    head = body[0] if body else None
    if not isinstance(head, _NAMED):
        return lines
    told = {number for node in ast.walk(head) for number in _docstring(node)}
    return [(at, line) for at, line in lines if at + 1 not in told]


def tells_its_value(code: str, function: str, output: str) -> bool:
    """Whether a comment of a function's text has the value of a call in it: an example of a call,
    or a value that is too long to stand there by chance."""
    shown = "\n".join(line for _, line in code_lines(code))
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(shown).readline))
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):  # the last: \r, then no ASCII
        return False
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return any(
        output in comment and (len(output) >= LONG or f"{function}(" in comment)
        for comment in comments
    )


def _docstring(node: ast.AST) -> range:
    """The lines of a docstring, from 1; none where it shares one of them with something else."""
    if not isinstance(node, _NAMED) or len(node.body) < 2:
        return range(0)
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    first, last, after = node.body[0].lineno, node.body[0].end_lineno, node.body[1].lineno
    if last is None or not node.lineno < first <= last < after:
        return range(0)
    return range(first, last + 1)
