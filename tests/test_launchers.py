"""The launchers of scripts/: their syntax, and the commands that a dry run prints."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from selfplay.config import TrainConfig, load_config

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def dry(script: str, *words: str, **variables: str) -> list[list[str]]:
    done = subprocess.run(
        ["bash", str(SCRIPTS / script), *words],
        capture_output=True, text=True, check=True, env={**os.environ, "DRY": "1", **variables},
    )  # fmt: skip
    return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("launch_*.sh")), ids=lambda path: path.name)
def test_syntax(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_local_and_ray() -> None:
    [one] = dry("launch_local.sh", "name=x", "repos.train=[a,b]")
    assert one[1:] == ["-m", "selfplay", "train", "name=x", "repos.train=[a,b]"]
    [several] = dry("launch_local.sh", "name=x", LEARNERS="4")
    assert several[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "4"]
    [head] = dry("launch_ray.sh", "head")
    assert head[-1] == '{"sandbox_slots": 0}' and "--disable-usage-stats" in head
    [node] = dry("launch_ray.sh", "node", "h:1", "8")
    assert node[2:4] == ["--address", "h:1"] and node[-1] == '{"sandbox_slots": 8}'
    [train] = dry("launch_ray.sh", "train", "sandbox.cluster.address=h:1")
    config = load_config(TrainConfig, "train", train[4:])
    assert (config.sandbox.cluster.name, config.sandbox.cluster.address) == ("ray", "h:1")


def test_slurm(tmp_path: Path) -> None:
    control = tmp_path / "scontrol"
    control.write_text("#!/bin/bash\nprintf 'n1\\nn2\\nn3\\n'\n")
    control.chmod(0o755)
    lines = dry(
        "launch_slurm.sh", "name=x", PATH=f"{tmp_path}:{os.environ['PATH']}",
        SLURM_SUBMIT_DIR=str(SCRIPTS.parent), SLURM_JOB_NODELIST="n[1-3]", SLURM_NNODES="3",
        SLURM_JOB_ID="7",
    )  # fmt: skip
    assert sorted(line[line.index("-w") + 1] for line in lines) == ["n1", "n1", "n2", "n3"]
    assert any("sandbox.cluster.address=n1:20007" in line and "name=x" in line for line in lines)
    [alone] = dry(
        "launch_slurm.sh", "name=y", SLURM_NNODES="1", SLURM_SUBMIT_DIR=str(SCRIPTS.parent)
    )
    assert alone == ["bash", "scripts/launch_local.sh", "name=y"]
