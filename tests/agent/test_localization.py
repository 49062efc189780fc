"""Ochiai by hand."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from selfplay.compact.localization import by_words, ochiai, rank, reached_by_all

REACHED = {"t1": {"a::f", "a::g"}, "t2": {"a::g"}, "t3": {"a::g", "a::h"}, "t4": {"a::C.m"}}


def test_scores_by_hand() -> None:
    scores = ochiai(["t1"], ["t2", "t3"], REACHED)
    assert scores == {"a::f": 1.0, "a::g": 1 / math.sqrt(3)}
    two = ochiai(["t1", "t3", "unknown"], ["t2"], REACHED)
    assert two["a::g"] == 2 / math.sqrt(2 * 3)
    assert two["a::f"] == two["a::h"] == 1 / math.sqrt(2)


def test_words_of_an_issue_by_hand() -> None:
    """A word of one function in three counts log 3, one of two log 3/2, one of all nothing."""
    texts = {"a::f": "def round_to(step)", "b::g": "def step(x)", "c::h": "def other()"}
    assert by_words("round_to is wrong", texts) == ["a::f", "b::g", "c::h"]
    assert by_words("the step of an other def", texts) == ["c::h", "a::f", "b::g"]
    assert by_words("it", texts) == ["a::f", "b::g", "c::h"]
    assert by_words("roundTo", texts)[0] == "a::f"  # parts of names count


def test_nothing_known_gives_nothing() -> None:
    assert ochiai(["x"], ["y"], REACHED) == {} == ochiai([], ["t1"], REACHED)


def test_rank_breaks_ties_by_traceback_then_mention_then_name() -> None:
    scores = {"b::f": 0.5, "a::C.m": 0.5, "a::h": 0.5, "a::g": 0.6}
    assert rank(scores) == ["a::g", "a::C.m", "a::h", "b::f"]
    assert rank(scores, mentioned={"m"})[0] == "a::C.m"
    assert rank(scores, mentioned={"m"}, located={"b::f", "a::C.m"})[:2] == ["a::C.m", "b::f"]


def test_where_tracebacks_end_outweighs_where_they_pass() -> None:
    scores = {"a::f": 0.5, "a::g": 0.6}
    both = {"a::f", "a::g"}
    assert rank(scores, located=both, innermost={"a::g": 1.0})[0] == "a::g"
    assert rank(scores, located=both, innermost={"a::f": 0.75, "a::g": 0.25})[0] == "a::f"


def test_functions_of_all_failing_tests_come_first() -> None:
    assert reached_by_all(["t1", "t3", "unknown"], REACHED) == {"a::g"}
    assert reached_by_all(["unknown"], REACHED) == set()
    assert rank({"a": 0.9, "b": 0.2}, in_all={"b"}, located={"a"}) == ["b", "a"]


@given(st.lists(st.sampled_from(sorted(REACHED))), st.lists(st.sampled_from(sorted(REACHED))))
def test_scores_lie_between_0_and_1(failing: list[str], passing: list[str]) -> None:
    assert all(0 < s <= 1 for s in ochiai(set(failing), set(passing), REACHED).values())
