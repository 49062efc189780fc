"""What goes into the one-turn prompts of a small model, and what has to stay out.

Every prompt token costs time on a CPU, so docstrings shrink to a heading, blank lines go, long
functions are cut to a window, and functions are added only while the prompt fits its budget.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from selfplay.compact.edits import Excerpt, Listing
from selfplay.repo.languages.python_source import is_docstring, parse, split_lines

if TYPE_CHECKING:
    from selfplay.repo.languages.functions import FunctionInfo

MAX_HEADING = 70
"""Characters of a docstring's first line that are shown."""

MIN_WINDOW = 6
"""Lines to which a function may be cut before a prompt is allowed to exceed its budget."""


def excerpt(
    source: str, function: FunctionInfo, *, max_lines: int, focus: int | None = None
) -> Excerpt:
    """The lines of one function worth showing.

    Blank lines and the docstring are left out (its first line becomes the heading). A function
    longer than `max_lines` keeps its first line and a window around the 0-based row `focus`, or
    its beginning.
    """
    lines = split_lines(source)[: function.end_line]
    first = function.start_line - 1
    hidden, heading = _docstring("".join(lines[first:]))
    rows = [
        row for row in range(first, len(lines)) if lines[row].strip() and row - first not in hidden
    ]
    if len(rows) > max_lines:
        start = 1
        if focus is not None and focus in rows:
            start = min(max(1, rows.index(focus) - max_lines // 2), len(rows) - max_lines + 1)
        rows = [rows[0], *rows[start : start + max_lines - 1]]
    return Excerpt(path=function.path, rows=tuple(rows), heading=heading)


def shown_whole(source: str, function: FunctionInfo, max_lines: int) -> bool:
    """Whether a function fits `max_lines` without its docstring and blank lines."""
    return len(excerpt(source, function, max_lines=max_lines + 1).rows) <= max_lines


def _docstring(text: str) -> tuple[range, str]:
    """(rows of the docstring relative to the function's, its first line)."""
    shift = int(text[:1] in (" ", "\t"))
    tree = parse("if 1:\n" * shift + text)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    node = next((n for n in ast.walk(tree) if isinstance(n, functions)), None) if tree else None
    if node is None or not is_docstring(node.body[0]):
        return range(0), ""
    statement = node.body[0]
    assert statement.end_lineno is not None
    shown = (ast.get_docstring(node) or "").strip().split("\n")[0]
    heading = "".join(c if c.isprintable() else " " for c in shown)[:MAX_HEADING].strip()
    first = statement.lineno - 1 - shift
    if len(node.body) == 1 or first == node.lineno - 1 - shift:
        return range(0), ""
    return range(first, statement.end_lineno - shift), heading


def fit_listing(
    candidates: Sequence[Callable[[int], Excerpt]],
    sources: Callable[[str], str],
    num_tokens: Callable[[Listing], int],
    *,
    max_tokens: int,
    max_functions: int,
    max_lines: int,
) -> Listing:
    """Show as many candidates, best first, as fit into `max_tokens`.

    candidates   each makes an excerpt of at most so many lines
    num_tokens   size of the whole prompt around a listing

    The first candidate is always shown, cut until it fits or has `MIN_WINDOW` lines; a later one
    that does not fit is passed over. Raises `ValueError` without candidates.
    """
    if not candidates:
        raise ValueError("a prompt needs at least one function to show")
    size = max_lines
    while True:
        chosen = [candidates[0](size)]
        listing = _listing(chosen, sources)
        if num_tokens(listing) <= max_tokens or size <= MIN_WINDOW:
            break
        size = max(MIN_WINDOW, min(size, len(chosen[0].rows)) * 3 // 4)
    for candidate in candidates[1:]:
        if len(chosen) >= max_functions:
            break
        more = [*chosen, candidate(max_lines)]
        larger = _listing(more, sources)
        if num_tokens(larger) <= max_tokens:
            chosen, listing = more, larger
    return listing


def _listing(excerpts: Sequence[Excerpt], sources: Callable[[str], str]) -> Listing:
    return Listing(excerpts, {e.path: sources(e.path) for e in excerpts})
