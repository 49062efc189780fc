"""What a piece of code does that a bug, a weakened test or a fix has no business doing.

Signals are counted before and after a change, and only what is new counts: a file that used `exec`
or `random` all along raises no alarm.
"""

from __future__ import annotations

from collections.abc import Iterable

from selfplay.bugs.code_signals.findings import Signals
from selfplay.bugs.code_signals.readers import reader_of


def new_signals(
    path: str, after: str, before: Iterable[str], categories: Iterable[str]
) -> list[str]:
    """Sorted "category: token" of what `after` has more of than every text in `before`.

    path   names the language by its suffix; nothing is looked for in any other file
    """
    signals = reader_of(path).signals
    known = Signals()
    for text in before:
        known |= signals(text)
    wanted = set(categories)
    return sorted({f"{c}: {t}" for c, t in signals(after) - known if c in wanted})
