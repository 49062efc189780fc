"""Many procedural bugs from one command: killed at random, none is lost and none is double."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from selfplay.commands.harvest import summary
from selfplay.corpus.corpus import Corpus
from selfplay.sandbox.pool import LOOK_AHEAD, SandboxPool
from selfplay.sandbox.select import open_sandbox

NUM_TRIES = 12


def command(out: Path) -> list[str]:
    return [
        sys.executable, "-m", "selfplay", "inject", "repo=[sample-ledger,sample-textkit]",
        "source=procedural", f"n={NUM_TRIES}", "sandbox=bubblewrap", f"out={out}", "json=true",
    ]  # fmt: skip


def harvest(out: Path) -> list[dict[str, Any]]:
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_as_if_it_had_never_been(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = {row["task_id"]: row for row in harvest(whole)}
    assert len(expected) == 2 * NUM_TRIES
    rng = random.Random(0)
    for num_lines in (2, 9):
        process = subprocess.Popen(
            command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        tries = killed / "tries.jsonl"
        deadline = time.monotonic() + 300
        while not tries.is_file() or tries.read_bytes().count(b"\n") < num_lines:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(rng.random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with tries.open("a") as stream:
        stream.write('{"repo": "sample-led')  # torn by a kill
    rows = harvest(killed)
    assert {row["task_id"]: row for row in rows} == expected and len(rows) == len(expected)
    ids = sorted(row["bug_id"] for row in rows if row["bug_id"])
    with Corpus(killed / "corpus.sqlite") as corpus:
        assert sorted(bug.task.bug_id for bug in corpus.bugs()) == ids
    assert {path.name for path in (killed / "artifacts").iterdir()} >= set(ids)
    again = harvest(killed)
    assert {row["task_id"]: row for row in again} == expected, "nothing is left to do"
    (ledger, textkit) = sorted(summary(rows))
    assert ledger[:2] == ["sample-ledger", NUM_TRIES] and ledger[2] + textkit[2] == len(ids)


def test_a_slow_item_does_not_stop_the_others() -> None:
    begun: list[int] = []
    pool, go = SandboxPool(open_sandbox("bubblewrap"), 2), threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            go.wait(20)
        if len(begun) == LOOK_AHEAD:
            go.set()
        return number

    assert list(pool.imap(work, iter(range(40)))) == list(range(40))
    endless = pool.imap(work, iter(int, 1))
    go.set()
    assert [next(endless), next(endless)] == [0, 0]
    endless.close()  # type: ignore[attr-defined]
    pool.close()


@pytest.mark.slow
def test_a_killed_policy_run_goes_on(tmp_path: Path) -> None:
    """What was judged is stored batch by batch; nothing is asked or stored twice."""
    words = ["inject", "repo=sample-ledger", "policy=scripted", "n=40", f"out={tmp_path}"]
    argv = [sys.executable, "-m", "selfplay", *words, "sandbox=bubblewrap", "json=true"]
    file = tmp_path / "episodes.jsonl"
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not file.is_file() or not file.read_text().count("\n"):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = file.read_text()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "selfplay: going on after " in done.stderr
    assert file.read_text().startswith(before[: before.rindex("\n") + 1])
    ids = [json.loads(line)["episode_id"] for line in file.read_text().splitlines()]
    assert len(ids) == len(set(ids)) == len(json.loads(done.stdout))
    assert not (tmp_path / "inject.json").exists()
