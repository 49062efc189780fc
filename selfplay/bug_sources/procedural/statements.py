"""Operators on statements: each yields edits of one function, parse-checked by `propose`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import pairwise

from selfplay.bug_sources.procedural.code import Edit, FunctionCode
from selfplay.bug_sources.procedural.expressions import ARITHMETIC

MAX_LINES = 4
"""Longest stretch of lines that an operator removes or rewrites."""

_SIMPLE = (
    ast.Expr | ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Raise | ast.Delete | ast.Assert
)
_EXCEPTIONS = {
    "ValueError": "TypeError",
    "TypeError": "ValueError",
    "KeyError": "IndexError",
    "IndexError": "KeyError",
    "AttributeError": "TypeError",
    "StopIteration": "ValueError",
    "OSError": "ValueError",
}


def swap_augmented(code: FunctionCode) -> Iterator[Edit | None]:
    """`a += b` -> `a -= b`, `a = b`."""
    for node in code.nodes(ast.AugAssign):
        pattern, alternatives = ARITHMETIC.get(type(node.op), ("", ()))
        for new in alternatives:
            yield code.between(node.target, node.value, pattern + "=", new + "=")
        if alternatives:
            yield code.between(node.target, node.value, pattern + "=", "=")


def drop_statement(code: FunctionCode) -> Iterator[Edit | None]:
    """One to three simple statements go (`pass` when nothing else is left)."""
    for owner, block in code.blocks():
        for size in (1, 2, 3):
            for start in range(len(block) - size + 1):
                run = block[start : start + size]
                if all(isinstance(statement, _SIMPLE) for statement in run):
                    yield _remove(code, owner, block, run)


def remove_guard(code: FunctionCode) -> Iterator[Edit | None]:
    """An `if` or `elif` without else goes, with its body."""
    for owner, block in code.blocks():
        for statement in block:
            if isinstance(statement, ast.If) and not statement.orelse:
                yield _remove(code, owner, block, [statement])


def unwrap_block(code: FunctionCode) -> Iterator[Edit | None]:
    """`if c: x` -> `x`: the header goes, the body (at most three lines) always runs."""
    for node in code.nodes(ast.If):
        rows, body = code.rows([node]), code.rows(node.body)
        if node.orelse or rows is None or body is None or body[1] - body[0] >= MAX_LINES:
            continue
        if code.text(node).startswith("elif"):
            continue
        outer, inner = code.indentation(rows[0]), code.indentation(body[0])
        lines = [code.lines[row].decode() for row in range(*body)]
        if all(line.startswith(inner) for line in lines):
            text = "".join(outer + line[len(inner) :] for line in lines)
            yield code.replace_rows(*rows, text)


def gut_block(code: FunctionCode) -> Iterator[Edit | None]:
    """The body of an `if`, loop or handler becomes `pass`."""
    for owner, block in code.blocks():
        rows = code.rows(block) if block else None
        if isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef) or rows is None:
            continue
        yield code.replace_rows(*rows, f"{code.indentation(rows[0])}pass{code.ending(rows[1] - 1)}")


def remove_else(code: FunctionCode) -> Iterator[Edit | None]:
    """An `else` branch goes, with its body."""
    for node in code.nodes(ast.stmt):
        branch: list[ast.stmt] = getattr(node, "orelse", [])
        if not branch or not isinstance(branch[0], ast.stmt):
            continue
        body: list[ast.stmt] = getattr(node, "handlers", []) or getattr(node, "body", [])
        assert body[-1].end_lineno is not None and branch[-1].end_lineno is not None
        first, last = code.row(body[-1].end_lineno) + 1, code.row(branch[-1].end_lineno) + 1
        while first < last and not code.lines[first].lstrip().startswith(b"else"):
            first += 1
        if first < last:
            yield code.replace_rows(first, last)


def remove_handler(code: FunctionCode) -> Iterator[Edit | None]:
    """One of several `except` clauses goes."""
    for node in code.nodes(ast.Try):
        for handler in node.handlers if len(node.handlers) > 1 else []:
            assert handler.end_lineno is not None
            yield code.replace_rows(code.row(handler.lineno), code.row(handler.end_lineno) + 1)


def reraise(code: FunctionCode) -> Iterator[Edit | None]:
    """An `except` clause raises instead of handling."""
    for node in code.nodes(ast.ExceptHandler):
        rows = code.rows(node.body)
        if rows:
            text = f"{code.indentation(rows[0])}raise{code.ending(rows[1] - 1)}"
            yield code.replace_rows(*rows, text)


def wrong_exception(code: FunctionCode) -> Iterator[Edit | None]:
    """`raise ValueError` -> `raise TypeError`; the same in `except`, which may lose one of many."""
    caught = [node.type for node in code.nodes(ast.ExceptHandler) if node.type]
    raised = [node.exc for node in code.nodes(ast.Raise) if node.exc]
    for node in [*caught, *raised]:
        for element in node.elts if isinstance(node, ast.Tuple) else []:
            yield code.replace(node, code.text(element))
        name = node.func if isinstance(node, ast.Call) else node
        if isinstance(name, ast.Name) and name.id in _EXCEPTIONS:
            yield code.replace(name, _EXCEPTIONS[name.id])


def wrong_return(code: FunctionCode) -> Iterator[Edit | None]:
    """`return x` -> `return`, `return not x`; a function that returns its first argument."""
    for node in code.nodes(ast.Return):
        if node.value is None:
            continue
        start = code.span(node)[0]
        if code.text(node.value) != "None":
            yield code.replace(node, "return None")
        if isinstance(node.value, ast.Compare | ast.BoolOp | ast.Call):
            if isinstance(node.value, ast.Call) and node.value.args:
                yield code.replace(node.value, code.text(node.value.args[0]))
            else:
                yield code.gap(start, code.span(node.value)[0], r"return\s*", "return not ")


def early_return(code: FunctionCode) -> Iterator[Edit | None]:
    """`name = value` in the body -> `return value`; what follows never runs."""
    for _, block in code.blocks():
        for statement in block[:-1]:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                start, end = code.span(statement)[0], code.span(statement.value)[0]
                yield code.gap(start, end, r"(?s)^.*=\s*", "return ")


def swap_loop_flow(code: FunctionCode) -> Iterator[Edit | None]:
    """`break` -> `continue`, and back; either -> `return`."""
    for node in code.nodes(ast.stmt):
        if isinstance(node, ast.Break | ast.Continue):
            yield code.replace(node, "continue" if isinstance(node, ast.Break) else "break")
            yield code.replace(node, "return")


def change_loop(code: FunctionCode) -> Iterator[Edit | None]:
    """`range(n)` -> `range(1, n)`, `range(n - 1)`; `enumerate(x)` -> `enumerate(x, 1)`."""
    for node in code.nodes(ast.Call):
        name, arguments = getattr(node.func, "id", ""), node.args
        if name == "range" and arguments:
            limit = arguments[min(1, len(arguments) - 1)]
            yield code.replace(limit, f"{code.text(limit)} - 1")
            if len(arguments) == 1:
                yield code.replace(limit, f"1, {code.text(limit)}")
        elif name == "enumerate" and len(arguments) == 1 and not node.keywords:
            yield code.replace(arguments[0], f"{code.text(arguments[0])}, 1")


def indent_return(code: FunctionCode) -> Iterator[Edit | None]:
    """A `return` after a loop slips into the loop."""
    for _, block in code.blocks():
        for loop, after in pairwise(block):
            rows = code.rows([after])
            if not isinstance(loop, ast.For | ast.While) or loop.orelse or rows is None:
                continue
            inner = code.rows(loop.body)
            if isinstance(after, ast.Return) and inner and rows[1] - rows[0] == 1:
                line = code.lines[rows[0]].decode().lstrip()
                yield code.replace_rows(*rows, code.indentation(inner[0]) + line)


def swap_statements(code: FunctionCode) -> Iterator[Edit | None]:
    """Two simple statements, one line each, change places."""
    for _, block in code.blocks():
        for first, second in pairwise(block):
            if isinstance(first, _SIMPLE) and isinstance(second, _SIMPLE):
                one, two = code.rows([first]), code.rows([second])
                if one and two and one[1] - one[0] == two[1] - two[0] == 1 == two[0] - one[0]:
                    yield code.swap(first, second)


def _remove(
    code: FunctionCode, owner: ast.AST, block: Sequence[ast.stmt], run: Sequence[ast.stmt]
) -> Edit | None:
    """Delete whole statements; `pass` takes their place when the block would be empty."""
    rows = code.rows(run)
    if rows is None:
        return None
    branch = isinstance(owner, ast.If) and code.text(run[0]).startswith("elif")
    if len(run) < len(block) or branch:
        return code.replace_rows(*rows)
    text = f"{code.indentation(rows[0])}pass{code.ending(rows[1] - 1)}"
    return code.replace_rows(*rows, text)
