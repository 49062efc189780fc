"""`selfplay train policy=vllm`: a real server samples, and gets the weights that are trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.config import VLLMConfig
from selfplay.errors import UserError
from selfplay.policy.vllm.server import find_python

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
def test_two_steps_and_the_servers_follow(tmp_path: Path) -> None:
    try:
        find_python(VLLMConfig().python)
    except UserError as error:
        pytest.skip(f"vLLM is not installed: {error}")
    done = train(tmp_path, "steps=2")
    assert done.returncode == 0, done.stderr[-2000:]
    run = tmp_path / "samples"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and sum(row["learner/groups_trained"] for row in rows) > 0
    versions = [row["learner/policy_version"] for row in rows if "learner/policy_version" in row]
    assert versions[-1] >= 1 and versions == sorted(versions)
    trained = [row for row in rows if row["learner/groups_trained"]]
    assert all(row["learner/weight_update_s"] > 0 for row in trained)
    assert max(row["learner/mismatch_kl"] for row in trained) < 0.05
    episodes = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    second = {e["policy_version"] for e in episodes if e["episode_id"].startswith("step1/")}
    want = int(rows[0].get("learner/policy_version", 0))
    assert second == {want}, "the second step was played on the first one's weights"
    assert (run / "weights" / "step_1" / "adapter_config.json").is_file()
    assert not (run / "weights" / "served").exists()


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    done = train(tmp_path, "policy.top_p=0.9")
    assert done.returncode == 2 and "policy.top_p=0.9" in done.stderr
    done = train(tmp_path / "openai", "policy=openai")
    assert done.returncode == 2 and "no weights to train" in done.stderr
