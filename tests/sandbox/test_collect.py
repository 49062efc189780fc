"""A time limit is about the job: a machine that is crowded by others is no verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from selfplay.sandbox import collect
from selfplay.sandbox.base import Quota

LIMIT_S = 0.6


def follow(seconds: float) -> collect.Collected:
    """Follow a job that sleeps, with a limit of `LIMIT_S`."""
    process = subprocess.Popen(["sleep", str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    gone = os.pidfd_open(process.pid)
    try:
        return collect.collect(
            process.stdout.fileno(),
            gone,
            Quota(timeout_s=LIMIT_S),
            lambda: process.send_signal(signal.SIGKILL),
            lambda: "",
        )
    finally:
        os.close(gone)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("share", "seconds", "timed_out", "at_least", "at_most"),
    [
        (0.0, 30.0, True, LIMIT_S, 2 * LIMIT_S),
        (0.4, 30.0, True, LIMIT_S, 2 * LIMIT_S),  # the core was mostly its own
        (0.9, 1.5 * LIMIT_S, False, 1.5 * LIMIT_S, 30.0),
        (0.9, 30.0, True, 3 * LIMIT_S, 4 * LIMIT_S),  # and at most three times the limit
    ],
)
def test_time_that_others_took_is_given_back(
    share: float,
    seconds: float,
    timed_out: bool,
    at_least: float,
    at_most: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collect, "stalled_s", lambda: share * time.monotonic())
    ended = follow(seconds)
    assert ended.timed_out == timed_out
    assert 0.99 * at_least <= ended.duration_s <= at_most + 0.5  # two clocks


@pytest.mark.parametrize(
    ("text", "expected"),
    [("some avg10=1.00 avg60=2.00 avg300=3.00 total=2500000\nfull total=0\n", 2.5), ("?", 0.0)],
)
def test_the_kernel_is_asked(
    text: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").write_text(text)
    monkeypatch.setattr(collect, "PRESSURE", tmp_path / "cpu")
    assert collect.stalled_s() == expected
    monkeypatch.setattr(collect, "PRESSURE", tmp_path / "absent")
    assert collect.stalled_s() == 0.0
