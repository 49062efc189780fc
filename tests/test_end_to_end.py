"""Whole runs through `selfplay train`: the scripted policy, kills, and the real small model."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTED = ("experiment=samples", "sandbox=bubblewrap", "steps=3")
MODEL = (
    "experiment=samples", "policy=transformers", "learner=lora", "sandbox=bubblewrap", "steps=2",
    "curriculum.group_size=4", "curriculum.num_groups=2", "curriculum.seeds_per_group=4",
    "curriculum.samples_per_seed=2", "curriculum.max_idle_steps=3",
)  # fmt: skip


def start(words: tuple[str, ...], runs: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "selfplay", "train", *words, f"runs_dir={runs}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(words: tuple[str, ...], runs: Path, timeout: float = 600) -> tuple[str, str]:
    process = start(words, runs)
    stdout, stderr = process.communicate(timeout=timeout)
    assert process.returncode == 0, stderr[-2000:]
    return stdout, stderr


def episodes(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]


def bug_ids(run: Path) -> set[str]:
    if not (run / "corpus.sqlite").exists():
        return set()
    with sqlite3.connect(f"file:{run / 'corpus.sqlite'}?mode=ro", uri=True) as db:
        return {row[0] for row in db.execute("SELECT bug_id FROM bugs")}


def test_a_scripted_run_that_max_minutes_ended_goes_on_and_leaves_everything(
    tmp_path: Path,
) -> None:
    finish((*SCRIPTED, "max_minutes=0.0001"), tmp_path)
    assert json.loads((tmp_path / "samples" / "summary.json").read_text())["steps"] == 0
    stdout, _ = finish((*SCRIPTED, "max_minutes=30"), tmp_path)
    run = tmp_path / "samples"
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary) == {
        "steps", "solve_rate_first", "solve_rate_last", "valid_rate_first", "valid_rate_last",
        "eval_before", "eval_after", "num_valid_bugs", "wall_s", "details",
    }  # fmt: skip
    assert summary["steps"] == 3 and summary["num_valid_bugs"] > 0
    assert "valid bugs found by the model" in stdout
    assert bug_ids(run) and {d.name for d in (run / "artifacts").iterdir()} >= bug_ids(run)
    for episode in episodes(run):
        assert episode["status"] in ("completed", "truncated", "errored")
        assert (episode["reward"] is None) == (episode["status"] == "errored")
        lists = episode["trajectory"]
        assert len(lists["token_ids"]) == len(lists["loss_mask"]) == len(lists["logprobs"])
    groups: dict[str, set[str]] = {}
    for episode in episodes(run):
        groups.setdefault(episode["group_id"], set()).add(episode["role"])
    assert all(len(roles) == 1 for roles in groups.values())


def test_a_repository_that_is_not_python(tmp_path: Path) -> None:
    """The vendored Perl sample: discovered, broken, validated, repaired, summed up."""
    finish((*SCRIPTED, "repos.train=[sample-timetable]"), tmp_path)
    run = tmp_path / "samples"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 3 and summary["num_valid_bugs"] > 0
    played = episodes(run)
    assert {episode["repo"] for episode in played} == {"sample-timetable"}
    assert any(e["role"] == "solver" and e["reward"] == 1.0 for e in played)
    assert not any(episode["status"] == "errored" for episode in played)
    for bug in bug_ids(run):
        assert "prove --norc" in (run / "artifacts" / bug / "test_script.sh").read_text()


def killed_three_times(words: tuple[str, ...], runs: Path, first_s: float, last_s: float) -> Path:
    """Each try after a random time in first_s .. last_s; then a run to its end, which lost nothing.
    Returns its directory."""
    run = runs / "samples"
    steps = next(int(word.removeprefix("steps=")) for word in words if word.startswith("steps="))
    rng = random.Random(20251118)
    seen_bugs: set[str] = set()
    seen_episodes: set[str] = set()
    for _ in range(3):
        process = start(words, runs)
        deadline = time.monotonic() + rng.uniform(first_s, last_s)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        seen_bugs |= bug_ids(run)
        if (run / "episodes.jsonl").exists():
            whole = (run / "episodes.jsonl").read_bytes().rpartition(b"\n")[0].splitlines()
            seen_episodes |= {json.loads(line)["episode_id"] for line in whole if line}
    finish(words, runs, timeout=900)
    assert seen_bugs <= bug_ids(run)
    assert seen_episodes <= {episode["episode_id"] for episode in episodes(run)}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(steps))
    return run


def test_killed_three_times_it_resumes_and_loses_nothing(tmp_path: Path) -> None:
    killed_three_times(SCRIPTED, tmp_path, 3.0, 14.0)


@pytest.mark.model
@pytest.mark.slow
def test_the_real_model_plays_and_learns_and_survives_kills(tmp_path: Path) -> None:
    """The shipped model and adapter: bugs, repairs, an optimizer step, a checkpoint, weights."""
    run = killed_three_times(MODEL, tmp_path, 12.0, 40.0)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["learner/groups_trained"] for row in rows) > 0
    assert rows[-1]["learner/policy_version"] >= 1
    assert max(abs(row.get("learner/mismatch_kl", 0.0)) for row in rows) < 0.05
    assert any(e["reason"] == "valid" for e in episodes(run) if e["role"] == "injector")
    assert list((run / "checkpoints").glob("step_*"))
    assert (run / "weights" / "step_1" / "adapter_config.json").is_file()
    _, stderr = finish((*MODEL, "steps=3"), tmp_path, timeout=900)
    assert "resuming" in stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
