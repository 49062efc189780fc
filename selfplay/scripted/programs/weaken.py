"""Removes tests from test files: `python weaken.py ID...` with ids like path::name.

Python tests go as whole functions; those that a class inherits are set to None in it. In Perl the
statement goes that names the test.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path


def without_python(text: str, ids: set[tuple[str, str]]) -> str:
    """The text without these tests, (class or "", name); an emptied class gets `pass`."""
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.Module, ast.ClassDef)):
            continue
        owner = getattr(node, "name", "")
        names = {name for where, name in ids if where == owner}
        doomed = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name in names]
        for function in doomed:
            first = min([function.lineno, *(d.lineno for d in function.decorator_list)]) - 1
            last = function.end_lineno or first + 1
            lines[first:last] = ["\0"] * (last - first)
            if len(doomed) == len(node.body) and function is doomed[0] and owner:
                lines[first] = " " * function.col_offset + "pass"
        if isinstance(node, ast.ClassDef):
            indent = " " * node.body[0].col_offset
            inherited = sorted(names - {function.name for function in doomed})
            shadows = [f"{indent}{name} = None" for name in inherited]
            last = node.end_lineno or 1
            lines[last - 1] = "\n".join([lines[last - 1], *shadows])
    return "\n".join(line.removeprefix("\0\n") for line in lines if line != "\0")


def without_perl(text: str, ids: set[tuple[str, str]]) -> str:
    """The text without the statements that end with one of these descriptions."""
    statements = re.split(r"(?<=;)(?=\n)", text)
    kept = [s for s in statements if not any(f"'{name}'" in s for _, name in ids)]
    return "".join(kept)


def split_id(test: str) -> tuple[str, str]:
    """path::Class::name[parameters] -> (Class, name)."""
    _, *owners, name = re.sub(r"\[.*", "", test).split("::")
    return (owners[-1] if owners else "", name)


if __name__ == "__main__":
    for file in sorted({test.split("::")[0] for test in sys.argv[1:]}):
        tests = {split_id(test) for test in sys.argv[1:] if test.startswith(f"{file}::")}
        source = Path(file).read_text(encoding="utf-8")
        weaken = without_python if file.endswith(".py") else without_perl
        Path(file).write_text(weaken(source, tests), encoding="utf-8")
