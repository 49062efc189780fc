"""Ids of the moment leave the lists: a later run would miss them, and missing is not passed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from selfplay.bugs.validation.unstable_ids import unstable_ids

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CLOCK = "import datetime\nYEAR = datetime.date.today().year\n"


def test_the_present_counts_where_the_clock_is_asked(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(CLOCK)
    (tmp_path / "test_b.py").write_text("YEAR = 2026\n")
    ids = [
        "test_x[2026-True]",
        "test_x[2027-False]",
        "test_y[1795694400]",
        "test_x[1999]",
        "test_2026",
    ]
    gone = unstable_ids(tmp_path, [f"test_a.py::{name}" for name in ids], NOW)
    assert gone == [f"test_a.py::{name}" for name in ids[:3]]
    assert unstable_ids(tmp_path, [f"test_b.py::{name}" for name in ids], NOW) == []


def test_addresses_count_everywhere(tmp_path: Path) -> None:
    (tmp_path / "test_b.py").write_text("")
    ids = ["test_b.py::test_x[<object object at 0x7f12ab34cd50>]", "test_b.py::test_x[0xdeadbeef]"]
    assert unstable_ids(tmp_path, ids, NOW) == ids[:1]
