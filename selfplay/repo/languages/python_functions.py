"""Functions of a Python source file. Self-contained: discovery passes it into the sandbox too."""

from __future__ import annotations

import ast
import threading
from dataclasses import dataclass

PARSING = threading.Lock()
"""Held while a syntax tree is made: in CPython 3.11 two threads that do so at once may meet
"SystemError: AST constructor recursion depth mismatch"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionInfo:
    """A top-level function or a method. Lines are 1-based, inclusive, decorators included."""

    path: str
    qualname: str
    start_line: int
    end_line: int


def list_python_functions(source: str, path: str) -> list[FunctionInfo]:
    """Functions in source order; nested functions belong to the one around them.

    A name that is defined twice (overloads, try/except imports) is listed once, the last
    definition winning, as at run time. [] when the file does not parse.
    """
    try:
        with PARSING:
            tree = ast.parse(source)
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
