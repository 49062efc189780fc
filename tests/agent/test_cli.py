"""The agentic scaffold from the command line: shown live, stored, shown again, and trained with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.commands.transcript import clipped, turn_text

ROOT = Path(__file__).resolve().parent.parent.parent


def selfplay(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "selfplay", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_inject_shows_an_episode_live_and_keeps_it(tmp_path: Path) -> None:
    words = ("scaffold=agentic", "policy=scripted", "repo=sample-ledger", "n=1")
    done = selfplay(
        "inject", *words, "sandbox=bubblewrap", "injector=direct", f"out={tmp_path}", "json=true"
    )
    (row,) = json.loads(done.stdout)
    assert row["verdict"] == "valid" and row["bug_id"]
    assert "-- turn 1: bash" in done.stderr and "-> " not in done.stdout
    assert done.stderr.count("-- turn ") == done.stderr.count("sample-ledger/direct/0/0")
    shown = selfplay("episode", "show", f"run={tmp_path}").stdout
    assert "Plant a bug" in shown and "ending: submitted" in shown
    assert shown.count("-- turn ") == done.stderr.count("-- turn ")
    (line,) = json.loads(selfplay("episode", "show", f"run={tmp_path}", "json=true").stdout)
    assert (line["status"], line["reward"], line["bug_id"]) == ("completed", 1.0, row["bug_id"])
    assert len(line["trajectory"]["turns"]) == len(line["info"]["turns"])
    selfplay("episode", "show", f"run={tmp_path}", "id=nothing", code=1)


@pytest.mark.slow
def test_a_run_with_tools(tmp_path: Path) -> None:
    """The same controller, step by step: bugs, groups of attempts, rewards, episodes."""
    selfplay(
        "train", "experiment=samples", "scaffold=agentic", "sandbox=bubblewrap", "steps=1",
        "repos.train=[sample-ledger]", "curriculum.num_groups=1", "curriculum.seeds_per_group=1",
        "curriculum.samples_per_seed=2", "curriculum.group_size=2", "injector=direct",
        "curriculum.higher_order=0", f"runs_dir={tmp_path}",
    )  # fmt: skip
    lines = (tmp_path / "samples" / "episodes.jsonl").read_text().splitlines()
    episodes = [json.loads(line) for line in lines]
    assert [e["role"] for e in episodes] == ["injector"] * 2 + ["solver"] * 2
    assert {e["status"] for e in episodes} == {"completed"}
    assert {e["reward"] for e in episodes if e["role"] == "solver"} == {1.0}
    assert {e["reward"] for e in episodes if e["role"] == "injector"} == {-0.8}  # always solved
    summary = json.loads((tmp_path / "samples" / "summary.json").read_text())
    assert summary["num_valid_bugs"] == 1 and summary["solve_rate_last"] == 1.0


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    words = ("inject", "policy=scripted", "repo=sample-ledger", f"out={tmp_path}")
    odd = selfplay(*words, "scaffold.kind=odd", "sandbox=bubblewrap", code=2)
    assert "must be one of compact, feedback, agentic" in odd.stderr
    none = selfplay(*words, "scaffold=agentic", "scaffold.agent.max_turns=0", code=2)
    assert "scaffold.agent.max_turns=0" in none.stderr
    empty = selfplay("episode", "show", f"run={tmp_path}/none", code=2)
    assert "no episodes.jsonl" in empty.stderr


def test_long_texts_are_clipped() -> None:
    text = "\n".join(map(str, range(100)))
    assert clipped(text, 4) == "0\n1\n[... 96 lines ...]\n98\n99"
    assert clipped("a\udce9\x1b[2J", 4) == r"a\udce9\x1b[2J"
    assert turn_text(2, "", "", {}, "No call.") == "-- turn 2: no call\n->\nNo call.\n"
