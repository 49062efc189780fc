"""Values as text: bounded, without addresses, the same for equal values, exact where it says so."""

from __future__ import annotations

import ast
import functools
import re
import weakref
from collections import OrderedDict, deque
from enum import Enum
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.bugs.test_runs.inside.values import MAX_LITERAL, MAX_NODES, MAX_TEXT, literal, show

atoms = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
keys = st.integers() | st.text() | st.booleans() | st.binary()


def inner(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(children)
        | st.tuples(children, children)
        | st.dictionaries(keys, children)
        | st.sets(keys)
        | st.frozensets(keys)
    )


values = st.recursive(atoms, inner, max_leaves=30)


class Refusing:
    """Nothing of it may be called."""

    def _no(self, *_: object) -> NoReturn:
        raise AssertionError("called")

    __repr__ = __str__ = __eq__ = __bool__ = __len__ = __iter__ = __getattr__ = _no  # type: ignore[assignment]
    __getattribute__ = __format__ = _no  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class Meta(type):
    def __eq__(cls, other: object) -> NoReturn:
        raise AssertionError("called")

    def __hash__(cls) -> NoReturn:
        raise AssertionError("called")

    def __instancecheck__(cls, other: object) -> NoReturn:
        raise AssertionError("called")


class OddClass(metaclass=Meta):
    pass


class Slots:
    __slots__ = ("a", "b")


class Point:
    def __init__(self, x: object, y: object) -> None:
        self.x, self.y = x, y


class Names(list[str]):
    __iter__ = Refusing._no  # type: ignore[assignment]


class Colour(Enum):
    RED = 1


@given(values)
@settings(max_examples=200, deadline=None)
def test_what_is_shown_is_bounded_and_repeats_itself(value: Any) -> None:
    text = show(value)
    assert text == show(value)
    assert len(text) <= 12 * (MAX_NODES + 8) * (MAX_TEXT + 20)
    assert text.encode("utf-8")  # no half characters
    assert not re.search(r"0x[0-9a-fA-F]{6,}", text)


@given(st.sets(keys, max_size=12))
@settings(deadline=None)
def test_the_order_of_a_set_changes_nothing(found: set[Any]) -> None:
    backwards: set[Any] = set()
    for item in reversed(list(found)):
        backwards.add(item)
    assert show(found) == show(backwards)
    assert literal(found) == literal(backwards)


@given(values)
@settings(max_examples=200, deadline=None)
def test_an_exact_text_is_the_value(value: Any) -> None:
    text = literal(value)
    if text is not None:
        again = ast.literal_eval(text)
        assert len(text) <= MAX_LITERAL and again == value and literal(again) == text


def test_nothing_of_the_repository_is_called() -> None:
    odd = Refusing()
    assert show([odd, {1: odd}]) == "[Refusing(), {1: Refusing()}]"
    assert show(OddClass()) == "OddClass()" and show(OddClass) == "<class OddClass>"
    assert literal([odd]) is None and literal(OddClass()) is None
    assert show(Names(["a"])) == "Names(['a'])"


def test_objects_are_their_class_and_fields() -> None:
    slots = Slots()
    slots.b = 2  # type: ignore[attr-defined]
    assert show(Point(1, Point("a", None))) == "Point(x=1, y=Point(x='a', y=None))"
    assert show(slots) == "Slots(b=2)"
    assert show(Colour.RED).startswith("Colour(_value_=1, _name_='RED'")
    assert show(ValueError("no", 3)) == "ValueError('no', 3)"
    assert show(OrderedDict(a=1)) == "OrderedDict({'a': 1})"
    assert show(deque([1])) == "deque([1])" and show(frozenset({1})) == "frozenset({1})"


@pytest.mark.parametrize(
    "value",
    [object(), functools.partial(len), iter([]), weakref.ref(Point), len, lambda: 0, ast, Point,
     (x for x in ""), f"<Point object at 0x{id(ast):012x}>", Point(1, 2).__init__],
    ids=range(11),
)  # fmt: skip
def test_no_address_is_shown(value: object) -> None:
    text = show(value)
    assert hex(id(value))[2:] not in text and not re.search(r"0x[0-9a-f]{6,}|\d{12,}", text), text


def test_what_is_left_out_is_marked() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert show(circle) == "[1, <cycle>]"
    assert show([[[[1]]]]) == "[[[…]]]"
    assert show(list(range(10))) == "[0, 1, 2, 3, 4, 5, 6, 7, … (+2)]"
    assert show("a" * 70) == f"'{'a' * 60}'…(+10)"
    assert show(set(range(100))) == "{… (+100)}"
    assert show(1 << 100_000) == "<int of 100001 bits …>"
    assert show(range(10**5000)).endswith("…>")


def test_what_has_no_exact_text() -> None:
    for value in (float("nan"), float("inf"), Point(1, 2), "x" * 400, 1 << 300, frozenset({1})):
        assert literal(value) is None
    assert literal((1,)) == "(1,)" and literal(set()) == "set()" and literal(True) == "True"
