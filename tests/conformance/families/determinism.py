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
    return f"hash('{number}') & 1 == {parities[1][number]}"


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
            name="a flickering test leaves the oracle, a stable failure stays",
            repo="ledger",
            want="valid",
            bug={
                "ledger/money.py": both(
                    LEDGER.bug, swap("balance = cents\n", f"balance = cents + ({FLICKER})\n")
                )
            },
        ),
    ),
)
