"""What an edit of tests does, told by running what it made: on modules of every shape."""

from __future__ import annotations

import ast
import asyncio
import inspect
import unittest
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.bugs.grading.canaries import make_canary
from selfplay.bugs.grading.poisoned_tests import poisoned_layer
from selfplay.bugs.test_edits.editors import EDITORS, by_editor, editor_of
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, Layer, SolveTask

BODIES = (
    "assert 1 + 1 == 2",
    "assert f(1) == 2",
    "assert 2 == f(1)",
    "assert [f(1), f(2)] == [2, 3]",
    '"""Doc."""\nassert f(1) == 2',
    "x = f(1)\nassert x == 2\nassert x == 2  # again",
    "pass",
    "return",
    "if f(1) == 2:\n    return\nassert False",
    "for i in range(3):\n    assert f(i) == i + 1",
    "with open('/dev/null') as file:\n    assert file.read() == ''",
    "try:\n    f(None)\nexcept TypeError:\n    pass",
    "assert (f(1)\n        == 2)",
    "assert f(1) == 2; assert f(2) == 3",
    "def inner():\n    return 1\nassert inner() == 1",
    "@wrapped\ndef inner():\n    return 1\nassert inner() == 1",
    "assert '''\n# no code\n''' != ''",
    "text = 'é'; assert f(1) == 2",
)
HEAD = "def f(x):\n    return x + 1\n\n\ndef wrapped(function):\n    return function\n\n\n"
TEST = st.tuples(
    st.sampled_from(["def", "async def"]),
    st.sampled_from(BODIES),
    st.sampled_from(["", "@wrapped\n", "# about it\n", "@wrapped\n@wrapped\n"]),
    st.booleans(),  # on one line where it can be
    st.booleans(),  # a method
)
SHAPES = st.lists(TEST, min_size=1, max_size=5)


class Module:
    """A generated test module: its text, and the ids of its tests in order."""

    def __init__(self, shapes: list[tuple[str, str, str, bool, bool]], ending: str) -> None:
        self.ids: list[str] = []
        self.texts: dict[str, str] = {}
        parts = [HEAD]
        for number, (word, body, above, short, method) in enumerate(shapes):
            name, margin = f"test_{number}", ""
            if method:
                parts.append(f"class Test{number}:\n")
                margin = "    "
            self.ids.append(f"test_a.py::Test{number}::{name}" if method else f"test_a.py::{name}")
            argument = "self" if method else ""
            if short and "\n" not in body:
                text = f"{above}{word} {name}({argument}): {body}\n"
            else:
                inside = body.replace("\n", "\n    ") if "'''" not in body else body
                text = f"{above}{word} {name}({argument}):\n    {inside}\n"
            whole = "".join(f"{margin}{line}" for line in text.splitlines(keepends=True))
            self.texts[self.ids[-1]] = whole.replace("\n", ending)
            parts += [whole, "\n\n"]
        self.text = "".join(parts).replace("\n", ending)

    def written(self, folder: Path) -> Path:
        (folder / "test_a.py").write_bytes(self.text.encode())
        return folder


def changed(layer: Layer, module: Module) -> str:
    content = layer["test_a.py"].content if "test_a.py" in layer else module.text.encode()
    assert content is not None
    return content.decode()


def cases_of(text: str) -> dict[str, Callable[[], None]]:
    """{id: what runs the test} of a module's text."""
    names: dict[str, object] = {}
    exec(compile(text, "test_a.py", "exec"), names)  # written by this test
    found: dict[str, Callable[[], None]] = {}

    def runs(function: Callable[..., object], *arguments: object) -> Callable[[], None]:
        def run() -> None:
            result = function(*arguments)
            if inspect.iscoroutine(result):
                asyncio.run(result)

        return run

    for name, value in names.items():
        if name.startswith("test_"):
            found[f"test_a.py::{name}"] = runs(value)  # type: ignore[arg-type]
        elif isinstance(value, type):
            for inner, function in vars(value).items():
                if inner.startswith("test_"):
                    found[f"test_a.py::{name}::{inner}"] = runs(function, value())
    return found


@settings(deadline=None)
@given(SHAPES, st.sampled_from(["\n", "\r\n"]), st.data())
def test_a_poisoned_test_fails_and_no_other(
    shapes: list[tuple[str, str, str, bool, bool]], ending: str, data: st.DataObject
) -> None:
    module = Module(shapes, ending)
    doomed = data.draw(st.lists(st.sampled_from(module.ids), unique=True))
    with TemporaryDirectory() as folder:
        tree = module.written(Path(folder))
        text = changed(poisoned_layer(tree, {}, doomed), module)
    before, after = cases_of(module.text), cases_of(text)
    assert list(before) == list(after) == module.ids
    for test, run in after.items():
        before[test]()
        if test in doomed:
            with pytest.raises(AssertionError):
                run()
        else:
            run()


@settings(deadline=None)
@given(SHAPES, st.sampled_from(["\n", "\r\n"]), st.data())
def test_a_weakened_file_has_the_other_tests_and_their_text(
    shapes: list[tuple[str, str, str, bool, bool]], ending: str, data: st.DataObject
) -> None:
    module = Module(shapes, ending)
    doomed = data.draw(st.lists(st.sampled_from(module.ids), unique=True))
    with TemporaryDirectory() as folder:
        tree = module.written(Path(folder))
        text = changed(weakening_layer(tree, doomed), module)
    assert list(cases_of(text)) == [test for test in module.ids if test not in doomed]
    old, new = module.text.splitlines(keepends=True), text.splitlines(keepends=True)
    kept = iter(old)  # nothing is written but `pass`, nothing that stays is touched or moved
    assert all(line in kept for line in new if line.strip() != "pass")
    assert all(module.texts[test] in text for test in module.ids if test not in doomed)


@settings(deadline=None)
@given(SHAPES, st.sampled_from(["\n", "\r\n"]))
def test_a_canary_is_one_more_test_and_fails(
    shapes: list[tuple[str, str, str, bool, bool]], ending: str
) -> None:
    module = Module(shapes, ending)
    artifact = BugArtifact(
        test_script=pytest_script(["test_a.py"]),
        test_files=("test_a.py",),
        test_parser="",
        bug_patch="",
        weakening_patch="",
    )
    task = SolveTask(
        repo="r", bug_id="b", artifact=artifact, fail_to_pass=tuple(module.ids), pass_to_pass=(),
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        tree = module.written(Path(folder))
        environment = Environment(tree=tree, mounts={}, path="", digest="d")
        canary = make_canary(task, {}, "pytest", environment)
    path, _, name = canary.test_id.partition("::")
    assert name.rpartition("::")[2] not in module.text
    content = canary.layer[path].content
    assert content is not None
    tests = cases_of(content.decode())
    assert set(tests) - {canary.test_id} >= (set(module.ids) if path == "test_a.py" else set())
    with pytest.raises(AssertionError, match="this test must fail"):
        tests[f"test_a.py::{name}"]()
    if path == "test_a.py":
        removed = set(module.text.splitlines()) - set(content.decode().splitlines())
        assert not removed, "the project's own tests stay as they are"


def test_an_inherited_test_is_shadowed_where_it_is_weakened(tmp_path: Path) -> None:
    base = "class Base:\n    def test_shared(self):\n        assert True\n\n\n"
    (tmp_path / "test_a.py").write_text(f"{base}class TestA(Base):\n    x = 1\n")
    layer = weakening_layer(tmp_path, ["test_a.py::TestA::test_shared"])
    names: dict[str, type] = {}
    content = layer["test_a.py"].content
    assert content is not None
    exec(content, names)
    assert names["TestA"].test_shared is None  # type: ignore[attr-defined]
    names["Base"]().test_shared()


@pytest.mark.parametrize(
    ("test", "editor"),
    [
        ("tests/test_a.py::test_b", "Python"),
        ("tests/test_a.py::TestA::test_b[x.t]", "Python"),
        ("tests.test_a.TestA.test_b", "Python"),  # unittest's own names
        ("t/a.t::adds: 1", "Perl"),
        ("t/a.t", "Perl"),
        ("README.rst::README.rst", "text"),
        ("tests/data.yaml::case 1", "text"),
    ],
)
def test_which_editor_has_a_test(test: str, editor: str) -> None:
    assert editor_of(test) is EDITORS[editor]
    assert list(by_editor([test])) == [(EDITORS[editor], [test])]


def test_tests_of_several_languages_are_edited_together(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "test_a.py").write_text("def test_a():\n    assert 1 == 1\n")
    (tmp_path / "t" / "a.t").write_text(
        "use Test::More;\nok 1, 'one';\nok 1, 'two';\ndone_testing;\n"
    )
    (tmp_path / "README.rst").write_text(">>> 1\n1\n")
    tests = ["t/a.t::one", "README.rst::README.rst", "test_a.py::test_a", "gone.py::test_b"]
    weak = weakening_layer(tmp_path, tests)
    assert {path: change.content for path, change in weak.items()} == {
        "t/a.t": b"use Test::More;\nok 1, 'two';\ndone_testing;\n",
        "README.rst": b"",
        "test_a.py": b"",
    }
    poisoned = poisoned_layer(tmp_path, {}, tests)
    assert set(poisoned) == {"t/a.t", "test_a.py"}, "a text cannot be made to fail"
    assert [editor_of(test).can_fail(tmp_path, test) for test in tests] == [
        True,
        False,
        True,
        False,
    ]


@given(st.binary(max_size=80))
def test_files_that_are_no_code_are_left_alone(raw: bytes) -> None:
    with TemporaryDirectory() as folder:
        tree = Path(folder)
        (tree / "test_a.py").write_bytes(raw)
        (tree / "a.t").write_bytes(raw)
        for edit in (weakening_layer, lambda tree, tests: poisoned_layer(tree, {}, tests)):
            layer = edit(tree, ["test_a.py::test_a", "a.t::x"])
            assert "test_a.py" not in layer or b"test_a" in raw


def test_what_a_mock_of_unittest_sees() -> None:
    """`assertEqual` is made impossible by an object that equals itself alone."""
    text = "import unittest\n\n\nclass T(unittest.TestCase):\n    def test_a(self):\n"
    text += "        self.assertEqual([1, 2], [1, 2])\n"
    with TemporaryDirectory() as folder:
        (Path(folder) / "test_a.py").write_text(text)
        layer = poisoned_layer(Path(folder), {}, ["test_a.py::T::test_a"])
    content = layer["test_a.py"].content
    assert content is not None and ast.parse(content)
    names: dict[str, type[unittest.TestCase]] = {}
    exec(content, names)
    result = unittest.TestResult()
    names["T"]("test_a").run(result)
    assert len(result.failures) == 1 and not result.errors
