"""A run killed at 20 random moments ends with the very weights of one that was never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def killed(*arguments: str, timeout_s: float) -> dict[str, Any]:
    """The report of the script, which ended well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "crash_learner.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.slow
def test_killed_with_rounds_ahead_each_round_counts_once() -> None:
    """The whole loop with three rounds alive: open rounds begin again, none is lost or doubled."""
    report = killed("--kills", "4", "--loop", "--ahead", "2", timeout_s=900)
    assert report["rounds_once"] and report["num_lost"] == 0 and report["num_kills"] >= 2


def test_killed_twenty_times_nothing_differs() -> None:
    report = killed("--kills", "20", timeout_s=600)
    assert report["equal"] and report["num_lost"] == 0
    assert report["num_kills"] >= 10 and report["num_trained_steps"] == report["num_steps"]
