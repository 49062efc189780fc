"""Reading what `prove` prints of failing tests, and the statements behind their ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.compact.failure_readers import read_failures, test_bodies, test_name
from selfplay.compact.failures import MAX_MESSAGE

OUTPUT = """\
t/span.t ..
ok 1 - empty
not ok 2 - ninety minutes
#   Failed test 'ninety minutes'
#   at t/span.t line 12.
#          got: '30'
#     expected: '90'
ok 3 - adds
not ok 4 - adds
#   Failed test 'adds'
#   at lib/Timetable/Span.pm line 7.
#   at t/span.t line 20.
#     Structures begin differing:
#          $got->[0] = 1
1..4
Can't locate object method "x" at lib/Timetable/Span.pm line 44.
t/other.t .. ok
"""
SOURCE = """\
use Test::More;

ok 1, 'empty';
is(span(1),
    90,
    'ninety minutes');
for my $n (1 .. 2) {
    is $n, $n, "adds: $n";
}
subtest deep => sub { ok 1, 'inner' };
done_testing;
"""


def test_failing_tests_with_places_and_words() -> None:
    first, second, loose = read_failures(OUTPUT)
    assert first.name == "ninety minutes"
    assert first.locations == (("t/span.t", 12),)
    assert first.messages == ("got: '30'", "expected: '90'")
    assert second.locations == (("lib/Timetable/Span.pm", 7), ("t/span.t", 20))
    assert second.messages == ("Structures begin differing:", "$got->[0] = 1")
    assert (loose.name, loose.locations) == ("", (("lib/Timetable/Span.pm", 44),))


def test_what_follows_a_pass_belongs_to_no_failure() -> None:
    """A diagnostic after `ok` must not be shown as what the failing test before complained of."""
    text = "t/a.t ..\nnot ok 1 - a\nok 2 - b\n# got: 'x'\n"
    (failure,) = read_failures(text)
    assert failure.messages == ()


def test_long_words_are_cut() -> None:
    (failure,) = read_failures(f"t/a.t ..\nnot ok 1 - a\n#   got: '{'x' * 500}'\n")
    assert [len(message) for message in failure.messages] == [MAX_MESSAGE]


@given(st.text())
def test_nothing_raises(text: str) -> None:
    for output in (text, f"t/a.t ..\n{text}", f"t/a.t ..\nnot ok 1 - {text}\n# at {text} line 1\n"):
        for failure in read_failures(output):
            assert all(len(message) <= MAX_MESSAGE for message in failure.messages)
            assert all(line >= 0 for _, line in failure.locations)
    test_bodies("t/a.t", text, ["t/a.t::a", f"t/a.t::{text}"])
    test_bodies("a.py", text, ["a.py::a", f"a.py::{text}"])
    assert test_bodies("a.txt", text, [f"a.txt::{text}"]) == []


def test_statements_behind_ids() -> None:
    tests = ["t/a.t::ninety minutes", "t/a.t::adds: 2", "t/b.t::empty", "t/a.t::nowhere"]
    found = {body.name: body for body in test_bodies("t/a.t", SOURCE, tests)}
    assert set(found) == {"ninety minutes", "adds: 2"}, "of this file, and only what is there"
    body = found["ninety minutes"]
    assert body.lines == ("is(span(1),", "90,", "'ninety minutes');")
    assert body.numbers == (4, 5, 6)
    assert body.cut(2) == ("is(span(1),", "90,")
    assert body.cut(2, focus=6) == ("is(span(1),", "'ninety minutes');")
    assert found["adds: 2"].numbers == (8,)


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("t/a.t::adds: 1#2", "adds: 1"),
        ("t/a.t::C#", "C#"),
        ("t/a.t::a::b", "a::b"),
        ("tests/test_a.py::TestB::test_c[x::1]", "test_c"),
        ("tests.test_a.TestB.test_c", "test_c"),
        ("tests.test_a.TestB.t", "t"),
        ("test_c (tests.test_a.TestB)", "test_c"),
    ],
)
def test_what_a_test_calls_itself(test: str, name: str) -> None:
    assert test_name(test) == name
