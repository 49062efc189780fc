"""A handful of small bugs for languages that are not parsed: one token of one line changed.

The operators on syntax trees stay Python's; these keep seeds, self-check and the scripted policy
going elsewhere. Comments and quoted texts are left alone as far as a line tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SWAPS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "swap_comparison",
        "condition",
        (
            *((" == ", " != "), (" != ", " == "), (" < ", " <= "), (" <= ", " < ")),
            *((" > ", " >= "), (" >= ", " > "), (" eq ", " ne "), (" ne ", " eq ")),
        ),
    ),
    ("negate_condition", "condition", ((" if ", " unless "), (" unless ", " if "))),
    ("swap_and_or", "condition", ((" && ", " || "), (" || ", " && "))),
    (
        "swap_arithmetic",
        "arithmetic",
        ((" + ", " - "), (" - ", " + "), (" * ", " / "), (" / ", " * "), (" % ", " / ")),
    ),
    ("swap_augmented", "arithmetic", ((" += ", " -= "), (" -= ", " += "))),
    ("swap_loop_flow", "loop", (("next ", "last "), ("last ", "next "))),
    (
        "wrong_call",
        "call",
        (("push ", "unshift "), ("unshift ", "push "), ("lc ", "uc "), ("uc ", "lc ")),
    ),
)
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|/(?:\\.|[^/\\\s])+/|(?:^|\s)#.*$")
_NUMBER = re.compile(r"(?<![\w.$:])\d{1,4}(?![\w.])")
_STATEMENT = re.compile(r"\s*[^\s{}#][^{}]*;\s*$")
Found = tuple[str, str, bool, str]
"""(operator, kind, whether code is removed, the new line; "" when it goes)"""


def line_mutations(line: str) -> Iterator[Found]:
    """Every change of one line, its ending kept, in a fixed order."""
    shown = _QUOTED.sub(lambda match: "\0" * len(match.group()), line)
    for operator, kind, swaps in _SWAPS:
        for old, new in swaps:
            for match in re.finditer(re.escape(old), shown):
                changed = line[: match.start()] + new + line[match.end() :]
                yield operator, kind, False, changed
    for match in _NUMBER.finditer(shown):
        number = int(match.group())
        for other in dict.fromkeys((number + 1, max(number - 1, 0))):
            if other != number:
                changed = f"{line[: match.start()]}{other}{line[match.end() :]}"
                yield "off_by_one", "number", False, changed
    if _STATEMENT.match(shown) and not re.match(r"\s*(?:my|our|use|package)\b", shown):
        yield "drop_statement", "statement", True, ""
