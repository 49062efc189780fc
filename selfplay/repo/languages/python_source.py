"""Reading Python source safely: line splitting as the compiler does it, and comparing code.

Everything here takes text that a model may have written, so nothing raises on odd input.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache

from selfplay.repo.languages.python_functions import parse_python

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_ODD_BYTE = re.compile("[\\udc80-\\udcff]")
KEPT = 256
"""Texts of which a reader of code keeps what it found: a validation asks of the same few files many
times, and every bug of a repository asks of the same original."""
STUB = "raise NotImplementedError"
"""What is left of a body that was taken."""
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def split_lines(text: str) -> list[str]:
    """Lines with their endings, numbered as the `ast` module numbers them.

    `str.splitlines` also breaks at form feeds and Unicode separators; the compiler does not.
    `"".join(split_lines(text)) == text`.
    """
    return _LINE.findall(text)


def parse(source: str) -> ast.Module | None:
    """Syntax tree of `source`, or None when it is not valid Python."""
    try:
        return parse_python(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def code_dump(tree: ast.AST) -> str:
    """Canonical text of a tree without positions and docstrings; `tree` is modified."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and is_docstring(node.body[0] if node.body else None):
            node.body[0] = ast.Pass()
    try:
        return ast.dump(tree)
    except RecursionError:
        return ""


def is_docstring(statement: ast.stmt | None) -> bool:
    """Whether a block's first statement is a string on its own."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def same_code(left: str, right: str) -> bool:
    """Whether two sources differ in comments, docstrings and layout at most.

    False when either is not valid Python.
    """
    codes = _code(left), _code(right)
    if None in codes:
        return False
    if _ODD_BYTE.findall(left) != _ODD_BYTE.findall(right):
        return False  # the trees do not tell bytes that are not UTF-8 apart
    return codes[0] == codes[1]


@lru_cache(maxsize=KEPT)
def _code(source: str) -> str | None:
    """What `same_code` compares; None for what is no Python."""
    tree = parse(source)
    return None if tree is None else code_dump(tree)


def without_bodies(source: str) -> str | None:
    """The text whose functions and methods raise instead of what they did; None where nothing is
    left to take, or the text cannot be read for certain.

    A nested function goes with the one around it. Documentation stays, and so does a body that is
    nothing else (`...`, `pass`, the stub itself). Lines outside bodies stay byte for byte.
    Example: 'def f(x):\\n    "Twice."\\n    return 2 * x\\n' keeps its first two lines.
    """
    tree = parse(source)
    if tree is None:
        return None
    lines = split_lines(source)
    for node in reversed(list(_functions(tree))):
        body = node.body[1:] if is_docstring(node.body[0]) else node.body
        if not body or all(map(_does_nothing, body)):
            continue
        first, last = body[0], node.body[-1]
        decorators = getattr(first, "decorator_list", [])
        start = min([first.lineno, *(decorator.lineno for decorator in decorators)])
        previous = node.body[0] if body is not node.body else None
        if start <= (previous.end_lineno or 0 if previous else node.lineno):
            continue  # a body on the line of its heading stays
        margin = lines[start - 1][: len(lines[start - 1]) - len(lines[start - 1].lstrip())]
        end = last.end_lineno or last.lineno
        closing = lines[end - 1][len(lines[end - 1].rstrip("\r\n")) :]
        lines[start - 1 : end] = [f"{margin}{STUB}{closing}"]
    emptied = "".join(lines)
    return emptied if emptied != source and parse(emptied) is not None else None


def _functions(node: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions in the order of their lines, none that is inside another."""
    found: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(child)
        else:
            found += _functions(child)
    return sorted(found, key=lambda function: function.lineno)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Name | ast.Call):
        return "NotImplementedError" in ast.dump(statement.exc)
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant or isinstance(statement, ast.Pass)
