"""Python tests taken out of their files, as whole functions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.test_edits.python import Found, edit_tests, indentation, line_ending, span
from selfplay.types import Layer


def without_tests(tree: Path, tests: Iterable[str]) -> Layer:
    """The original tree's test files without these tests.

    All parameters of a test go with its function; an emptied block gets `pass`; an inherited test
    is shadowed by `name = None` in its class.
    """
    return edit_tests(tree, {}, tests, _remove)


def _remove(lines: list[str], found: list[Found]) -> None:
    ending = line_ending(lines)
    doomed = {id(place.function) for place in found if place.function is not None}
    for place in found:
        if place.function is None:
            continue
        first, last = span(place.function)
        head = indentation(lines[first])
        emptied = all(id(node) in doomed for node in place.block)
        keep_pass = emptied and place.function is place.block[0]
        while last < len(lines) and not lines[last].strip():
            last += 1
        lines[first:last] = [""] * (last - first)
        if keep_pass and place.block is not _module_block(place):
            lines[first] = f"{head}pass{ending}"
    for place in found:
        if place.function is None:
            _shadow(lines, place, ending)


def _module_block(place: Found) -> object:
    """A module may be empty; every other block needs a statement."""
    function = place.function
    return place.block if function is not None and function.col_offset == 0 else None


def _shadow(lines: list[str], place: Found, ending: str) -> None:
    assert place.owner is not None and place.owner.body[-1].end_lineno is not None
    last = place.owner.body[-1].end_lineno - 1
    text = " " * place.owner.body[0].col_offset + f"{place.name} = None{ending}"
    before = lines[last]
    lines[last] = f"{before.rstrip()}{ending}{text}" if before.strip() else text
