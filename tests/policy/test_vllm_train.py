"""`selfplay train policy=vllm`: a real server samples, and gets the weights that are trained."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from selfplay.config import VLLMConfig
from selfplay.errors import UserError
from selfplay.policy.http import Refused
from selfplay.policy.vllm.client import VLLMClient
from selfplay.policy.vllm.interpreter import find_python
from selfplay.policy.vllm.server import TOKEN_VARIABLE
from tests.process_tree import command_of, processes_below

ROOT = Path(__file__).resolve().parents[2]
WORDS = (
    "experiment=samples", "policy=vllm", "learner=lora", "sandbox=bubblewrap",
    "curriculum.group_size=4", "curriculum.num_groups=2", "curriculum.seeds_per_group=4",
    "curriculum.samples_per_seed=2", "policy.vllm.kv_cache_gib=1",
    "policy.vllm.max_model_len=2048", "policy.vllm.start_timeout_s=3000",
)  # fmt: skip


def train(runs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfplay", "train", *WORDS, f"runs_dir={runs}", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1500,
    )


@pytest.mark.model
@pytest.mark.slow
def test_a_server_killed_while_rounds_are_ahead_costs_nothing(tmp_path: Path) -> None:
    """The servers follow what is trained; one that comes back has the weights of now, and what it
    was asked is asked again: each round counts once, and each log-probability is of the weights
    that it names."""
    try:
        find_python(VLLMConfig().python)
    except UserError as error:
        pytest.skip(f"vLLM is not installed: {error}")
    run = tmp_path / "samples"
    words = (*WORDS, f"runs_dir={tmp_path}", "steps=3", "curriculum.max_staleness=1")
    words += ("curriculum.max_fresh_groups=6", "reward.unplayed=expected")
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "selfplay", "train", *words, "curriculum.max_idle_steps=9"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=said,
        )
    num_killed, deadline = 0, time.monotonic() + 3000
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(1.0)
        if num_killed < 2 and len(lines(run / "metrics.jsonl")) >= num_killed + 1:
            num_killed += kill_servers(process.pid)
    assert process.wait(60) == 0, (tmp_path / "said").read_text()[-3000:]
    assert num_killed == 2
    rows, episodes = lines(run / "metrics.jsonl"), lines(run / "episodes.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2]
    names = [episode["episode_id"] for episode in episodes]
    assert len(set(names)) == len(names)
    assert {episode["info"]["step"] for episode in episodes} == {0, 1, 2}
    for episode in episodes:
        assert (episode["reward"] is None) == (episode["status"] == "errored")
    assert any(0 < row.get("curriculum/gold_probability", 0) < 1 for row in rows), "by the servers"
    trained = [row for row in rows if row["learner/groups_trained"]]
    assert trained and max(row["learner/mismatch_kl"] for row in trained) < 0.05
    assert all(row["learner/weight_update_s"] > 0 for row in trained)
    versions = [int(row.get("learner/policy_version", 0)) for row in rows]
    assert versions[-1] >= 1 and versions == sorted(versions)
    for step in (1, 2):  # begun one round ahead at most: on the weights of the step before, or its
        sound = [e for e in episodes if e["info"]["step"] == step and e["status"] != "errored"]
        played = {episode["policy_version"] for episode in sound}
        assert played <= {*range(versions[step - 2] if step > 1 else 0, versions[step - 1] + 1)}
    assert (run / "weights" / "step_2" / "adapter_config.json").is_file()
    assert not (run / "weights" / "served").exists()
    state = json.loads((run / "controller.json").read_text())["steps"]["2"]
    assert state["next"] == 3 and not state["begun"]


@pytest.mark.model
@pytest.mark.slow
def test_adapters_go_to_a_server_that_outlives_a_killed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 0, those of steps, the restored one; nothing of either process stays there. The run
    is started together with the server, and waits for it."""
    try:
        find_python(VLLMConfig().python)
    except UserError as error:
        pytest.skip(f"vLLM is not installed: {error}")
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "scripts" / "launch_vllm.py"), "smollm2-135m"]
    command += ["--port", str(port), "--max-model-len", "2048", "--kv-cache-gib", "1"]
    with (tmp_path / "server").open("wb") as said:
        server = subprocess.Popen(
            [*command, "--lora-rank", "16"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1500",
            },
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    client = VLLMClient(url, num_connections=4, timeout_s=60, token="secret")
    run = tmp_path / "samples"
    words = ("policy.vllm.publish=adapter", f"policy.vllm.urls=[{url}]")
    try:
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "selfplay", "train", *WORDS, f"runs_dir={tmp_path}", *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        deadline = time.monotonic() + 1500
        while not lines(run / "metrics.jsonl") and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "said").read_text()[-3000:]
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        names = client.served()
        assert len(names) == 2, "the model, and the adapter of the killed run alone"
        done = train(tmp_path, *words, "steps=2")
        assert done.returncode == 0, done.stderr[-2000:]
        assert client.served().keys() == {"policy"}
        with pytest.raises(Refused, match=r"401.*a token is wanted"):
            VLLMClient(url, num_connections=1, timeout_s=60).http.post("/pause?mode=keep")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    rows, episodes = lines(run / "metrics.jsonl"), lines(run / "episodes.jsonl")
    assert [row["step"] for row in rows] == [0, 1]
    trained = [row for row in rows if row["learner/groups_trained"]]
    assert trained and max(row["learner/mismatch_kl"] for row in trained) < 0.05
    assert all(row["learner/weight_update_s"] > 0 for row in trained)
    want = int(rows[0].get("learner/policy_version", 0))
    last = {e["episode_id"]: e for e in episodes if e["episode_id"].startswith("step1/")}
    assert {episode["policy_version"] for episode in last.values()} == {want}
    assert not (run / "weights" / "served").exists()


def lines(file: Path) -> list[dict[str, Any]]:
    found = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in found if line.endswith("\n")]


def kill_servers(pid: int) -> bool:
    """SIGKILL to vLLM's processes below a run, the guards above them left alone."""
    below = {child: command_of(child).lower() for child in processes_below(pid)}
    servers = [p for p, words in below.items() if b"vllm" in words and b"guard.py" not in words]
    for server in servers:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
    return bool(servers)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    done = train(tmp_path, "policy.top_p=0.9")
    assert done.returncode == 2 and "policy.top_p=0.9" in done.stderr
    done = train(tmp_path / "openai", "policy=openai")
    assert done.returncode == 2 and "no weights to train" in done.stderr
