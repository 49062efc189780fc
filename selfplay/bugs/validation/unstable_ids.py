"""Test ids that will be other ones in a later run, whatever two runs of one minute say.

An id with the present year or date in its parameters is gone when the suite is judged next year;
one with an object's address is gone in the next process, but not among forked runs, which share
their addresses. Such a test is missing in every later run, and missing is not passed.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from selfplay.bugs.code_signals.chance import chance_sources
from selfplay.bugs.patches.layers import read_file

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_EPOCH = re.compile(r"(?<!\d)\d{10}(?:\d{3})?(?!\d)")
DAY_S = 86_400


def unstable_ids(tree: Path, tests: list[str], now: datetime | None = None) -> list[str]:
    """Those of the tests whose ids name an address, or the present where their file asks the clock.

    now    the present, for tests of this function
    """
    moment = now or datetime.now(UTC)
    clocked: dict[str, bool] = {}
    found: list[str] = []
    for test in tests:
        path, _, rest = test.partition("::")
        parameters = rest.partition("[")[2]
        if not parameters:
            continue
        if _ADDRESS.search(parameters):
            found.append(test)
        elif _names_the_present(parameters, moment):
            if path not in clocked:
                text = (read_file(tree, {}, path) or b"").decode("utf-8", "surrogateescape")
                clocked[path] = any(s.kind == "clock" for s in chance_sources(text, path))
            found += [test] if clocked[path] else []
    return found


def _names_the_present(parameters: str, now: datetime) -> bool:
    years = {str(now.year), str(now.year + 1), str(now.year - 1)}
    if any(year in parameters for year in years):
        return True
    stamps = (int(match.group()[:10]) for match in _EPOCH.finditer(parameters))
    return any(abs(stamp - now.timestamp()) < DAY_S for stamp in stamps)
