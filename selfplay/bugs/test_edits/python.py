"""Finds the functions behind Python test ids, and edits test files at their spans.

Ids are pytest node ids (`tests/test_a.py::TestB::test_c[x]`) or unittest's dotted names
(`tests.test_a.TestB.test_c`). Edits keep every other byte of the file.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs.patches.layers import normal_layer, read_file
from selfplay.repo.languages.python_source import parse, split_lines
from selfplay.types import FileChange, Layer

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A test function in its file; `function` is None when class `owner` inherits it.

    `block` is the list of statements that the function stands in.
    """

    name: str
    owner: ast.ClassDef | None
    function: Function | None
    block: list[ast.stmt]


def locate(tree: Path, test: str) -> tuple[str, tuple[str, ...]] | None:
    """(path, qualified name) of a test id, None when no file of the tree fits."""
    if "::" in test:
        address = test.partition("[")[0]
        path, *names = address.split("::")
        return (path, tuple(names)) if names and (tree / path).is_file() else None
    parts = test.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        path = "/".join(parts[:cut]) + ".py"
        if (tree / path).is_file():
            return path, tuple(parts[cut:])
    return None


def by_file(tree: Path, tests: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    """{path: qualified names} of the test ids that can be located, parameters folded."""
    files: dict[str, dict[tuple[str, ...], None]] = {}
    for test in tests:
        place = locate(tree, test)
        if place is not None and place[0].endswith(".py"):
            files.setdefault(place[0], {})[place[1]] = None
    return {path: list(names) for path, names in files.items()}


def find(module: ast.Module, names: tuple[str, ...]) -> Found | None:
    """The last definition of `Class.Class.test` (or a plain function) in a module."""
    body: list[ast.stmt] = module.body
    owner: ast.ClassDef | None = None
    for name in names[:-1]:
        classes = [
            n for n, _ in _statements(body) if isinstance(n, ast.ClassDef) and n.name == name
        ]
        if not classes:
            return None
        owner = classes[-1]
        body = owner.body
    functions = [
        (node, block)
        for node, block in _statements(body)
        if isinstance(node, Function) and node.name == names[-1]
    ]
    if functions:
        function, block = functions[-1]
        assert isinstance(function, Function)
        return Found(name=names[-1], owner=owner, function=function, block=block)
    if owner is None or not owner.bases:
        return None
    return Found(name=names[-1], owner=owner, function=None, block=owner.body)


def edit_tests(
    tree: Path,
    layer: Layer,
    tests: Iterable[str],
    edit: Callable[[list[str], list[Found]], None],
) -> Layer:
    """`layer` with `edit(lines, found)` done on each test file; ids not found are left alone.

    `lines` is the file as the compiler counts lines; entries are replaced, never moved. The
    result must still be valid Python, else the file is left as it was.
    """
    changes: dict[str, FileChange] = {}
    for path, names in by_file(tree, tests).items():
        raw = read_file(tree, layer, path)
        if raw is None:
            continue
        encoding = _encoding(raw)
        source = raw.decode(encoding)
        module = parse(source)
        if module is None:
            continue
        found = [place for name in names if (place := find(module, name)) is not None]
        lines = split_lines(source)
        edit(lines, found)
        text = "".join(lines)
        if text != source and parse(text) is not None:
            changes[path] = FileChange(content=text.encode(encoding))
    return normal_layer(tree, {**layer, **changes})


def _encoding(raw: bytes) -> str:
    """UTF-8, else Latin-1: any bytes survive it, and Python's syntax is ASCII."""
    if raw.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def span(function: Function) -> tuple[int, int]:
    """First line (decorators included) and last line, 0-based, end exclusive."""
    first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    assert function.end_lineno is not None
    return first - 1, function.end_lineno


def indentation(line: str) -> str:
    """Leading blanks of a line."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def begins_a_line(lines: Sequence[str], statement: ast.stmt) -> bool:
    """Whether nothing but blanks stands before a statement."""
    return len(indentation(lines[statement.lineno - 1])) == statement.col_offset


def line_ending(lines: list[str]) -> str:
    """The file's line ending, by its first line."""
    return "\r\n" if lines and lines[0].endswith("\r\n") else "\n"


def _statements(body: list[ast.stmt]) -> list[tuple[ast.stmt, list[ast.stmt]]]:
    """Statements of a block with their block, those under `if`, `try`, `with` too."""
    out: list[tuple[ast.stmt, list[ast.stmt]]] = []
    for node in body:
        out.append((node, body))
        if isinstance(node, ast.If | ast.Try | ast.With):
            for block in _blocks(node):
                out += _statements(block)
    return out


def _blocks(node: ast.AST) -> Iterable[list[ast.stmt]]:
    for name in _BLOCKS:
        block = getattr(node, name, None)
        if not block:
            continue
        if isinstance(block[0], ast.stmt):
            yield block
        else:
            for part in block:
                yield part.body
