"""The launchers of scripts/: their syntax, and the commands that a dry run prints."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

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


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that the sandbox's user can enter, as a checkout on a shared file system is."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
def test_a_slurm_job_makes_a_cluster_and_trains_on_it(tmp_path: Path, open_folder: Path) -> None:
    """Real Ray, real sandboxes; Slurm's two commands run what they are given on this machine. The
    node comes after the run, which waits for it; in the end nothing of the cluster is left."""
    pytest.importorskip("ray")
    folder = tmp_path / "bin"
    folder.mkdir()
    commands = {
        "scontrol": "printf '127.0.0.1\\nn2\\n'",
        "srun": 'while [ "${1:0:2}" = -- ]; do shift; done\n'
        'if [ "$2" = n2 ]; then sleep 20; fi\nshift 2\nexec "$@"',
    }
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    checkout = open_folder / "checkout"
    checkout.mkdir()
    for name in ("scripts", "selfplay", "conf", "repos"):
        (checkout / name).symlink_to(SCRIPTS.parent / name)
    (checkout / ".venv/bin").mkdir(parents=True)
    for name in ("python", "ray"):
        found = Path(sys.executable).with_name(name)
        (checkout / ".venv/bin" / name).write_text(f'#!/bin/bash\nexec {found} "$@"\n')
        (checkout / ".venv/bin" / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(SCRIPTS / "launch_slurm.sh"), "experiment=samples", "steps=1", "name=job",
         f"runs_dir={tmp_path}", "sandbox=bubblewrap", "metrics.report=false"],
        capture_output=True, text=True, timeout=280,
        env={
            **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PORT": str(port),
            "PYTHONPATH": str(SCRIPTS.parent), "SLURM_SUBMIT_DIR": str(checkout),
            "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "waiting for the first node" in done.stderr
    assert (tmp_path / "job" / "summary.json").is_file()
    until = time.monotonic() + 30
    while port_is_taken(port) and time.monotonic() < until:
        time.sleep(0.5)
    assert not port_is_taken(port), "the head outlived its job"


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
