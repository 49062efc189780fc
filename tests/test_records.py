"""Records to JSON and back: what is wrong is named by its field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfplay.errors import UserError
from selfplay.records import from_plain, to_plain
from selfplay.types import BugArtifact, SolveTask

TASK = SolveTask(
    bug_id="bug-1",
    repo="toolz",
    artifact=BugArtifact(
        test_script="pytest \udcff",
        test_files=("tests/a.py",),
        test_parser="",
        bug_patch="",
        weakening_patch="",
        meta={"hint": ["x", 1, None]},
    ),
    fail_to_pass=("t",),
    pass_to_pass=(),
)


def test_a_record_comes_back_through_ascii() -> None:
    text = json.dumps(to_plain(TASK))
    assert text.isascii() and "\\udcff" in text
    assert from_plain(SolveTask, json.loads(text)) == TASK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bug_id": 3}, "bug_id: expected str, got int"),
        ({"fail_to_pass": ["a", 1]}, r"fail_to_pass\[1\]: expected str, got int"),
        ({"limits": {"inverse_hunks": 1}}, r"limits\.inverse_hunks: expected bool, got int"),
        ({"artifact": {}}, r"artifact\.test_script: is missing"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        from_plain(SolveTask, {**json.loads(json.dumps(to_plain(TASK))), **change})


def test_a_missing_field_and_no_object() -> None:
    with pytest.raises(UserError, match=r"^bug_id: is missing$"):
        from_plain(SolveTask, {})
    with pytest.raises(UserError, match=r"^expected object, got array$"):
        from_plain(SolveTask, [])


def test_keys_of_later_versions_are_left_alone() -> None:
    assert from_plain(SolveTask, {**to_plain(TASK), "colour": "red"}) == TASK
