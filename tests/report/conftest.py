"""Real runs of the samples, each with its report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """(name, steps) -> the directory of a run that has ended."""

    def play(name: str, steps: int) -> Path:
        runs = tmp_path_factory.mktemp("runs")
        words = ["experiment=samples", "sandbox=bubblewrap", f"steps={steps}", f"name={name}"]
        subprocess.run(
            [sys.executable, "-m", "selfplay", "train", *words, f"runs_dir={runs}"],
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        return runs / name

    return play
