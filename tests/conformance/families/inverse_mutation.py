"""Each changed file has a part in the failures."""

from __future__ import annotations

from textwrap import indent

from ..case import ArtifactCase, Family, both, bottom, swap
from ..projects import CACHETOOLS, LEDGER, TEXTKIT, TIMETABLE
from .texts import HANG_LIMIT_S, WAITS

PAIR = {
    "ledger/money.py": both(
        LEDGER.bug, swap("def round_to(", "def rounded("), bottom("round_to = rounded")
    ),
    "ledger/__init__.py": swap("parse_cents, split_cents\n", "parse_cents, rounded, split_cents\n"),
}
"""Without its first file alone the package asks for a function that is gone: nothing runs."""
PASSENGER_HUNK = {LEDGER.source: both(LEDGER.bug, swap("order[:left]", "order[: left + 0]"))}
PREFIX_TESTS = tuple(
    f"tests.test_words.PrefixTest.{name}"
    for name in ("test_common", "test_one_is_the_prefix", "test_none")
)
FAMILY = Family(
    title="Inverse mutation",
    source="inverse_mutation",
    cases=(
        ArtifactCase(
            name="a second hunk that no test notices, where each hunk must count",
            repo="ledger",
            want="inverse_mutation/hunk_contributes_nothing",
            bug=PASSENGER_HUNK,
            limits={"inverse_hunks": True},
        ),
        ArtifactCase(
            name="a second hunk that no test notices, where each file must count",
            repo="ledger",
            want="valid",
            bug=PASSENGER_HUNK,
        ),
        ArtifactCase(
            name="two hunks that both have a part",
            repo="textkit",
            want="valid",
            bug={TEXTKIT.source: both(TEXTKIT.bug, swap("if not words:", "if words:"))},
            hides=(*TEXTKIT.broken, *PREFIX_TESTS),
            limits={"inverse_hunks": True},
        ),
        ArtifactCase(
            name="a passenger: a second file that no test notices",
            repo="ledger",
            want="inverse_mutation/file_contributes_nothing",
            source="earlier systems",
            bug={**LEDGER.planted, "ledger/report.py": swap("count=3", "count=4")},
        ),
        ArtifactCase(
            name="a passenger: a second file that no test notices",
            repo="timetable",
            want="inverse_mutation/file_contributes_nothing",
            bug={
                **TIMETABLE.planted,
                "lib/Timetable/Clock.pm": swap("$rest * 2 >= $step", "$rest * 2 > $step"),
            },
        ),
        ArtifactCase(
            name="a passenger in a new file",
            repo="textkit",
            want="inverse_mutation/file_contributes_nothing",
            bug={**TEXTKIT.planted, "textkit/extra.py": "X = 1\n"},
        ),
        ArtifactCase(
            name="a partial state that cannot be read is no contribution",
            repo="ledger",
            want="inverse_mutation/file_contributes_nothing",
            source="earlier systems",
            bug=PAIR,
        ),
        ArtifactCase(
            name="a partial state that never ends is no contribution",
            repo="cachetools",
            want="inverse_mutation/file_contributes_nothing",
            bug={
                "src/cachetools/keys.py": bottom("READY = True"),
                CACHETOOLS.source: both(
                    CACHETOOLS.bug,
                    bottom(f"if not hasattr(keys, 'READY'):\n{indent(WAITS, '    ')}"),
                ),
            },
            limits={"script_timeout_s": HANG_LIMIT_S},
        ),
    ),
)
