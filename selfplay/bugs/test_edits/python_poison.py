"""Python tests made to fail, in a way that still calls the code under test."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.test_edits.python import (
    Found,
    Function,
    begins_a_line,
    edit_tests,
    indentation,
    line_ending,
)
from selfplay.types import Layer

_RAISE = 'raise AssertionError("this test was made to fail")'


def with_failing_tests(tree: Path, layer: Layer, tests: Iterable[str]) -> Layer:
    """`layer` with these tests made to fail.

    Expectations that are surely reached become impossible, or else the test raises at its end. A
    test that may end early raises at its beginning.
    """
    return edit_tests(tree, layer, tests, _poison)


def _poison(lines: list[str], found: list[Found]) -> None:
    for place in found:
        function = place.function
        if function is None:
            continue
        if _may_end_early(function) or not begins_a_line(lines, function.body[0]):
            _raise_first(lines, function)
        elif not _expect_the_impossible(lines, function):
            _raise_last(lines, function)


def _may_end_early(function: Function) -> bool:
    return any(isinstance(node, ast.Return | ast.Yield) for node in ast.walk(function))


def _raise_first(lines: list[str], function: Function) -> None:
    first = function.body[0]
    decorators = getattr(first, "decorator_list", [])
    number = min([first.lineno, *(d.lineno for d in decorators)]) - 1
    raw = lines[number].encode("utf-8", "surrogateescape")
    before = raw[: first.col_offset].decode("utf-8", "surrogateescape")
    if decorators or not before.strip():
        lines[number] = f"{indentation(lines[number])}{_RAISE}{line_ending(lines)}{lines[number]}"
    else:
        rest = raw[first.col_offset :].decode("utf-8", "surrogateescape")
        lines[number] = f"{before}{_RAISE}; {rest}"


def _raise_last(lines: list[str], function: Function) -> None:
    assert function.end_lineno is not None
    last, ending = function.end_lineno - 1, line_ending(lines)
    head = indentation(lines[function.body[0].lineno - 1])
    lines[last] = f"{lines[last].rstrip(chr(13) + chr(10))}{ending}{head}{_RAISE}{ending}"


def _expect_the_impossible(lines: list[str], function: Function) -> bool:
    """Make each equality that the test asserts on its way one that no honest answer meets."""
    changed = False
    for statement in function.body:
        assert statement.end_lineno is not None and statement.end_col_offset is not None
        first, last = statement.lineno - 1, statement.end_lineno
        rest = lines[last - 1].encode("utf-8", "surrogateescape")[statement.end_col_offset :]
        if not rest.strip() and begins_a_line(lines, statement) and _is_made_impossible(statement):
            text = f"{indentation(lines[first])}{ast.unparse(statement)}{line_ending(lines)}"
            lines[first:last] = [text, *[""] * (last - first - 1)]
            changed = True
    return changed


def _is_made_impossible(statement: ast.stmt) -> bool:
    """Whether a statement asserts an equality; its expectation is replaced in the tree."""
    match statement:
        case ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]) as test):
            test.left, test.comparators[0] = _unequal(left, right)
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(attr="assertEqual"), args=[left, right, *_]) as call
        ):
            call.args[:2] = _unequal(left, right)
        case _:
            return False
    return True


def _unequal(left: ast.expr, right: ast.expr) -> tuple[ast.expr, ast.expr]:
    """Both sides with the expected one replaced: the constant one, else the right one."""
    if isinstance(left, ast.Constant) and not isinstance(right, ast.Constant):
        return _impossible(left), right
    return left, _impossible(right)


def _impossible(expected: ast.expr) -> ast.expr:
    """An object that equals itself alone; in a list or tuple, one for each element."""
    if isinstance(expected, ast.List | ast.Tuple) and expected.elts:
        elements = [_impossible(element) for element in expected.elts]
        return type(expected)(elts=elements, ctx=ast.Load())
    return ast.Call(func=ast.Name("object", ctx=ast.Load()), args=[], keywords=[])
