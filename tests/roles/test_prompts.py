"""Templates: short, and strict about what they are given."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from selfplay.roles.compact.injector import Hint
from selfplay.roles.prompts import bare_question, render

LISTING = "1| def f():\n2|     return 1"


def injector(strategy: str, hint: Hint | None = None, change: str = "") -> str:
    return render("injector", listing=LISTING, strategy=strategy, hint=hint, change=change)


def test_injector_asks_for_the_strategy_and_the_hint() -> None:
    hint = Hint(kind="return", line=2)
    assert injector("direct") == LISTING + "\n\nPlant a bug"
    assert injector("direct", hint) == LISTING + "\n\nPlant a bug: return in line 2"
    assert injector("removal", hint) == LISTING + "\n\nPlant a bug: delete return in line 2"
    assert injector("removal") == LISTING + "\n\nPlant a bug: delete code"
    history = injector("history", change="- a\n+ b")
    assert history == LISTING + "\n\nPast change:\n- a\n+ b\n\nPlant a bug: undo the change"


def test_solver_leaves_out_what_is_not_there() -> None:
    bare = render("solver", listing=LISTING, issue="", tests="", messages=[], suspects=[], trace=[])
    assert bare == LISTING + "\n\nFix the bug"
    full = render(
        "solver",
        listing=LISTING,
        issue="It breaks.",
        tests="def test():\n    f()",
        messages=["a"],
        suspects=[2],
        trace=["1: n = 2", "2: return 1"],
    )
    assert full == (
        LISTING
        + "\n\nIt breaks.\n\nFailing tests:\ndef test():\n    f()\nE a"
        + "\n\nLast lines run:\n1: n = 2\n2: return 1\n\nFix the bug in line 2"
    )
    many = render(
        "solver", listing="", issue="", tests="", messages=[], suspects=[3, 1, 2], trace=[]
    )
    assert many == "Fix the bug in line 3, 1 or 2"


def test_code_is_not_escaped() -> None:
    text = bare_question("1| a < b && {{ c }}", [])
    assert text.startswith("1| a < b && {{ c }}")


def test_missing_names_are_errors() -> None:
    with pytest.raises(UndefinedError):
        render("solver", listing=LISTING)


def test_fixed_text_is_short() -> None:
    """In words and signs, about as many as tokens."""
    fixed = render("system") + injector("direct")[len(LISTING) :]
    assert len(fixed) < 160
