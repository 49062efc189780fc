"""The canary: a test that must fail, run along with every graded run.

It is a copy of a real oracle test with a body that fails: same file, class, decorators, marks and
parameters, a name that begins and ends like the copied one. So it is collected where the project's
own tests are, whatever names or marks the project's configuration and its conftest demand; a plain
`def test_...` of ours was left out there, and every right fix was refused.

Its name depends on the code that is graded, so nobody who writes that code can spell it, and equal
code asks for the same run.
"""

from __future__ import annotations

import ast
import hashlib
import textwrap
from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from selfplay.bugs.patches.layers import read_file
from selfplay.bugs.test_edits.python import (
    Found,
    edit_tests,
    indentation,
    line_ending,
    locate,
)
from selfplay.bugs.test_runs.runner import feed_layer
from selfplay.bugs.test_runs.scripts import script_targets, with_targets
from selfplay.repo.languages.perl_functions import used_modules
from selfplay.sandbox.base import Environment
from selfplay.types import FileChange, Layer, SolveTask, TestTable

MAX_TRIES = 50
"""Oracle tests that are tried as a model of the canary."""
_BARE = """\
def {name}():
    raise AssertionError("this test must fail")
"""
_TAP = """\
use Test::More;
{loaded}fail '{name}';
done_testing;
"""
_FAIL = "raise AssertionError('this test must fail')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The state and the script with the canary in them; `test_id` is its id without parameters."""

    test_id: str
    layer: Layer
    script: str

    def failed(self, table: TestTable) -> bool:
        """Whether the canary ran and failed, with all its parameters."""
        statuses = [
            status
            for test, status in table.items()
            if test == self.test_id or test.startswith(f"{self.test_id}[")
        ]
        return bool(statuses) and set(statuses) == {"failed"}


def make_canary(task: SolveTask, layer: Layer, kind: str, environment: Environment) -> Canary:
    """The canary for a graded state, under the harness's own script of `kind` (pytest, tap).

    Modelled on one of the tests that have to pass; where none of them can be copied it is a plain
    function in a file of its own, and `gold_resolves` of the validation tells whether that is
    collected.
    """
    script = task.artifact.test_script
    digest = hashlib.sha256(f"{environment.digest}\0{script}\0".encode("utf-8", "surrogateescape"))
    feed_layer(digest, layer)
    name = digest.hexdigest()[:10]
    folder = PurePosixPath(task.artifact.test_files[0]).parent
    if kind == "tap":
        return _tap_canary(task, layer, name, environment.tree)
    for test in _models(task):
        found = _copied(environment.tree, layer, test, name)
        if found is not None:
            changed, test_id = found
            covered = _covered(test_id.partition("::")[0], script_targets(script))
            script = script if covered else with_targets(script, [test_id])
            return Canary(test_id=test_id, layer=changed, script=script)
    path = (folder / f"test_{name}.py").as_posix().removeprefix("./")
    text = _BARE.format(name=f"test_{name}")
    return _in_own_file(task, layer, path, text, f"test_{name}")


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
        if not found or not _begins_a_line(lines, found[0].block[0]):
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


def _begins_a_line(lines: Sequence[str], statement: ast.stmt) -> bool:
    return len(indentation(lines[statement.lineno - 1])) == statement.col_offset


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


def _tap_canary(task: SolveTask, layer: Layer, name: str, tree: Path) -> Canary:
    """A test file that loads what the oracle tests load: source that ends the program and prints
    results of its own at that moment does so here, too."""
    folder = PurePosixPath(task.artifact.test_files[0]).parent
    path = (folder / f"{name}.t").as_posix().removeprefix("./")
    loaded = "".join(
        f"use {module} ();\n"
        for file in task.artifact.test_files
        for module in used_modules((read_file(tree, {}, file) or b"").decode("utf-8", "replace"))
    )
    return _in_own_file(task, layer, path, _TAP.format(loaded=loaded, name=name), name)


def _in_own_file(task: SolveTask, layer: Layer, path: str, text: str, name: str) -> Canary:
    return Canary(
        test_id=f"{path}::{name}",
        layer={**layer, path: FileChange(content=text.encode())},
        script=with_targets(task.artifact.test_script, [path]),
    )
