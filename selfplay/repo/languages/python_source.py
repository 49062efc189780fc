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
