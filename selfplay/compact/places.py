"""Where failures point: functions, and lines of a listing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfplay.compact.edits import Listing
from selfplay.compact.failures import Failure
from selfplay.repo.languages.functions import FunctionInfo


def traceback_rows(
    failures: Sequence[Failure], functions: Mapping[str, FunctionInfo]
) -> dict[str, int]:
    """{function: 0-based row} of the functions on the failures' tracebacks, innermost line."""
    rows: dict[str, int] = {}
    for failure in failures:
        rows.update(_traced(failure, functions))
    return rows


def innermost(failure: Failure, functions: Mapping[str, FunctionInfo]) -> str | None:
    """The function in which a failure's traceback ends, tests and foreign code left aside."""
    traced = _traced(failure, functions)
    return traced[-1][0] if traced else None


def _traced(failure: Failure, functions: Mapping[str, FunctionInfo]) -> list[tuple[str, int]]:
    return [
        (name, line - 1)
        for path, line in failure.locations
        for name, function in functions.items()
        if function.path == path and function.start_line <= line <= function.end_line
    ]


def where(failure: Failure, listing: Listing) -> str:
    """ " (line 3)" for the innermost line of the traceback that a listing shows, else ""."""
    numbers = [listing.number(path, line - 1) for path, line in failure.locations]
    return next((f" (line {number})" for number in reversed(numbers) if number), "")
