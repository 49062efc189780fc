"""`torchrun -m selfplay train`: the real command on two processes, resumed on one, exported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.cli import main
from tests.learner.tiny import TinyChatModel

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RUN = (
    "experiment=samples", "policy=transformers", "policy.adapter=null", "policy.max_new_tokens=12",
    "learner=full", "sandbox=bubblewrap", "repos.train=[sample-textkit]",
    "scaffold.max_prompt_tokens=6000", "metrics.tensorboard=false",
    "curriculum.num_groups=1", "curriculum.seeds_per_group=1", "curriculum.group_size=2",
)  # fmt: skip


def selfplay(
    *words: str, launcher: tuple[str, ...] = (), code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "selfplay", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_two_ranks_run_and_one_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    TinyChatModel().save_to(tmp_path / "model")
    words = (*RUN, f"policy.model={tmp_path / 'model'}", f"runs_dir={tmp_path}")
    selfplay("train", *words, "steps=1", launcher=TORCHRUN)
    run = tmp_path / "samples"
    first = run / "checkpoints" / "step_0" / "state"
    assert {file.name for file in first.iterdir()} == {
        ".metadata", "__0_0.distcp", "__1_0.distcp",
    }  # fmt: skip
    assert (run / "weights" / "step_0" / "model.safetensors").is_file()
    stderr = selfplay("train", *words, "steps=2").stderr
    assert "resuming" in stderr and "at step 1" in stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    out = tmp_path / "out"
    selfplay("export", f"run={run}", "format=hf", "step=0", f"out={out}")
    loaded = AutoModelForCausalLM.from_pretrained(str(out))
    assert loaded.num_parameters() > 0 and AutoTokenizer.from_pretrained(str(out)).chat_template
    assert main(["export", f"run={run}", "format=hf", f"out={out}"]) == 2
    assert main(["export", f"run={run}", "format=hf", "step=7", f"out={out}2"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "name a new directory" in errors[-2] and "there are: step_0, step_1" in errors[-1]


def test_only_training_is_started_by_torchrun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["doctor"]) == 2
    assert "only `train` is started by torchrun" in capsys.readouterr().err
    assert main(["train", "experiment=samples"]) == 2
    assert "learner=none" in capsys.readouterr().err
