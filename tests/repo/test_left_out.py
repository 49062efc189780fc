"""What discovery left out is said: in the profile by test, in `repos prepare` by reason."""

from __future__ import annotations

from selfplay.commands.repos_prepare import row_of, shown
from selfplay.repo.discovery.profile import RepoProfile, TestInfo


def test_counts_by_reason() -> None:
    profile = RepoProfile(
        runner="pytest",
        test_files={"a.py": 0.1},
        tests={"a.py::t": TestInfo(file="a.py", duration_s=0.1, functions=frozenset())},
        excluded={
            "a.py::u": "failing: E  assert 1 == 2",
            "a.py::v": "failing: a: b",
            "a.py::w": "skipped",
            "a.py::x": "flaky: passed, then failed",
        },
        settings={"config": "tox.ini", "kept": "-mx", "left_out": ""},
    )
    row = row_of("acme", profile, num_functions=3, seconds=1.23)
    assert row["left_out"] == {"failing": 2, "skipped": 1, "flaky": 1}
    assert (row["excluded"], row["tests"], row["functions"], row["seconds"]) == (4, 1, 3, 1.2)
    assert row["settings"] == {"config": "tox.ini", "kept": "-mx", "left_out": ""}
    cells = shown(row)
    assert cells["left_out"] == "failing: 2\nskipped: 1\nflaky: 1"
    assert cells["settings"] == "config: tox.ini\nkept: -mx"
