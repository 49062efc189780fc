"""The surveys of real packages, on an index that holds almost nothing, and of models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the sandbox's uid can enter (pytest's own are private)."""
    with tempfile.TemporaryDirectory(prefix="selfplay-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def survey(place: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON object on the last line, and all that was printed for a person."""
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "survey_repos.py"), *arguments],
        env={**os.environ, **variables, "SELFPLAY_CACHE": str(place / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document, done.stdout + done.stderr


@pytest.mark.slow
def test_reasons_and_a_log_that_is_continued(place: Path) -> None:
    names = place / "names.txt"
    names.write_text("# two\nno-such-package==1.0\n\nno-other-package  # newest\n", "utf-8")
    log = place / "log.jsonl"
    document, said = survey(place, "--file", str(names), "--log", str(log))
    assert (document["ready"], document["total"]) == (0, 2)
    first, second = document["results"]
    assert first["reason"].startswith("no-such-package==1.0: source archive not available")
    assert second["reason"] == "the index does not know it"
    assert first["seconds"] > 0 and "surveying no-such-package" in said
    again, said = survey(place, "no-such-package==1.0", "--log", str(log))
    assert again["results"] == [first] and "surveying" not in said


@pytest.mark.slow
def test_time_is_bounded(place: Path) -> None:
    with tarfile.open(place / "calc-1.0.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "LICENSE", "calc-1.0/LICENSE")
    document, _ = survey(place, "calc==1.0", "--timeout-s", "0.5")
    assert document["results"][0]["reason"] == "not ready after 0.5 s"
    assert document["results"][0]["seconds"] < 60


def test_what_is_no_package() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "survey_repos.py"), "calc=1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "'calc=1' is not of the form NAME" in done.stderr


def test_models_as_they_are_computed(tmp_path: Path) -> None:
    log = tmp_path / "done.jsonl"
    command = [sys.executable, str(ROOT / "scripts" / "survey_models.py"), "--log", str(log)]
    log.write_text('{"kind": "qwen3", "verdict": "shared"}\n')
    done = subprocess.run(
        [*command, "mistral", "qwen3", "bert"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["verdict"] for row in rows[:2]] == ["shared", "refused"]
    assert rows[2] == {"shared": 2, "refused": 1}
    assert len(log.read_text().splitlines()) == 3
