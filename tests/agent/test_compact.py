"""What a prompt shows of functions, and how it is made to fit."""

from __future__ import annotations

import textwrap

from selfplay.compact.edits import Excerpt, Listing
from selfplay.compact.excerpts import MIN_WINDOW, excerpt, fit_listing
from selfplay.repo.languages.functions import FunctionInfo, list_functions

SOURCE = textwrap.dedent(
    '''
    class A:
        @property
        def f(self):
            """First line of *many*.

            More.
            """
            x = 1

            return x

    def g():
        "one"
        return 1

    def h():
        """Only a docstring."""

    def long(x):
    '''
) + "".join(f"    x += {i}\n" for i in range(50))
FUNCTIONS = {f.qualname: f for f in list_functions(SOURCE, "a.py")}


def shown(name: str, max_lines: int = 40, focus: int | None = None) -> str:
    chosen = excerpt(SOURCE, FUNCTIONS[name], max_lines=max_lines, focus=focus)
    return Listing([chosen], {"a.py": SOURCE}).render()


def test_docstring_becomes_a_heading_and_blank_lines_go() -> None:
    assert shown("A.f") == (
        "# First line of *many*.\n1| @property\n2| def f(self):\n3|     x = 1\n4|     return x"
    )
    assert shown("g") == "# one\n1| def g():\n2|     return 1"


def test_a_docstring_that_is_the_body_is_shown() -> None:
    assert shown("h") == '1| def h():\n2|     """Only a docstring."""'


def test_a_long_function_is_cut_to_a_window() -> None:
    assert shown("long", 4).splitlines() == [
        "1| def long(x):",
        "2|     x += 0",
        "3|     x += 1",
        "4|     x += 2",
    ]
    first = FUNCTIONS["long"].start_line
    window = shown("long", 6, focus=first + 30).splitlines()
    assert len(window) == 6 and any("x += 30" in line for line in window)
    assert window[0] == "1| def long(x):"
    last = shown("long", 6, focus=first + 49).splitlines()
    assert len(last) == 6 and last[-1] == "6|     x += 49"


def test_headings_hold_no_control_characters() -> None:
    source = 'def f():\n    """a\\x00\\tb"""\n    return 1\n'
    chosen = excerpt(
        source, FunctionInfo(path="a", qualname="f", start_line=1, end_line=3), max_lines=9
    )
    assert chosen.heading.isprintable()


def fit(max_tokens: int, max_functions: int = 3) -> Listing:
    def maker(name: str):  # type: ignore[no-untyped-def]
        return lambda size: excerpt(SOURCE, FUNCTIONS[name], max_lines=size)

    return fit_listing(
        [maker("A.f"), maker("long"), maker("g")],
        lambda _: SOURCE,
        lambda listing: len(listing.render()),
        max_tokens=max_tokens,
        max_functions=max_functions,
        max_lines=40,
    )


def test_functions_are_added_while_they_fit() -> None:
    assert len(fit(10_000).excerpts) == 3
    assert len(fit(10_000, max_functions=2).excerpts) == 2
    small = fit(150)
    assert [e.heading for e in small.excerpts] == ["First line of *many*.", "one"]
    assert len(small.render()) <= 150
    assert len(fit(1).excerpts) == 1


def test_the_first_function_is_cut_until_it_fits() -> None:
    def long(size: int) -> Excerpt:
        return excerpt(SOURCE, FUNCTIONS["long"], max_lines=size)

    def rows(max_tokens: int) -> int:
        listing = fit_listing(
            [long],
            lambda _: SOURCE,
            lambda shown: len(shown.lines),
            max_tokens=max_tokens,
            max_functions=1,
            max_lines=40,
        )
        return len(listing.lines)

    assert rows(40) == 40 and 10 < rows(20) <= 20 and rows(1) == MIN_WINDOW
