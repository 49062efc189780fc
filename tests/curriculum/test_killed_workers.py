"""`selfplay train` with rounds ahead, whose sandboxes and judging processes are killed singly.

What is asked and answered depends on names alone here, so a run that nobody disturbed tells what
each episode is worth.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

from selfplay.corpus.corpus import Corpus
from selfplay.sandbox.docker.sandbox import LABEL
from tests.process_tree import command_of, processes_below

NAME, STEPS = "samples", 5
WORDS = (
    "experiment=samples", f"steps={STEPS}", "repos.train=[sample-textkit]",
    "sandbox.num_workers=2", "sandbox.num_judges=1", "metrics.report=false",
    "metrics.tensorboard=false", "curriculum.max_staleness=1", "curriculum.sampler=uniform",
    "curriculum.num_groups=1", "curriculum.seeds_per_group=3", "curriculum.samples_per_seed=1",
    "curriculum.group_size=4", "curriculum.higher_order=0", "curriculum.max_idle_steps=1000",
    "curriculum.max_bugs_per_function=1000",
)  # fmt: skip
PAUSE_S = 0.15
TIMEOUT_S = 600.0


@contextmanager
def started(runs: Path, sandbox: str) -> Iterator[subprocess.Popen[bytes]]:
    words = [*WORDS, f"runs_dir={runs}", f"sandbox={sandbox}"]
    runs.mkdir()
    with (runs / "said").open("wb") as said:
        argv = [sys.executable, "-m", "selfplay", "train", *words]
        process = subprocess.Popen(argv, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kind_of(pid: int) -> str | None:
    """What a process below a run is to it; None: none of its workers."""
    command = command_of(pid)
    if b"multiprocessing.spawn" in command:
        return "judge"
    if b"bwrap " not in command:
        return None
    return "interpreter" if b"/fork_server.py" in command else "sandbox"


def containers_of(pid: int) -> dict[str, list[Callable[[], None]]]:
    """Kills of the containers that a run and the processes below it started; {} for none."""
    owners = {f"-{one}-" for one in (pid, *processes_below(pid))}
    with suppress(docker.errors.DockerException), closing(docker.from_env()) as client:
        found = client.containers.list(filters={"label": LABEL}, ignore_removed=True)
        mine = [c.id for c in found if any(own in c.labels[LABEL] for own in owners)]
        return {"container": [partial(kill_container, name) for name in mine]} if mine else {}
    return {}


def kill_container(name: str) -> None:
    with closing(docker.from_env()) as client:
        client.containers.get(name).kill()


def num_reported(run: Path) -> int:
    """Bugs and rounds on disk."""
    file = run / "episodes.jsonl"
    bugs = (run / "artifacts").iterdir() if (run / "artifacts").is_dir() else ()
    return len([*bugs]) + (file.stat().st_size if file.exists() else 0)


def kill_on_and_on(process: subprocess.Popen[bytes], run: Path, sandbox: str) -> Counter[str]:
    """One worker after the other, from the first bug on and until the run ends: at once, so that
    a second try is hit as well, or when there is something more on disk. How many of each kind."""
    rng, kills = random.Random(0), Counter[str]()
    deadline, known, at_once = time.monotonic() + TIMEOUT_S, 0, False
    while process.poll() is None:
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(rng.uniform(0.0, 2 * PAUSE_S))
        if num_reported(run) <= known and not at_once:
            continue
        found: dict[str, list[Callable[[], None]]] = {}
        for pid in processes_below(process.pid):
            if kind := kind_of(pid):
                found.setdefault(kind, []).append(partial(os.kill, pid, signal.SIGKILL))
        if sandbox == "docker":
            found |= containers_of(process.pid)
        if found:
            kind = rng.choice(sorted(found))
            with suppress(ProcessLookupError, docker.errors.DockerException):
                rng.choice(found[kind])()
                kills[kind] += 1
            known, at_once = num_reported(run), rng.random() < 0.4
    return kills


def episodes(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]


def check_whole(run: Path, found: list[dict[str, Any]]) -> None:
    """Each round once, each episode once, every slot free; errored is what has no reward."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    state = json.loads((run / "controller.json").read_text())["steps"][str(STEPS - 1)]
    assert state["next"] == STEPS and not state["begun"]
    names = [episode["episode_id"] for episode in found]
    assert len(set(names)) == len(names)
    assert {episode["info"]["step"] for episode in found} == set(range(STEPS))
    for episode in found:
        assert (episode["reward"] is None) == (episode["status"] == "errored"), episode


def check_corpus(run: Path, found: list[dict[str, Any]]) -> None:
    """It holds what the episodes say."""
    with Corpus(run / "corpus.sqlite", read_only=True) as corpus:
        kept = {bug.task.bug_id: corpus.attempts(bug.task.bug_id) for bug in corpus.bugs()}
    attempts = {a["episode_id"]: a for group in kept.values() for a in group}
    assert {e["episode_id"] for e in found if e["role"] == "solver"} == set(attempts)
    for episode in found:
        if episode["role"] == "solver":
            judged = attempts[episode["episode_id"]]
            assert judged["errored"] == (episode["reward"] is None)
            assert judged["resolved"] == (episode["reward"] == 1.0)
        elif episode["bug_id"] and episode["reason"] != "duplicate":
            assert episode["bug_id"] in kept


def num_judged_alike(
    found: list[dict[str, Any]], undisturbed: list[dict[str, Any]], said: str
) -> int:
    """Equal answers to equal questions have equal verdicts; how many there are."""
    right, number = {episode["episode_id"]: episode for episode in undisturbed}, 0
    for episode in found:
        other = right.get(episode["episode_id"])
        reasons = {episode["reason"], other["reason"] if other else "duplicate"}
        if other is None or episode["status"] == "errored" or "duplicate" in reasons:
            continue  # a bug that was lost leaves its place to one like it
        if episode["trajectory"]["token_ids"] != other["trajectory"]["token_ids"]:
            assert "lines could not be recorded" in said, "asked with less told, not judged wrongly"
            continue
        assert len(reasons) == 1, (reasons, episode["episode_id"])
        # what a bug earns depends on how many of its attempts were lost
        assert episode["role"] == "injector" or episode["reward"] == other["reward"]
        number += 1
    return number


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Episodes of the run that nobody disturbed, in the quicker sandbox: both judge alike."""
    runs = tmp_path_factory.mktemp("undisturbed") / "quiet"
    with started(runs, "bubblewrap") as process:
        assert process.wait(TIMEOUT_S) == 0, (runs / "said").read_text()[-3000:]
    found = episodes(runs / NAME)
    assert not any(episode["status"] == "errored" for episode in found)
    return found


@pytest.mark.parametrize(
    "sandbox", ["bubblewrap", pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.slow])]
)
def test_a_run_whose_workers_are_killed_loses_nothing_and_scores_nothing_wrong(
    tmp_path: Path, sandbox: str, undisturbed: list[dict[str, Any]]
) -> None:
    hit = tmp_path / "hit"
    with started(hit, sandbox) as process:
        kills = kill_on_and_on(process, hit / NAME, sandbox)
    said = (hit / "said").read_text()
    assert process.returncode == 0, said[-3000:]
    assert kills.total() >= 4 and len(kills) >= 2 and "trying once more" in said, kills

    found = episodes(hit / NAME)
    check_whole(hit / NAME, found)
    check_corpus(hit / NAME, found)
    assert num_judged_alike(found, undisturbed, said) >= 5
