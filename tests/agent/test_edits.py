"""Listings and edits: worked examples, round trips, and junk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.compact.edits import (
    EditError,
    Excerpt,
    Listing,
    parse_edit,
    parse_listing,
    render_edit,
)

SOURCE = """import os

class A:
    def f(self, x):
        if x:
            return 1

        return 2
"""


def listing() -> Listing:
    return Listing([Excerpt(path="a.py", rows=(3, 4, 5, 7), heading="Doc.")], {"a.py": SOURCE})


def edited(answer: str) -> list[str]:
    return parse_edit(answer, listing())["a.py"].split("\n")[3:]


def reason(answer: str) -> str:
    with pytest.raises(EditError) as caught:
        parse_edit(answer, listing())
    return caught.value.reason


def test_render_numbers_and_takes_off_the_indentation() -> None:
    assert listing().render() == (
        "# Doc.\n1| def f(self, x):\n2|     if x:\n3|         return 1\n4|     return 2"
    )


def test_excerpts_are_numbered_on_and_separated() -> None:
    both = Listing(
        [Excerpt(path="a", rows=(0,)), Excerpt(path="b", rows=(1, 2))],
        {"a": "x = 1\n", "b": "\n  y\n  z\n"},
    )
    assert both.render() == "1| x = 1\n\n2| y\n3| z"
    assert parse_edit("3| w", both) == {"b": "\n  y\n  w\n"}


def test_replace_insert_delete() -> None:
    assert edited("2|     if not x:")[1] == "        if not x:"
    assert edited("2|     if y:\n2|         pass\n2|     if x:")[1:4] == [
        "        if y:",
        "            pass",
        "        if x:",
    ]
    assert edited("1+     x = 0")[:3] == ["    def f(self, x):", "        x = 0", "        if x:"]
    assert edited("2-\n3-")[1:] == ["", "        return 2", ""]
    assert edited("2-3") == edited("2-\n3-")
    assert edited("4|     return 3\r\n")[-2] == "        return 3"


def test_insertion_goes_past_hidden_lines() -> None:
    """A line added after a header lands below the docstring, which the listing hides."""
    assert edited("3+     y = 1")[2:] == [
        "            return 1",
        "",
        "        y = 1",
        "        return 2",
        "",
    ]


def test_order_of_operations_on_different_lines_does_not_matter() -> None:
    assert edited("4|     return 3\n1+     y = 1") == edited("1+     y = 1\n4|     return 3")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("", "no_change"),
        ("  \n\n", "no_change"),
        ("2|     if x:", "no_change"),
        ("I would change line 2", "bad_format"),
        ("2: if x:", "bad_format"),
        ("2-\n2| x", "bad_format"),
        ("0| x", "bad_line"),
        ("5| x", "bad_line"),
        ("3-2", "bad_line"),
        ("2-99", "bad_line"),
        ("9999999999999999999999| x", "bad_format"),
        ("²| x", "bad_format"),
    ],
)
def test_reason_codes(answer: str, code: str) -> None:
    assert reason(answer) == code


def test_a_missing_last_newline_stays_missing() -> None:
    short = Listing([Excerpt(path="a", rows=(0, 1))], {"a": "x\ny"})
    assert parse_edit("2| z\n2+ w", short) == {"a": "x\nz\nw"}
    assert parse_edit("2-", short) == {"a": "x"}


def test_carriage_returns_stay() -> None:
    windows = Listing([Excerpt(path="a", rows=(0, 1))], {"a": "x\r\ny\r\n"})
    assert parse_edit("1| z\n1| w", windows) == {"a": "z\r\nw\r\ny\r\n"}


@pytest.mark.parametrize(
    ("new", "answer"),
    [
        (SOURCE.replace("if x", "if not x"), "2|     if not x:"),
        (SOURCE.replace("        return 2\n", ""), "4-"),
        (SOURCE.replace("        if x:\n            return 1\n", ""), "2-3"),
        (SOURCE.replace("        if x:", "        y = x\n        if x:"), "1+     y = x"),
        (SOURCE.replace("    def f", "    @g\n    def f"), "1| @g\n1| def f(self, x):"),
        (
            SOURCE.replace("return 1\n", "return 1\n        y = 1\n"),
            "3|         return 1\n3|     y = 1",
        ),
        (SOURCE.replace("        return 2", "        y = 1\n        return 2"), "3+     y = 1"),
        (SOURCE + "        x = 3\n", "4+     x = 3"),
    ],
)
def test_render_edit_is_short(new: str, answer: str) -> None:
    assert render_edit(listing(), {"a.py": new}) == answer


@pytest.mark.parametrize(
    "new",
    [
        SOURCE.replace("import os", "import sys"),
        SOURCE.replace("        if x", "  if x"),
        SOURCE,
        SOURCE.replace("\n\n        return 2", "\n        return 2"),
    ],
)
def test_what_the_listing_does_not_show_cannot_be_edited(new: str) -> None:
    with pytest.raises(ValueError, match="not expressible"):
        render_edit(listing(), {"a.py": new})


line_text = st.text(alphabet="ab =|+-1#é", max_size=8).map(lambda s: s.rstrip() or "x")
blocks = st.lists(line_text, min_size=1, max_size=8)


@st.composite
def edits(draw: st.DrawFn) -> tuple[Listing, dict[str, str]]:
    """A listing of one or two files, fully shown, and new texts of all of them."""
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    margin = draw(st.sampled_from(["", "    ", "\t"]))
    final = draw(st.booleans())
    sources, new, excerpts = {}, {}, []
    for path in ["a", "b"][: draw(st.integers(1, 2))]:
        old, changed = ["x0", *draw(blocks)], ["x0", *draw(blocks)]
        before, after = ["head"] * draw(st.integers(0, 2)), ["tail"] * draw(st.integers(0, 2))
        for texts, target in ((old, sources), (changed, new)):
            lines = [*before, *(margin + text for text in texts), *after]
            target[path] = ending.join(lines) + (ending if final else "")
        rows = range(len(before), len(before) + len(old))
        excerpts.append(Excerpt(path=path, rows=tuple(rows)))
    return Listing(excerpts, sources), {p: t for p, t in new.items() if t != sources[p]}


@given(edits())
def test_parse_undoes_render(case: tuple[Listing, dict[str, str]]) -> None:
    shown, new = case
    if new:
        assert parse_edit(render_edit(shown, new), shown) == new


operations = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from("|+-:"), st.text(max_size=6)), max_size=5
)


@given(st.one_of(st.text(), operations.map(lambda o: "\n".join(f"{n}{s}{t}" for n, s, t in o))))
def test_junk_raises_edit_errors_only(answer: str) -> None:
    try:
        changed = parse_edit(answer, listing())
    except EditError as error:
        assert error.reason in ("bad_format", "bad_line", "no_change")
    else:
        assert changed["a.py"] != SOURCE
        assert changed["a.py"].startswith("import os\n\nclass A:\n")


@given(edits())
def test_a_listing_is_read_back_from_a_prompt(case: tuple[Listing, dict[str, str]]) -> None:
    shown, _ = case
    again = parse_listing(f"Fix this.\n\n{shown.render()}\n\ndef test():\n    1| 2\n\nGo")
    assert [line.text for line in again.lines] == [line.text for line in shown.lines]
    assert again.render() == shown.render()


def test_no_listing_in_a_prompt() -> None:
    with pytest.raises(EditError):
        parse_listing("hello\n2| x")
