"""Values as text: bounded, without addresses, the same for equal values, exact where it says so."""

from __future__ import annotations

import array
import ast
import datetime
import functools
import re
import types
import weakref
from collections import OrderedDict, deque
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.bugs.test_runs.inside.values import (
    MAX_LITERAL,
    MAX_NODES,
    MAX_TEXT,
    literal,
    show,
    show_exception,
)

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


class Odd(str):
    """A name of a class of its own."""

    __str__ = __repr__ = __format__ = Refusing._no  # type: ignore[assignment]


class Told:
    """A key that counts how often it is asked."""

    asked = 0

    def __hash__(self) -> int:
        Told.asked += 1
        return 1


def test_the_order_of_an_ordered_dict_is_not_asked_of_its_keys() -> None:
    """Its iterator finds each entry by the hash of the key, and so calls it."""
    found = OrderedDict({Told(): 1})
    before = Told.asked
    assert show(found) == "OrderedDict({… (+1)})" and Told.asked == before
    plain = OrderedDict({"a": 1, (2, None): 3})
    plain.move_to_end("a")
    assert show(plain) == "OrderedDict({(2, None): 3, 'a': 1})"


class Zone(datetime.tzinfo):
    def __repr__(self) -> str:
        raise AssertionError("called")


class Moment(datetime.datetime):
    pass


def test_a_date_that_stands_in_for_datetimes_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tests that stop the clock replace the class in every module."""
    moment = Moment(2024, 1, 2, tzinfo=Zone())
    monkeypatch.setattr(datetime, "datetime", Moment)
    assert show(moment) == "Moment(…)"


def test_names_are_read_without_asking_anybody() -> None:
    """Programs give names of their own classes to functions, classes and modules, and modules
    `__getattr__`; exceptions carry what cannot be printed. Neither runs code of the repository,
    nor ends a recording."""

    def function() -> None: ...

    function.__qualname__ = Odd("f")
    kind = type("Kind", (), {})
    kind.__name__ = Odd("Named")
    nameless, named = types.ModuleType("a"), types.ModuleType("b")
    nameless.__dict__["__getattr__"] = Refusing._no
    del nameless.__name__
    named.__name__ = Odd("b")
    assert show([function, kind(), named]) == "[<function f>, Named(), <module b>]"
    assert show([nameless, re.compile(Odd("x+"))]) == "[<module …>, <pattern 'x+'>]"
    assert show_exception(ValueError(range(10**5000))) == "ValueError(…)"
    assert show_exception(ValueError(nameless)) == "ValueError(<module …>)"


def test_a_path_is_shown_alike_whoever_has_read_it() -> None:
    """It keeps its text and its hash once they were asked for, and the hash has a seed."""
    path = PurePosixPath("a", "b")
    before = show(path)
    assert hash(path) and str(path)
    assert show(path) == before == "PurePosixPath('a/b')"


class Frozen(datetime.datetime):
    """As tools that stop the clock have it."""

    __repr__ = __str__ = Refusing._no  # type: ignore[assignment]


def test_what_c_code_defines_is_shown_by_what_it_holds() -> None:
    assert show(slice(1, None)) == "slice(1, None, None)"
    assert show(datetime.time(1, 2)) == "datetime.time(1, 2)"
    assert show(Frozen(2020, 1, 2)) == "Frozen(2020, 1, 2, 0, 0)"
    assert show(types.SimpleNamespace(a=1, b=Refusing())) == "SimpleNamespace(a=1, b=Refusing())"
    assert show(array.array("i", [1, 2])) == "array([1, 2])"
    assert show(array.array("i", range(1000))) == "array([0, 1, 2, 3, 4, 5, 6, 7]…)"
    numpy = pytest.importorskip("numpy")
    assert show(numpy.arange(3)) == "ndarray([0, 1, 2])" and show(numpy.int64(3)) == "int64(3)"
    assert show(numpy.zeros((2, 2))) == "ndarray([[0.0, 0.0], [0.0, 0.0]])"
    assert show(numpy.zeros((20, 20))) == "ndarray(… of (20, 20))"
    assert show(numpy.array([None])) == "<ndarray>"
    assert show(numpy.float64(0.5)) == "float64(0.5)"


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


def test_lists_that_hold_one_another_many_times_over_are_no_literal() -> None:
    """Written out they would fill the memory, and to count them would take for ever."""
    value: Any = 1
    for _ in range(6):
        value = [value] * 60
    assert literal(value) is None and literal({1: value}) is None
    assert len(show(value)) < MAX_NODES * MAX_TEXT
