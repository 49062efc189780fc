"""`selfplay train task=commits`: the solver alone on mined commits, or on an earlier run's bugs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.commands.played import with_issue
from selfplay.commands.suites import read_tasks, suite_spec
from selfplay.config import CurriculumConfig, ReposConfig, TrainConfig
from selfplay.corpus.suite import read_suite, write_suite
from selfplay.errors import UserError
from selfplay.repo.spec import LocalSource, PypiSource

SHOP = """def cheap(prices, limit):
    return [price for price in prices if price < limit]


def change(paid, price):
    return price - paid


def total(prices):
    found = 0
    for price in prices:
        found = found + price
    return found
"""
TESTS = "import shop\n\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n"
CHEAP = "\n\ndef test_cheap():\n    assert shop.cheap([1, 2, 3], 2) == [1, 2]\n"
CHANGE = "\n\ndef test_change():\n    assert shop.change(5, 3) == 2\n"
COMMITS = (
    ("Begin", SHOP, TESTS),
    ("A limit is what is allowed\n\nPrices at the limit are cheap.\n",
     SHOP.replace("price < limit", "price <= limit"), TESTS + CHEAP),
    ("Give the right change", SHOP.replace("price < limit", "price <= limit").replace(
        "price - paid", "paid - price"), TESTS + CHEAP + CHANGE),
)  # fmt: skip
SCRIPTED = ("policy=scripted", "learner=none", "sandbox=bubblewrap", "curriculum.group_size=4")


def selfplay(*words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "selfplay", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout)


def train(*words: str) -> subprocess.CompletedProcess[str]:
    done = selfplay("train", "task=commits", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite of two real fixes of a small project."""
    work = tmp_path_factory.mktemp("mined") / "shop"
    work.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=work, check=True)
    for message, source, tests in COMMITS:
        (work / "shop.py").write_text(source)
        (work / "test_shop.py").write_text(tests)
        subprocess.run(["git", "add", "-A"], cwd=work, check=True)
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *who, "commit", "-qm", message], cwd=work, check=True)
    out = work.parent / "shop.jsonl"
    done = selfplay("mine", f"repo={work}", f"out={out}", "sandbox=bubblewrap")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(read_suite(out)) == 2
    return out


@pytest.fixture(scope="module")
def run(mined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of the scripted policy, killed once after the first episodes."""
    runs = tmp_path_factory.mktemp("runs")
    words = [*SCRIPTED, f"commits={mined}", "steps=2", f"runs_dir={runs}", "name=commits"]
    argv = [sys.executable, "-m", "selfplay", "train", "task=commits", *words]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (runs / "commits" / "episodes.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train(*words)
    return runs / "commits"


def test_the_solver_plays_alone_and_everything_is_left_behind(run: Path) -> None:
    rows = lines(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["injector/num_injections"] == 0 for row in rows)
    assert all(row["solver/num_attempts"] == 8 for row in rows)  # two tasks, four attempts
    assert sum(row["solver/num_resolved"] for row in rows) > 0
    played = [e for e in lines(run / "episodes.jsonl") if e["try"] == 2]
    assert {e["role"] for e in played} == {"solver"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_valid_bugs"] == 0 and summary["valid_rate_first"] is None
    assert summary["details"]["task"] == "commits"
    assert summary["details"]["num_given_tasks"] == 2
    assert len(json.loads((run / "tasks.json").read_text())["tasks"]) == 2


def test_a_clone_of_a_known_project_is_what_was_mined(mined: Path, tmp_path: Path) -> None:
    """Its name is that of a release in `repos/`, which has none of its commits."""
    (tmp_path / "shop.yaml").write_text("source: {pypi: {project: shop, version: '1.0'}}\n")
    task, config = read_suite(mined)[0], ReposConfig(directory=str(tmp_path))
    assert suite_spec(task, config).source == LocalSource(path=str(mined.parent / "shop"))
    gone = {"source": {"local": {"path": str(tmp_path / "gone")}}}
    elsewhere = replace(task, environment={**task.environment, **gone})
    assert isinstance(suite_spec(elsewhere, config).source, PypiSource)


def test_what_it_played_on_is_found_again(run: Path, mined: Path) -> None:
    """A run of given tasks is a suite as any run is, and can be repaired again."""
    tasks = {task.solve_task.bug_id: task for task in read_tasks(run)}
    assert set(tasks) == {task.solve_task.bug_id for task in read_suite(mined)}
    assert all(task.environment["source"] for task in tasks.values())
    done = selfplay("evaluate", f"suite={run}", "policy=scripted", "num_samples=1",
                    "sandbox=bubblewrap", "json=true")  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["num_tasks"] == 2


def test_another_suite_under_the_same_name_is_refused(run: Path, mined: Path) -> None:
    fewer = mined.parent / "fewer.jsonl"
    write_suite(read_suite(mined)[:1], fewer)
    words = [*SCRIPTED, "steps=3", f"runs_dir={run.parent}", "name=commits"]
    done = selfplay("train", "task=commits", f"commits={fewer}", *words)
    assert done.returncode == 2 and "commits" in done.stderr


def test_similarity_rewards_without_tests_shown(mined: Path, tmp_path: Path) -> None:
    """SWE-RL's recipe: issue and code in, likeness to the commit's own patch out."""
    train(*SCRIPTED, f"commits={mined}", "reward=similarity", "scaffold.show_tests=false",
          "issue=subject", "steps=1", f"runs_dir={tmp_path}", "name=similar")  # fmt: skip
    played = lines(tmp_path / "similar" / "episodes.jsonl")
    rewards = [episode["reward"] for episode in played]
    assert all(reward == -1.0 or 0.0 <= reward <= 1.0 for reward in rewards)
    assert len(set(rewards)) > 1
    resolved = [e for e in played if e["reason"] in ("", "resolved")]
    assert all(episode["reward"] > 0.5 for episode in resolved)
    for episode in played:
        ids = episode["trajectory"]["token_ids"]
        prompt = bytes(i for i in ids if i < 256).decode()
        assert "Failing tests:" not in prompt and "assert shop" not in prompt
        assert "right change" in prompt or "what is allowed" in prompt
        assert "Prices at the limit" not in prompt  # of the message, the subject alone


def test_the_bugs_of_an_earlier_run_are_repaired(tmp_path: Path) -> None:
    first = ("experiment=samples", "sandbox=bubblewrap", "steps=1", f"runs_dir={tmp_path}")
    assert selfplay("train", *first).returncode == 0
    bugs = {task.solve_task.bug_id for task in read_tasks(tmp_path / "samples")}
    train(*SCRIPTED, f"commits={tmp_path / 'samples'}", "curriculum.num_tasks=2", "steps=1",
          f"runs_dir={tmp_path}", "name=repairs", "issue=template")  # fmt: skip
    played = lines(tmp_path / "repairs" / "episodes.jsonl")
    assert len({e["bug_id"] for e in played}) == 2 and {e["bug_id"] for e in played} <= bugs
    assert json.loads((tmp_path / "repairs" / "summary.json").read_text())["num_valid_bugs"] == 0


def test_wrong_inputs_are_told(mined: Path, tmp_path: Path) -> None:
    empty, gone, foreign = (tmp_path / f"{name}.jsonl" for name in ("empty", "gone", "foreign"))
    empty.write_text("")
    nowhere = {"repo": "nowhere", "source": {"local": {"path": str(tmp_path / "nowhere")}}}
    tasks = read_suite(mined)
    write_suite(
        [
            replace(t, environment=nowhere, solve_task=replace(t.solve_task, repo="nowhere"))
            for t in tasks
        ],
        gone,
    )
    other = [
        replace(
            t.solve_task.artifact,
            bug_patch=t.solve_task.artifact.bug_patch.replace("shop.py", "store.py"),
        )
        for t in tasks
    ]
    write_suite(
        [
            replace(t, solve_task=replace(t.solve_task, artifact=artifact))
            for t, artifact in zip(tasks, other, strict=True)
        ],
        foreign,
    )
    for file, reason in (
        (empty, "holds no task"),
        (tmp_path / "missing.jsonl", "cannot be read"),
        (gone, "none of its tasks can be played here"),
        (foreign, "do not fit the source"),
    ):
        words = (*SCRIPTED, f"commits={file}", "steps=1", f"runs_dir={tmp_path}", "name=wrong")
        done = selfplay("train", "task=commits", *words)
        assert done.returncode == 2, done.stderr[-2000:]
        assert f"commits={file}" in done.stderr and reason in done.stderr.splitlines()[-1]


def test_keys_that_do_not_go_together_are_told() -> None:
    with pytest.raises(UserError, match="belong together"):
        TrainConfig(task="commits")
    with pytest.raises(UserError, match="belong together"):
        TrainConfig(commits="a.jsonl")
    with pytest.raises(UserError, match="task='repairs'"):
        TrainConfig(task="repairs")
    with pytest.raises(UserError, match="real bugs alone"):
        TrainConfig(task="commits", commits="a", curriculum=CurriculumConfig(human_suite="b"))
    with pytest.raises(UserError, match="num_tasks=0"):
        CurriculumConfig(num_tasks=0)


def test_issue_texts(mined: Path) -> None:
    task = next(
        t.solve_task for t in read_suite(mined) if "limit" in t.solve_task.problem_statement
    )
    assert with_issue(task, "message") == task
    assert with_issue(task, "subject").problem_statement == "A limit is what is allowed"
    assert with_issue(task, "none").problem_statement == ""
    assert "test_cheap" in with_issue(task, "template").problem_statement


@pytest.mark.model
@pytest.mark.slow
def test_the_real_model_learns_from_commits_and_goes_on(mined: Path, tmp_path: Path) -> None:
    """Likeness differs from answer to answer: groups have variance, weights move, a later start
    goes on from the checkpoint."""
    words = (
        "policy=transformers", "learner=lora", "sandbox=bubblewrap", f"commits={mined}",
        "reward=similarity", "curriculum.group_size=4", f"runs_dir={tmp_path}", "name=model",
    )  # fmt: skip
    train(*words, "steps=1")
    done = train(*words, "steps=2")
    assert "resuming" in done.stderr
    rows = lines(tmp_path / "model" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1]
    assert sum(row["learner/groups_trained"] for row in rows) > 0
    assert max(abs(row.get("learner/mismatch_kl", 0.0)) for row in rows) < 0.05
