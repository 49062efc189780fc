"""The launchers of scripts/: their syntax, and the commands that a dry run prints."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


def test_learner_of_several_machines() -> None:
    where = {"LEARNERS": "2", "LEARNER_NODES": "2", "NODE_RANK": "1", "HEAD": "n1"}
    [rank] = dry("launch_ray.sh", "train", "name=x", **where)
    launched = rank[rank.index("torch.distributed.run") + 1 : rank.index("selfplay") - 1]
    assert " ".join(launched) == (
        "--nproc-per-node 2 --nnodes 2 --node-rank 1 --master-addr n1 --master-port 29500"
    )
    assert rank[rank.index("selfplay") :] == ["selfplay", "train", "cluster=ray", "name=x"]


def test_ray_of_two_users_of_one_machine(tmp_path: Path) -> None:
    """ray-project/ray#4593: /tmp/ray belongs to the first, and the second cannot write in it."""
    stand_in(tmp_path / "ray", "echo $RAY_TMPDIR ${RAY_ADDRESS:-nowhere}")
    variables = {"PYTHON": str(tmp_path / "python")}
    done = subprocess.run(
        ["bash", str(SCRIPTS / "launch_ray.sh"), "head"], capture_output=True, text=True,
        check=True, env={**without_ray(), **variables, "RAY_ADDRESS": "elsewhere:6379"},
    )  # fmt: skip
    assert done.stdout == f"/tmp/ray-{os.getuid()} nowhere\n"


def without_ray() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def stand_in(file: Path, text: str) -> None:
    """A command that does what `text`, a Bash script, says."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


class PretendSlurm:
    """A job whose first node is this machine. `srun` runs a node's own script, with what it was
    given as `$@`; `scontrol requeue` notes the job in the file `requeued`."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.requeued = folder / "requeued"
        names = ["127.0.0.1", *(f"n{i}" for i in range(2, len(nodes) + 1))]
        stand_in(
            folder / "scontrol",
            f'if [ "$1" = requeue ]; then echo "$2" >>{self.requeued}; exit; fi\n'
            f"printf '%s\\n' {' '.join(names)}",
        )
        cases = "\n".join(f"{name}) {text} ;;" for name, text in zip(names, nodes, strict=True))
        stand_in(
            folder / "srun",
            'while [ "${1:0:2}" = -- ]; do shift; done\nnode=$2\nshift 2\n'
            f'case "$node" in\n{cases}\nesac',
        )
        self.environ = {
            **without_ray(), "PATH": f"{folder}:{os.environ['PATH']}", "PORT": str(self.port),
            "SLURM_JOB_NODELIST": f"n[1-{len(nodes)}]", "SLURM_NNODES": str(len(nodes)),
            "SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(SCRIPTS.parent),
            "START_S": "0",  # no stand-in is Ray, which may give up after its port has opened
        }  # fmt: skip

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPTS / "launch_slurm.sh"), *words], env={**self.environ, **variables},
            text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self, **variables: str) -> tuple[int, str]:
        """Exit code and words of a job that ends by itself."""
        job = self.start(**variables)
        _, told = job.communicate(timeout=30)
        return job.returncode, told


def first_node(trains: str) -> str:
    """Its head of Ray listens, and does nothing else."""
    listens = f'exec {sys.executable} -m http.server -b 127.0.0.1 "$PORT"'
    return f'if [[ "$*" = *" head" ]]; then {listens}; fi; {trains}'


def test_a_slurm_job_without_nodes_ends(tmp_path: Path) -> None:
    """NVIDIA-NeMo/RL#1019: a step that cannot start left a job waiting until its time was over."""
    slurm = PretendSlurm(tmp_path / "bin", first_node("exec sleep 300"), "exit 7", "exit 9")
    code, told = slurm.end()
    assert code == 1 and "no node is left for sandboxes" in told
    assert "node n2 has ended with 7" in told and "node n3 has ended with 9" in told
    assert not port_is_taken(slurm.port)
    code, told = PretendSlurm(tmp_path / "bin", "exit 7", "exit 0").end()
    assert code == 1 and told.count("head of Ray on 127.0.0.1 has ended with 7") == 3


def test_a_slurm_job_with_vllm_servers(tmp_path: Path) -> None:
    """On the last nodes, which hold no sandboxes. One that dies is begun again; its run, told of
    both, goes on meanwhile (tests/policy/test_vllm_lost.py)."""
    said, tries = tmp_path / "said", tmp_path / "tries"
    tries.touch()
    note = f'echo "$node $SELFPLAY_VLLM_TOKEN $*" >>{said}'
    trains = first_node(f"{note}; until [ $(wc -l <{tries}) = 2 ]; do sleep 0.2; done; exit 5")
    fails = f"{note}; echo >>{tries}; [ $(wc -l <{tries}) = 2 ] && exec sleep 300; exit 7"
    stays = f"{note}; exec sleep 300"
    slurm = PretendSlurm(tmp_path / "bin", trains, stays, fails, stays)
    servers = {"VLLM_NODES": "2", "VLLM_MODEL": "smollm2-135m", "VLLM_ARGS": "--lora-rank 16"}
    code, told = slurm.end(**servers, LEARNER_PORT="4000")
    assert code == 5 and told.count("vLLM server on n3 has ended with 7") == 1
    lines = [line.split(" ", 2) for line in said.read_text().splitlines()]
    assert len({token for _, token, _ in lines}) == 1 and len(lines[0][1]) == 64
    words = [f"{node}: {rest}" for node, _, rest in lines]
    for node in ("n3", "n3", "n4"):
        command = f"launch_vllm.py smollm2-135m --host {node} --port 4001 --lora-rank 16"
        words.remove(next(w for w in words if w.startswith(f"{node}: ") and command in w))
    run, sandboxes = sorted(words)
    assert "policy=vllm policy.vllm.urls=[http://n3:4001,http://n4:4001]" in run
    assert sandboxes.startswith("n2: ") and "launch_ray.sh node" in sandboxes
    code, told = slurm.end(**{**servers, "VLLM_NODES": "3"})
    assert code == 2 and "leave none for sandboxes" in told


def test_a_vllm_server_that_others_reach_wants_a_token() -> None:
    environ = {n: v for n, v in os.environ.items() if n != "SELFPLAY_VLLM_TOKEN"}
    environ["PYTHONPATH"] = str(SCRIPTS.parent)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "launch_vllm.py"), "smollm2-135m", "--host", "0.0.0.0"],
        env=environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "can change its weights; set SELFPLAY_VLLM_TOKEN" in done.stderr


def test_a_head_that_gives_up_is_begun_again(tmp_path: Path) -> None:
    """Ray allows itself 30 seconds: on a busy machine its head gives up, with its port open."""
    tries = tmp_path / "tries"
    listens = f'exec timeout 2 {sys.executable} -m http.server -b 127.0.0.1 "$PORT"'
    lasts = listens.replace("timeout 2", "")
    heads = f"echo >>{tries}; if [ $(wc -l <{tries}) -lt 2 ]; then {listens}; fi; {lasts}"
    node = f'if [[ "$*" = *" head" ]]; then {heads}; fi; [ $(wc -l <{tries}) = 2 ] && exit 5'
    slurm = PretendSlurm(tmp_path / "bin", node, "exec sleep 300")
    code, told = slurm.end(START_S="4")
    assert code == 5 and told.count("the head is begun again") == 1, told


@pytest.mark.parametrize("running", [False, True], ids=["alone", "beside another"])
def test_a_ray_that_does_not_start_is_tried_again(tmp_path: Path, running: bool) -> None:
    """What is left of the try is ended first; where another Ray runs there is no second try, since
    `ray stop` would end that one, too."""
    calls = tmp_path / "calls"
    stand_in(tmp_path / "bin" / "ray", f"echo $1 >>{calls}; [ $(wc -l <{calls}) = 3 ]")
    stand_in(tmp_path / "bin" / "pgrep", f"exit {int(not running)}")
    done = subprocess.run(
        ["bash", str(SCRIPTS / "launch_ray.sh"), "head"], capture_output=True, text=True,
        env={**without_ray(), "PYTHON": str(tmp_path / "bin" / "python"),
             "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    said = calls.read_text().split()
    assert said == (["start"] if running else ["start", "stop", "start"])
    assert done.returncode == (1 if running else 0), done.stderr


def test_a_slurm_job_that_loses_a_node_goes_on(tmp_path: Path) -> None:
    """Each gets three tries: Ray gives up after 30 seconds, few where disks are slow."""
    tries = tmp_path / "tries"
    tries.touch()
    trains = first_node(f"until [ $(wc -l <{tries}) = 3 ]; do sleep 0.2; done; sleep 5; exit 5")
    fails = f"echo >>{tries}; exit 7"
    code, told = PretendSlurm(tmp_path / "bin", trains, fails, "exec sleep 300").end()
    assert code == 5 and told.count("node n2 has ended with 7") == 3
    tries.write_text("")
    fails = f"echo >>{tries}; if [ $(wc -l <{tries}) = 3 ]; then exec sleep 300; fi; exit 7"
    code, told = PretendSlurm(tmp_path / "bin", trains, fails).end()
    assert code == 5 and told.count("node n2 has ended with 7") == 2


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_slurm_job_near_its_time_limit_is_requeued(tmp_path: Path, nodes: int) -> None:
    """Lightning-AI/pytorch-lightning#20542 and others: a job whose time is over is not requeued by
    Slurm, with `--requeue` neither."""
    assert "#SBATCH --signal=B:USR1@" in (SCRIPTS / "launch_slurm.sh").read_text()
    ready = tmp_path / "ready"
    stand_in(tmp_path / "python", f"touch {ready}; exec sleep 300")
    trains = first_node(f"touch {ready}; exec sleep 300")
    slurm = PretendSlurm(tmp_path / "bin", *[trains, "exec sleep 300"][:nodes])
    with slurm.start(PYTHON=str(tmp_path / "python")) as job:
        until(ready.exists)
        job.send_signal(signal.SIGUSR1)
        until(slurm.requeued.exists)
        assert slurm.requeued.read_text() == "7\n"
        job.terminate()


def test_what_a_slurm_job_tells_its_steps(tmp_path: Path) -> None:
    """Whoever reaches the ports of a Ray without a token can run code there."""
    tell = f'echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN $LEARNER_NODES $HEAD" >>{tmp_path}/seen; '
    nodes = (tell + first_node("exec sleep 300"), tell + "exit 0")
    tokens = set()
    for _ in range(2):
        PretendSlurm(tmp_path / "bin", *nodes).end()
        [(mode, token, *rest)] = {
            tuple(line.split()) for line in (tmp_path / "seen").read_text().splitlines()
        }
        assert mode == "token" and len(token) == 64 and rest == ["1", "127.0.0.1"]
        tokens.add(token)
        (tmp_path / "seen").unlink()
    assert len(tokens) == 2


def test_slurm_jobs_that_cannot_be(tmp_path: Path) -> None:
    slurm = PretendSlurm(tmp_path / "bin", "exit 0", "exit 0")
    code, told = slurm.end(SLURM_SUBMIT_DIR=str(tmp_path))
    assert code == 2 and "submit it from the checkout" in told
    code, told = slurm.end(LEARNER_NODES="2")
    assert code == 2 and "leave none for sandboxes" in told


def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


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
    slurm = PretendSlurm(tmp_path / "bin", 'exec "$@"', 'sleep 20; exec "$@"')
    checkout = open_folder / "checkout"
    checkout.mkdir()
    for name in ("scripts", "selfplay", "conf", "repos"):
        (checkout / name).symlink_to(SCRIPTS.parent / name)
    (checkout / ".venv/bin").mkdir(parents=True)
    for name in ("python", "ray"):
        found = Path(sys.executable).with_name(name)
        (checkout / ".venv/bin" / name).write_text(f'#!/bin/bash\nexec {found} "$@"\n')
        (checkout / ".venv/bin" / name).chmod(0o755)
    job = slurm.start(
        "experiment=samples", "steps=1", "name=job", f"runs_dir={tmp_path}", "sandbox=bubblewrap",
        "metrics.report=false",
        PYTHONPATH=str(SCRIPTS.parent), SLURM_SUBMIT_DIR=str(checkout),
        RAY_worker_niceness="0",  # at 15 a busy machine does nothing for its sandboxes
    )  # fmt: skip
    try:
        _, told = job.communicate(timeout=280)
    finally:
        job.terminate()  # of one that takes too long the cluster ends, too
    assert job.returncode == 0, told[-3000:]
    assert "waiting for the first node" in told
    assert (tmp_path / "job" / "summary.json").is_file()
    until(lambda: not port_is_taken(slurm.port))  # the head ends with its job


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_slurm(tmp_path: Path) -> None:
    slurm = PretendSlurm(tmp_path / "bin", "", "", "")
    variables = {**slurm.environ, "PORT": ""}
    lines = dry("launch_slurm.sh", "name=x", **variables)
    nodes = [line[line.index("-w") + 1] for line in lines]
    assert nodes == ["127.0.0.1", "n2", "n3", "127.0.0.1"]
    assert "sandbox.cluster.address=127.0.0.1:20007" in lines[-1] and "name=x" in lines[-1]
    lines = dry("launch_slurm.sh", "name=x", **variables, LEARNER_NODES="2", LEARNERS="4")
    assert [line[line.index("-w") + 1] for line in lines] == ["127.0.0.1", "n3", "127.0.0.1", "n2"]
    assert [word for line in lines for word in line if word.startswith("NODE_RANK")] == [
        "NODE_RANK=0", "NODE_RANK=1",
    ]  # fmt: skip
    [alone] = dry("launch_slurm.sh", "name=y", **{**variables, "SLURM_NNODES": "1"})
    assert alone == ["bash", "scripts/launch_local.sh", "name=y"]
