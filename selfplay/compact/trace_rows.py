"""The trace of a failing test as a prompt shows it: lines of the listing, and what they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfplay.bugs.test_runs.last_lines import TracedLine
from selfplay.compact.edits import Listing

MAX_ROW, MAX_VALUE = 72, 40
"""Characters of one row, and of one value in it."""
CUT = "…"


def trace_rows(listing: Listing, lines: Sequence[TracedLine], max_rows: int) -> list[str]:
    """The last lines that a listing shows, under their numbers there, as they ran.

    Example: `2: total = 3, n = 1` and `4: return 3`; a line that changed nothing is its number.
    """
    rows = []
    for ran in lines:
        number = listing.number(ran.path, ran.line - 1)
        if number is None:
            continue
        told = ", ".join(f"{name} = {_cut(value, MAX_VALUE)}" for name, value in ran.changes)
        what = "; ".join(filter(None, (told, ran.end)))
        rows.append(_cut(_one_line(f"{number}: {what}" if what else f"{number}"), MAX_ROW))
    return rows[-max_rows:] if max_rows else []


def fitting(
    rows: Sequence[str], num_tokens: Callable[[Sequence[str]], int], max_tokens: int
) -> Sequence[str]:
    """As many of the last rows as leave the prompt within its bound; what a prompt shows beside
    them goes before them."""
    sizes = range(len(rows), 0, -1)
    return next((rows[-n:] for n in sizes if num_tokens(rows[-n:]) <= max_tokens), ())


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + CUT


def _one_line(text: str) -> str:
    """Names of classes and variables may hold anything."""
    return "".join(c if c.isprintable() else " " for c in text)
