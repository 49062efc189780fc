"""Functions of a Python source file. Self-contained: discovery passes it into the sandbox too."""

from __future__ import annotations

import ast
import threading
import warnings
from dataclasses import dataclass

PARSING = threading.Lock()
"""Held while a syntax tree is made: in CPython 3.11 two threads that do so at once may meet
"SystemError: AST constructor recursion depth mismatch". Libraries parse without it (pydantic does),
so that the error is met all the same; the source is then parsed again."""
TRIES = 20

BYTE_ORDER_MARK = "\ufeff"
_PLACEHOLDERS = dict.fromkeys(range(0xDC80, 0xDD00), "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionInfo:
    """A top-level function or a method. Lines are 1-based, inclusive, decorators included."""

    path: str
    qualname: str
    start_line: int
    end_line: int


def parse_python(source: str) -> ast.Module:
    """Syntax tree whose columns count the bytes of `source` (UTF-8 with surrogateescape).

    A byte-order mark is passed over; a byte that is not UTF-8 (a file with a coding cookie) stands
    for a letter. Raises `SyntaxError` or `ValueError`.
    """
    text = source.removeprefix(BYTE_ORDER_MARK)
    plain = text if text.isascii() else text.translate(_PLACEHOLDERS)
    with PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for left in reversed(range(TRIES)):
            try:
                tree = ast.parse(plain)
                break
            except SystemError:
                if not left:
                    raise
    if text != source:
        for node in ast.walk(tree):
            for line, column in (("lineno", "col_offset"), ("end_lineno", "end_col_offset")):
                if getattr(node, line, 0) == 1:
                    moved = getattr(node, column) + len(BYTE_ORDER_MARK.encode())
                    setattr(node, column, moved)
    return tree


def list_python_functions(source: str, path: str) -> list[FunctionInfo]:
    """Functions in source order; nested functions belong to the one around them.

    A name that is defined twice (overloads, try/except imports) is listed once, the last
    definition winning, as at run time. [] when the file does not parse.
    """
    try:
        tree = parse_python(source)
    except (SyntaxError, ValueError):
        return []
    found: dict[str, FunctionInfo] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                start = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                name = prefix + child.name
                found.pop(name, None)
                found[name] = FunctionInfo(
                    path=path,
                    qualname=name,
                    start_line=start,
                    end_line=child.end_lineno or child.lineno,
                )
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                visit(child, prefix)

    visit(tree, "")
    return sorted(found.values(), key=lambda f: (f.start_line, f.qualname))
