"""What is found in a piece of code: signals, counted, and places that depend on chance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

Signals = Counter[tuple[str, str]]
"""{(category, token): how often}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place in a file (line from 1) that depends on chance."""

    kind: str
    name: str
    line: int
