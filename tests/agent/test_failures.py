"""Reading pytest's and unittest's output, and test files."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfplay.compact.failure_readers import read_failures, test_name
from selfplay.compact.python_failures import find_tests

PYTEST = """
tests/test_a.py::TestA::test_b[x-1] FAILED
=================================== FAILURES ===================================
_____________________________ TestA.test_b[x-1] ______________________________

self = <TestA>

    def test_b(self):
>       assert f(1) == 2
E       assert 3 == 2
E        +  where 3 = f(1)

tests/test_a.py:12: AssertionError
____________________________________ test_c ____________________________________
tests/test_a.py:20: in test_c
    g()
pkg/core.py:7: in g
    raise ValueError("no")
E   ValueError: no
=========================== short test summary info ============================
"""
UNITTEST = """
test_b (tests.test_a.TestA.test_b) ... FAIL

======================================================================
FAIL: test_b (tests.test_a.TestA.test_b)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/testbed/tests/test_a.py", line 12, in test_b
    self.assertEqual(f(1), 2)
AssertionError: 3 != 2

----------------------------------------------------------------------
"""


def test_pytest_output() -> None:
    first, second = read_failures(PYTEST)
    assert (first.name, first.locations) == ("test_b", (("tests/test_a.py", 12),))
    assert first.messages == ("assert 3 == 2", "+  where 3 = f(1)")
    assert second.locations == (("tests/test_a.py", 20), ("pkg/core.py", 7))
    assert second.messages == ("ValueError: no",)


def test_unittest_output() -> None:
    (failure,) = read_failures(UNITTEST)
    assert (failure.name, failure.messages) == ("test_b", ("AssertionError: 3 != 2",))
    assert failure.locations == (("tests/test_a.py", 12),)


def test_output_of_both_kinds_or_none() -> None:
    assert read_failures("") == [] == read_failures("E   lost\n")


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read_failures(text)
    read_failures(f"____ {text} ____\nE {text}\nFAIL: {text}\n{text}")
    find_tests(text, ["test_a"])


def test_names() -> None:
    assert test_name("tests/test_a.py::TestB::test_c[x-1.5::y]") == "test_c"
    assert test_name("tests.test_a.TestB.test_c") == "test_c"
    assert test_name("test_c (tests.test_a.TestB)") == "test_c"


SOURCE = '''
class TestA:
    def test_b(self):
        """Says why."""
        x = 1

        y = 2
        assert f(x) == y
        assert False

def test_c():
    pass
'''


def test_bodies_are_dedented_and_bare() -> None:
    (body,) = find_tests(SOURCE, ["test_b", "test_x"])
    assert body.lines == (
        "def test_b(self):",
        "    x = 1",
        "    y = 2",
        "    assert f(x) == y",
        "    assert False",
    )
    assert body.numbers == (3, 5, 7, 8, 9)


def test_cut_ends_at_the_line_that_failed() -> None:
    (body,) = find_tests(SOURCE, ["test_b"])
    assert body.cut(9) == body.lines
    assert body.cut(9, focus=8) == body.lines[:4]
    assert body.cut(3, focus=8) == (body.lines[0], *body.lines[2:4])
    assert body.cut(2) == body.lines[:2]
    assert body.cut(2, focus=99) == (body.lines[0], body.lines[-1])
