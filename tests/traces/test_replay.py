"""Which recordings are read, and how two of them are compared."""

from __future__ import annotations

import json
from typing import Any

from selfplay.traces.recordings import Event, TestRecording, read_recordings
from selfplay.traces.replay import Replay, checked_again, compared, judged

PASSED = ["setup passed", "call passed", "teardown passed"]
CALL: Event = ("call", 0, 1, {"a": "1", "b": "2"}, 0)
RETURN: Event = ("return", 0, 2, "3", 0)


def recording(*samples: list[Event], **values: Any) -> TestRecording:
    settled = {"outcomes": PASSED, "seconds": 0.1, "places": [("ops.py", "add")], **values}
    return TestRecording(test="t", samples=list(samples), **settled)


def line(**values: Any) -> bytes:
    document = {
        "test": "t", "outcomes": PASSED, "seconds": 0.1, "places": [["ops.py", "add"]],
        "samples": [[["return", 0, 1, "3", 0]]], "questions": [],
    }  # fmt: skip
    return json.dumps({**document, **values}).encode()


def test_only_lines_that_fit_are_read() -> None:
    others = [
        b"no json",
        b"[]",
        b"[" * 100_000,
        line(samples=[[]]),
        line(samples=[[["return", 7, 1, "", 0]]]),
        line(samples=[[1]]),
        line(places=[["../../etc/passwd", "add"]]),
        line(seconds="long"),
    ]
    found = list(read_recordings(b"\n".join([line(test="a"), *others, line(test="b")]), ["ops.py"]))
    assert [one.test for one in found] == ["a", "b"]


def test_values_are_compared_one_by_one() -> None:
    other: Event = ("call", 0, 1, {"a": "1", "b": "9"}, 0)
    same = Replay(values=3, equal_values=3, samples=1, equal_samples=1)
    assert compared(recording([CALL, RETURN]), recording([CALL, RETURN])) == same
    differs = compared(recording([CALL, RETURN]), recording([other, RETURN]))
    assert differs == Replay(values=3, equal_values=2, samples=1, equal_samples=0)
    shorter = compared(recording([CALL, RETURN], [CALL, RETURN]), recording([CALL, RETURN]))
    assert shorter == Replay(values=6, equal_values=3, samples=2, equal_samples=1)


def test_a_recording_that_the_clock_ended_is_no_other_value() -> None:
    kept, cut = recording([CALL, RETURN]), recording(why="time")
    assert checked_again(kept, cut) is None
    assert checked_again(kept, kept) == compared(kept, kept)
    assert checked_again(kept, recording()) == Replay(values=3, samples=1), "it ended by itself"


def test_why_a_test_is_left_out() -> None:
    plain, traced = recording(), recording([CALL, RETURN])
    failed = recording([CALL, RETURN], outcomes=["setup passed", "call failed"])
    assert judged(plain, traced, traced)[0] == ""
    assert judged(plain, traced, None)[0] == "the traced run did not get to its end"
    assert judged(failed, failed, failed)[0] == "does not pass plainly"
    assert judged(plain, traced, failed)[0] == "its verdict changes under tracing"
    assert judged(plain, traced, recording([CALL]))[0] == "its recordings differ"
    assert judged(plain, plain, plain)[0] == "it calls nothing of the repository"
    for why, told in (("time", "the time"), ("tracer", "it traces"), ("threads", "it starts")):
        assert judged(plain, traced, recording([CALL, RETURN], why=why))[0].startswith(told)
    cut = recording([CALL, RETURN], why="events")
    assert judged(plain, cut, cut)[0] == ""
