"""Reading source text: never raises, splits as the compiler does."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.repo.languages.python_source import parse, same_code, split_lines


@given(st.text(alphabet="ab\r\n\x0c\x1c\u2028"))
def test_split_lines_loses_nothing(text: str) -> None:
    lines = split_lines(text)
    assert "".join(lines) == text
    assert all(line.rstrip("\r\n").count("\n") == 0 for line in lines)


def test_split_lines_numbers_as_the_compiler() -> None:
    text = 'a = "\x1c"\r\nb = 1\rc = "\u2028"\n'
    tree = parse(text)
    assert tree is not None
    assert [node.lineno for node in tree.body] == [1, 2, 3] and len(split_lines(text)) == 3


@given(st.text())
def test_parse_never_raises(text: str) -> None:
    parse(text)
    same_code(text, text)


@pytest.mark.parametrize("text", ["\0", "(" * 5000, "def f(", "\ud800", "-" * 99_999 + "1"])
def test_what_is_not_python(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("x = 1", "x = 1  # note", True),
        ("def f():\n    'a'\n    return 1", "def f():\n    'b'\n\n    return (1)", True),
        ("def f():\n    'a'", "def f():\n    pass", True),
        ("x = 1", "x = 2", False),
        ("x = ", "x = ", False),
    ],
)
def test_same_code(left: str, right: str, same: bool) -> None:
    assert same_code(left, right) is same


def test_many_threads_may_parse_at_once() -> None:
    """Bug: in CPython 3.11 "SystemError: AST constructor recursion depth mismatch", which ended a
    run, where another thread parsed while the garbage collector ran Python code."""
    source = "def f(x):\n" + "    x = [x, {x: (x, [x])}]\n" * 300
    gc.callbacks.append(lambda phase, info: time.sleep(0))
    try:
        with ThreadPoolExecutor(4) as pool:
            trees = list(pool.map(lambda _: parse(source), range(48)))
    finally:
        gc.callbacks.pop()
    assert all(tree is not None for tree in trees)
