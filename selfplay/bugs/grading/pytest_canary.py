"""The canary under pytest: a copy of a real oracle test with a body that fails.

Same file, class, decorators, marks and parameters, a name that begins and ends like the copied one.
So it is collected where the project's own tests are, whatever names or marks the project's
configuration and its conftest demand; a plain `def test_...` of ours was left out there, and every
right fix was refused.
"""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from collections.abc import Sequence
from copy import copy
from pathlib import Path

from selfplay.bugs.grading.canary import Canary, in_own_file
from selfplay.bugs.test_edits.python import (
    Found,
    begins_a_line,
    edit_tests,
    indentation,
    line_ending,
    locate,
)
from selfplay.bugs.test_runs.scripts import script_targets, with_targets
from selfplay.types import Layer, SolveTask

MAX_TRIES = 50
"""Oracle tests that are tried as a model of the canary."""
_BARE = """\
def {name}():
    raise AssertionError("this test must fail")
"""
_FAIL = "raise AssertionError('this test must fail')"


def pytest_canary(task: SolveTask, layer: Layer, word: str, tree: Path) -> Canary:
    """A copy of one of the tests that have to pass.

    Where none of them can be copied it is a plain function in a file of its own, and
    `gold_resolves` of the validation tells whether that is collected.
    """
    script = task.artifact.test_script
    for test in _models(task):
        found = _copied(tree, layer, test, word)
        if found is not None:
            changed, test_id = found
            covered = _covered(test_id.partition("::")[0], script_targets(script))
            script = script if covered else with_targets(script, [test_id])
            return Canary(test_id=test_id, layer=changed, script=script)
    name = f"test_{word}"
    return in_own_file(task, layer, f"{name}.py", _BARE.format(name=name), name)


def _models(task: SolveTask) -> list[str]:
    """Oracle tests to copy, the best first; the same for all bugs with the same tests, which then
    share the run of their gold patch.

    In the last file before others, few parameters before many, and late names before early: what
    disarms the runner from inside a test has then most likely happened.
    """
    size = Counter(_function(test) for test in (*task.fail_to_pass, *task.pass_to_pass))
    files = {path: number for number, path in enumerate(task.artifact.test_files)}

    def rank(test: str) -> tuple[int, int]:
        return -files.get(test.partition("::")[0], -1), size[test]

    return sorted(sorted(size, reverse=True), key=rank)[:MAX_TRIES]


def _function(test: str) -> str:
    return test.partition("[")[0]


def _copied(tree: Path, layer: Layer, test: str, name: str) -> tuple[Layer, str] | None:
    """(the state with a failing copy of `test`, the copy's id); None when it cannot be copied."""
    place = locate(tree, test)
    if place is None or not place[0].endswith(".py") or "::" not in test:
        return None
    new = f"{place[1][-1]}_{name}_{place[1][-1]}"

    def add(lines: list[str], found: list[Found]) -> None:
        if not found or not begins_a_line(lines, found[0].block[0]):
            return
        end = found[0].block[-1].end_lineno
        assert end is not None
        ending = line_ending(lines)
        text = _source(lines, found[0], new).replace("\n", ending)
        lines[end - 1] = f"{lines[end - 1].rstrip(chr(13) + chr(10))}{ending}{text}"

    changed = edit_tests(tree, layer, [test], add)
    if changed.get(place[0]) == layer.get(place[0]):
        return None
    return changed, f"{test.rpartition('::')[0]}::{new}"


def _source(lines: Sequence[str], place: Found, name: str) -> str:
    """The copy's text, indented like its model; a model that its class inherits has no text."""
    first = place.block[0]
    head = indentation(lines[first.lineno - 1])
    function = place.function
    if function is None:
        return f"{head}def {name}(self):\n{head}    {_FAIL}\n"
    failing = copy(function)
    failing.name, failing.returns, failing.type_comment = name, None, None
    failing.body = [ast.parse(_FAIL).body[0]]
    return textwrap.indent(ast.unparse(failing), head) + "\n"


def _covered(path: str, targets: Sequence[str]) -> bool:
    """Whether a run of these targets collects all of a file."""
    return any(path == t or path.startswith(f"{t.rstrip('/')}/") or t == "." for t in targets)
