"""Tests that fail by the hash seed are no oracle."""

from __future__ import annotations

import subprocess
import sys

from ..case import ArtifactCase, Family, both, swap
from ..projects import LEDGER


def seed_dependent() -> str:
    """An expression that is false under hash seed 0 and true under hash seed 1."""
    parities = [
        subprocess.run(
            [sys.executable, "-c", "print(''.join(str(hash(str(i)) & 1) for i in range(40)))"],
            env={"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (0, 1)
    ]
    number = next(i for i in range(40) if parities[0][i] != parities[1][i])
    return f"'{number}'.__hash__() & 1 == {parities[1][number]}"


FLICKER = seed_dependent()
FAMILY = Family(
    title="Determinism",
    source="determinism",
    cases=(
        ArtifactCase(
            name="the only failing test passes under another hash seed",
            repo="ledger",
            want="determinism/flaky",
            source="cheating injectors",
            bug={"ledger/money.py": swap("rest * 2 >= step", f"rest * 2 > step - ({FLICKER})")},
        ),
        ArtifactCase(
            name="fails or not by the hash of a text",
            repo="textkit",
            want="determinism/flaky",
            source="cheating injectors",
            bug={"textkit/words.py": swap("edits < fewest", f"edits < fewest + (not {FLICKER})")},
        ),
        ArtifactCase(
            name="a flickering failure beside a stable one",
            repo="ledger",
            want="determinism/by_chance",
            bug={
                "ledger/money.py": both(
                    LEDGER.bug, swap("balance = cents\n", f"balance = cents + ({FLICKER})\n")
                )
            },
        ),
        ArtifactCase(
            name="adds the hash of a text",
            repo="ledger",
            want="forbidden_content/bug_identity",
            bug={"ledger/money.py": swap("rest * 2 >= step", "rest * 2 > step - hash('a') % 2")},
        ),
        ArtifactCase(
            name="adds the clock",
            repo="ledger",
            want="forbidden_content/bug_clock",
            bug={
                "ledger/money.py": swap(
                    "rest * 2 >= step",
                    "rest * 2 > step - cents.clock.now().microsecond % 2",
                )
            },
        ),
        ArtifactCase(
            name="walks through a hash in its own order",
            repo="timetable",
            want="forbidden_content/bug_order",
            bug={
                "lib/Timetable/Span.pm": swap(
                    "{end} - $span->{start}", "{end} - $span->{(keys %$span)[0]}"
                )
            },
        ),
    ),
)
