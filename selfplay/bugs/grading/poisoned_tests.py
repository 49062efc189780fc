"""Poisoned tests: the oracle tests made to fail, to see whether a fix still makes them "pass".

Source code that disarms the test runner, even for chosen tests and from inside a call, makes a
test pass that must fail; so does an answer that is equal to everything (docs/validation.md).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.test_edits.python import (
    Found,
    Function,
    edit_tests,
    indentation,
    line_ending,
    locate,
)
from selfplay.bugs.test_edits.tap import poisonable, tap_file, with_failing_tests
from selfplay.bugs.test_runs.runner import RunsTests, passed_tests
from selfplay.bugs.test_runs.scripts import runner_script, script_runner
from selfplay.types import Layer, SolveTask

MAX_TESTS = 50
_RAISE = 'raise AssertionError("this test was made to fail")'


def poisoned_layer(tree: Path, layer: Layer, test_ids: Iterable[str]) -> Layer:
    """`layer` with each of these tests made to fail (where they are found).

    The code under test is still called, for it may act only then: expectations that are surely
    reached become impossible, or else the test raises at its end. A test that may end early raises
    at its beginning.
    """
    tests = list(test_ids)
    tap = [test for test in tests if tap_file(test) is not None]
    python = [test for test in tests if tap_file(test) is None]
    return with_failing_tests(tree, edit_tests(tree, layer, python, _poison), tap)


def disarmed_tests(task: SolveTask, layer: Layer, runner: RunsTests) -> list[str]:
    """FAIL_TO_PASS tests that pass on `layer` although they were made to fail.

    Tests that cannot be made to fail (they pass poisoned on the original code, too) do not count.
    One run; a second, of the original, only when something is found; none where the state is the
    original itself, of which nothing could count. Raises `SandboxError`.
    """
    if not layer:
        return []
    tree = runner.environment.tree
    tests = [test for test in task.fail_to_pass if _can_fail(tree, test)][:MAX_TESTS]
    if not tests:
        return []
    suspects = _passing(task, poisoned_layer(tree, layer, tests), tests, runner)
    if not suspects:
        return []
    immune = _passing(task, poisoned_layer(tree, {}, tests), tests, runner)
    return [test for test in suspects if test not in immune]


def _can_fail(tree: Path, test: str) -> bool:
    return poisonable(tree, test) if tap_file(test) is not None else locate(tree, test) is not None


def _passing(task: SolveTask, layer: Layer, tests: list[str], runner: RunsTests) -> list[str]:
    script = task.artifact.test_script
    kind = script_runner(script)
    if kind is not None:
        targets = (tap_file(test) if kind == "tap" else test.partition("[")[0] for test in tests)
        script = runner_script(kind, dict.fromkeys(target for target in targets if target))
    run = runner.run(
        script, task.artifact.test_parser, layer, timeout_s=task.limits.script_timeout_s
    )
    passed = set(passed_tests(run.table))
    return [test for test in tests if test in passed]


def _poison(lines: list[str], found: list[Found]) -> None:
    for place in found:
        function = place.function
        if function is None:
            continue
        if _may_end_early(function) or not _begins_a_line(lines, function.body[0]):
            _raise_first(lines, function)
        elif not _expect_the_impossible(lines, function):
            _raise_last(lines, function)


def _may_end_early(function: Function) -> bool:
    return any(isinstance(node, ast.Return | ast.Yield) for node in ast.walk(function))


def _begins_a_line(lines: list[str], statement: ast.stmt) -> bool:
    return len(indentation(lines[statement.lineno - 1])) == statement.col_offset


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
        if not rest.strip() and _begins_a_line(lines, statement) and _is_made_impossible(statement):
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
