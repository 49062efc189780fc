"""Removing and poisoning test functions by their spans."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from selfplay.bugs.grading.poisoned_tests import poisoned_layer
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.types import Layer

SOURCE = '''\
"""Doc."""
import pytest


@pytest.mark.parametrize("x", [
    1,
    2,
])
def test_one(x):
    """Doc."""
    assert x


# about two
async def test_two(): pass

class Base:
    def test_shared(self):
        assert True

class TestA(Base):
    x = 1

    def test_a(self):
        assert """
        def test_b(self): pass
"""

    class TestInner:
        def test_deep(self):
            pass


class TestB:
    def test_only(self):
        if 1:
            pass


if True:
    def test_conditional():
        pass
'''


def weakened(tree: Path, *tests: str) -> str:
    return text_of(weakening_layer(tree, tests))


def text_of(layer: Layer) -> str:
    (change,) = layer.values()
    assert change.content is not None
    text = change.content.decode()
    ast.parse(text)
    return text


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text(SOURCE)
    return tmp_path


def test_parameters_go_with_their_function(tree: Path) -> None:
    text = weakened(tree, "tests/test_a.py::test_one[1]", "tests/test_a.py::test_one[2]")
    assert "test_one" not in text
    assert "parametrize" not in text
    assert text.startswith('"""Doc."""\nimport pytest\n\n\n# about two\nasync def test_two')


def test_emptied_blocks_get_a_pass(tree: Path) -> None:
    text = weakened(tree, "tests/test_a.py::TestB::test_only")
    assert "class TestB:\n    pass\n" in text
    assert "if True:\n    pass\n" in weakened(tree, "tests/test_a.py::test_conditional")
    assert "class TestInner:\n            pass" not in text
    inner = weakened(tree, "tests/test_a.py::TestA::TestInner::test_deep")
    assert "    class TestInner:\n        pass\n" in inner


def test_methods_and_neighbours(tree: Path) -> None:
    text = weakened(tree, "tests/test_a.py::TestA::test_a", "tests/test_a.py::test_two")
    assert "def test_b" not in text
    assert "async" not in text
    assert "class TestA(Base):\n    x = 1\n\n    class TestInner:" in text


def test_inherited_test_is_shadowed_in_its_class_alone(tree: Path) -> None:
    text = weakened(tree, "tests/test_a.py::TestA::test_shared")
    assert "def test_shared" in text
    assert "    test_shared = None\n" in text


def test_all_tests_of_a_file(tree: Path) -> None:
    tests = ["test_one", "test_two", "TestA::test_a", "TestA::test_shared", "TestB::test_only"]
    text = weakened(tree, *(f"tests/test_a.py::{t}" for t in tests), "tests/test_a.py::Base::x")
    assert "def test_one" not in text


@pytest.mark.parametrize(
    "test",
    [
        "tests/test_a.py::test_nowhere",
        "tests/test_a.py::TestNo::test_x",
        "tests/gone.py::test_x",
        "README.md::README.md",
        "tests/test_a.py",
        "nonsense",
        "",
    ],
)
def test_unknown_ids_change_nothing(tree: Path, test: str) -> None:
    assert weakening_layer(tree, [test]) == {}


def test_unittest_names(tree: Path) -> None:
    assert "class TestB:\n    pass\n" in weakened(tree, "tests.test_a.TestB.test_only")


def test_line_endings_and_foreign_bytes_are_kept(tmp_path: Path) -> None:
    raw = b"# \xff\r\nclass T:\r\n    def test_a(self):\r\n        pass\r\n\r\n\r\nx = 1\r\n"
    (tmp_path / "test_a.py").write_bytes(b"# -*- coding: latin-1 -*-\r\n" + raw)
    layer = weakening_layer(tmp_path, ["test_a.py::T::test_a"])
    content = layer["test_a.py"].content
    assert content is not None
    assert content.endswith(b"# \xff\r\nclass T:\r\n    pass\r\nx = 1\r\n")


RAISED = 'raise AssertionError("this test was made to fail")'


def poisoned(folder: Path, body: str) -> str:
    """A test of these statements, poisoned."""
    source = "def test_a():\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    (folder / "test_a.py").write_text(source)
    return text_of(poisoned_layer(folder, {}, ["test_a.py::test_a"]))


def test_poison_comes_last_so_that_the_code_is_called(tree: Path) -> None:
    tests = [f"tests/test_a.py::{t}" for t in ("test_one[1]", "test_two", "TestA::test_a")]
    text = text_of(poisoned_layer(tree, {}, tests))
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    functions = [n for n in functions if isinstance(n.body[-1], ast.Raise)]
    assert [n.name for n in functions] == ["test_one", "test_a"]
    assert f"async def test_two(): {RAISED}; pass" in text


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ("assert f(1) == 2", "assert f(1) == object()"),
        ("assert 2 == f(1)", "assert object() == f(1)"),
        ("assert f(1) == [\n    2,\n    (3, 4),\n], 'no'",
         "assert f(1) == [object(), (object(), object())], 'no'"),
        ("self.assertEqual(f(1), 2)", "self.assertEqual(f(1), object())"),
        ("self.assertEqual(0, len(x))", "self.assertEqual(object(), len(x))"),
        ("assert f(1) == []", "assert f(1) == object()"),
        ("x = 1\nassert x > f(1) == 2", f"x = 1\nassert x > f(1) == 2\n{RAISED}"),
        ("for x in y:\n    assert x == 2", f"for x in y:\n    assert x == 2\n{RAISED}"),
        ("if x:\n    return\nassert x == 2", f"{RAISED}\nif x:\n    return\nassert x == 2"),
        ("x = 1; assert x == 2", f"x = 1; assert x == 2\n{RAISED}"),
    ],
)  # fmt: skip
def test_expectations_become_impossible(tmp_path: Path, body: str, want: str) -> None:
    """Where an equality is surely asserted, nothing honest meets it; else the test raises."""
    text = poisoned(tmp_path, body)
    assert textwrap.dedent(text.partition("\n")[2]).strip() == want


def test_poison_before_a_decorated_statement(tmp_path: Path) -> None:
    text = poisoned(tmp_path, "@abs\ndef inner(): return 1")
    assert text.index("raise") < text.index("@abs")
