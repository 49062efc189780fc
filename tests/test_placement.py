"""Who sits where: the split by itself, and as a user meets it on a machine without GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfplay.commands.placing import placed, servers_of
from selfplay.commands.process import set_up
from selfplay.config import TrainConfig, VLLMConfig, load_config
from selfplay.errors import UserError
from selfplay.placement import GIB, find_gpus, num_cores, place
from selfplay.policy.vllm.server import Launch, ServerProcess

ROOT = Path(__file__).resolve().parent.parent


def train(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfplay", "train", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )


def plan(*words: str) -> dict[str, Any]:
    done = train(*words, "dry_run=true", "json=true")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    ("num", "learner", "servers"),
    [(1, (0,), ((0,),)), (2, (0,), ((1,),)), (4, (0,), ((1,), (2,), (3,)))],
)
def test_a_quarter_of_the_gpus_trains(
    num: int, learner: tuple[int, ...], servers: tuple[tuple[int, ...], ...]
) -> None:
    placement = place(find_gpus(f"fake:{num}"), "vllm")
    assert (placement.learner, placement.servers) == (learner, servers)
    assert placement.shared == (num == 1)


def test_the_learner_gets_as_many_as_its_memory_takes_and_leaves_one_server() -> None:
    gpus = find_gpus("fake:8")
    assert place(gpus, "vllm").num_ranks == 2
    assert place(gpus, "vllm", fits=lambda ranks: ranks >= 5).num_ranks == 5
    assert place(gpus, "vllm", fits=lambda ranks: False).num_ranks == 7
    wide = place(gpus, "vllm", gpus_per_server=2)
    assert wide.servers == ((2, 3), (4, 5), (6, 7))
    assert place(gpus, "vllm", learner=4, servers=1).servers == ((4,),)


def test_in_process_sampling_takes_every_gpu_for_the_learner() -> None:
    placement = place(find_gpus("fake:2"), "transformers")
    assert (placement.learner, placement.servers) == ((0, 1), ())
    assert place(find_gpus("cpu"), "vllm").describe() == "no GPU: everything on the CPU"


def test_a_split_that_cannot_be_names_the_keys() -> None:
    for asked in ({"learner": 9}, {"learner": 4, "servers": 5}, {"gpus_per_server": 8}):
        with pytest.raises(UserError, match=r"split\.learner, split\.servers"):
            place(find_gpus("fake:8"), "vllm", **asked)  # type: ignore[arg-type]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that answers as the driver of a machine with three GPUs does."""
    lines = "".join(
        f"{n}, GPU-{n}{n}aa, NVIDIA H100 80GB HBM3, 81559, Disabled\\n" for n in range(3)
    )
    pretend_driver(tmp_path, monkeypatch, f"printf '{lines}'")


def pretend_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """An `nvidia-smi` that comes first, in a process as a user's shell starts it."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.parametrize(
    ("visible", "ids"),
    [(None, ["0", "1", "2"]), ("2,0", ["2", "0"]), ("", []), ("1,9,0", ["1"]),
     ("GPU-22", ["GPU-22aa"]), ("GPU", []), ("0,0", [])],
)  # fmt: skip
def test_gpus_as_the_driver_lists_them_and_cuda_sees_them(
    driver: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, ids: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_gpus("auto")
    assert [gpu.id for gpu in found] == ids
    assert all(gpu.memory == 81559 * 2**20 for gpu in found)


DIVIDED = (
    "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c)\\n"
    "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-7f)\\n"
    "  MIG 2g.20gb     Device  0: (UUID: MIG-377e)\\n"
    "  MIG 1g.10gb+me  Device  1: (UUID: MIG-f39a)\\n"
    "GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-81)\\n"
)


@pytest.mark.parametrize(
    ("visible", "found"),
    [("MIG-f39a", [("MIG-f39a", 10)]), ("MIG-9", []), ("MIG-f39a,MIG-377e", [("MIG-f39a", 10),
     ("MIG-377e", 20)]), (None, [("MIG-377e", 20)]), ("1", [("MIG-377e", 20)]),
     ("GPU-7f", [("MIG-377e", 20)]), ("0,1", [("MIG-377e", 20)]), ("0", [("0", 40)]), ("2", [])],
)  # fmt: skip
def test_parts_of_gpus_are_what_cuda_sees_of_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    found: list[tuple[str, int]],
) -> None:
    """MIG: `nvidia-smi -L` alone lists them. Unless they are named CUDA shows the first, and no
    whole GPU beside it; the memory of the whole card was counted. The last is not divided yet."""
    whole = "0, GPU-5c, NVIDIA A100-SXM4-40GB, 40960, Disabled\\n" + "".join(
        f"{n}, GPU-{uuid}, NVIDIA H100 80GB HBM3, 81559, Enabled\\n"
        for n, uuid in ((1, "7f"), (2, "81"))
    )
    answer = f'[ "$1" = -L ] && printf "{DIVIDED}" || printf "{whole}"'
    pretend_driver(tmp_path, monkeypatch, answer)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [(gpu.id, gpu.memory // GIB) for gpu in find_gpus("auto")] == found


def test_gpus_are_counted_as_the_driver_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA counts the fastest first unless it is told; with GPUs of several kinds the numbers of
    the plan were those of others. Whoever wants it so has to name them."""
    lines = "0, GPU-aa, Tesla T4, 15360, [N/A]\\n1, GPU-bb, NVIDIA L40S, 46068, [N/A]\\n"
    pretend_driver(tmp_path, monkeypatch, f"printf '{lines}'")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    set_up()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert [gpu.name for gpu in find_gpus("auto")] == ["Tesla T4", "NVIDIA L40S"]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    set_up()
    for visible in (None, "1"):
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(UserError, match=r"FASTEST_FIRST.*NVIDIA L40S, Tesla T4.*unset"):
            find_gpus("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    assert [gpu.name for gpu in find_gpus("auto")] == ["NVIDIA L40S"]


def test_gpus_that_torch_cannot_use_are_told(
    driver: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A CPU build of torch, or a driver that is too old for it, is not the CPU without a word."""
    words = ["policy=transformers", "learner=lora"]
    placed(load_config(TrainConfig, "train", words))
    assert "nvidia-smi lists 3 GPUs, but torch" in caplog.text and "devices=cpu" in caplog.text
    with pytest.raises(UserError, match="needs a GPU in this process: nvidia-smi lists 3"):
        placed(load_config(TrainConfig, "train", ["experiment=one_gpu"]))
    caplog.clear()
    for meant in (["devices=cpu"], ["policy.device=cpu", "learner.device=cpu"]):
        placed(load_config(TrainConfig, "train", [*words, *meant]))
    assert not caplog.text


def test_a_driver_that_fails_is_no_machine_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    pretend_driver(tmp_path, monkeypatch, f"echo '{said}'; exit 18")
    placed(load_config(TrainConfig, "train", ["policy=transformers", "learner=lora"]))
    assert said in caplog.text
    with pytest.raises(UserError, match=r"this machine has 0 .*version mismatch"):
        placed(load_config(TrainConfig, "train", ["experiment=one_gpu"]))


def test_servers_see_their_own_gpus_alone(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1,0")
    config = load_config(TrainConfig, "train", ["policy=vllm"])
    here = placed(config).policy.vllm
    assert (here.num_servers, here.gpus, here.args) == (2, ["1", "0"], [])
    server = ServerProcess(Launch(python=sys.executable), 0, here.gpus[1])
    assert server.environment()["CUDA_VISIBLE_DEVICES"] == "0"


def test_named_gpus_are_taken_as_they_are(driver: None) -> None:
    words = ["policy=vllm", 'policy.vllm.gpus=["1,2"]', "split.learner=1"]
    assert placed(load_config(TrainConfig, "train", words)).policy.vllm.gpus == ["1,2"]


def test_what_a_place_asks_of_a_server_and_what_the_user_says_wins() -> None:
    shared = place(find_gpus("fake:1x24"), "vllm")
    assert servers_of(VLLMConfig(), shared).args == ["--gpu-memory-utilization", "0.4"]
    own = VLLMConfig(args=["--gpu-memory-utilization", "0.2"])
    assert servers_of(own, shared).args == own.args
    wide = place(find_gpus("fake:8"), "vllm", gpus_per_server=4, learner=4)
    found = servers_of(VLLMConfig(), wide)
    assert (found.args, found.gpus) == (["--tensor-parallel-size", "4"], ["4,5,6,7"])


def test_a_learner_of_several_gpus_needs_as_many_processes(
    driver: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfplay.modeling.devices.why_no_gpu", lambda: "")
    words = ["experiment=one_node", "split.learner=2"]
    with pytest.raises(UserError, match="torchrun --nproc-per-node 2"):
        placed(load_config(TrainConfig, "train", words))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert placed(load_config(TrainConfig, "train", words)).policy.vllm.gpus == ["2"]


def test_one_node_is_planned_for_gpus_that_are_not_there() -> None:
    document = plan("experiment=one_node", "devices=fake:8x40")
    placement = document["placement"]
    assert placement["learner"] == [0, 1] and placement["servers"] == [[n] for n in range(2, 8)]
    assert document["command"].startswith("torchrun --nproc-per-node 2 ")
    assert document["config"]["policy"]["vllm"]["num_servers"] == 6
    assert document["tokens"]["injections"] == 128
    assert document["refused"]
    if "unknown" not in document["memory"]:  # the model has been unpacked
        assert document["memory"]["gpu"] == 40 * GIB and document["memory"]["fits"]


def test_a_dry_run_writes_nothing_and_explains_itself_to_people(tmp_path: Path) -> None:
    words = ("experiment=one_gpu", "dry_run=true", f"runs_dir={tmp_path / 'runs'}")
    done = train(*words, SELFPLAY_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    for text in ("needs 1 GPUs", "is not on this disk yet", "64 injections", "min_gpus: 1"):
        assert text in done.stdout.replace("\n", " "), text
    assert list(tmp_path.iterdir()) == []


def test_a_plan_tells_what_is_screened() -> None:
    """The small run on a GPU screens as the quickstart does."""
    tokens = plan("experiment=one_gpu_small", "devices=fake:1")["tokens"]
    assert (tokens["injections"], tokens["validations_at_most"]) == (128, 10)
    assert tokens["attempts_at_most"] == 48
    done = train("experiment=quickstart", "dry_run=true", COLUMNS="300")
    shown = " ".join(done.stdout.replace("\u2502", " ").split())
    assert "192 injections (at most 32 validated, at most 12 new bugs played)" in shown


@pytest.mark.parametrize("words", [["experiment=one_gpu"], ["experiment=one_node"],
                                   ["experiment=samples", "devices=fake:8"]])  # fmt: skip
def test_without_gpus_a_start_ends_in_one_line(words: list[str], tmp_path: Path) -> None:
    done = train(*words, f"runs_dir={tmp_path / 'runs'}", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and "dry_run=true" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/outside/of/it\n", {"cpu.max": "50000 100000"}, 1),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n", {
            "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/x/cpu.cfs_quota_us": "400000",
            "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
        }, 4),
        ("1:name=systemd:/\n", {}, 64),
        (None, {}, 64),
    ],
)  # fmt: skip
def test_cores_are_those_that_we_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None,
    files: dict[str, str], cores: int,
) -> None:  # fmt: skip
    """64 sandboxes were started on the 2 cores of a container on a machine with 64."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    for name, text in files.items():
        (tmp_path / "mounted" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mounted" / name).write_text(text + "\n")
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert num_cores(tmp_path / "mounted", tmp_path / "own") == cores


def test_affinity_bounds_workers_and_is_told(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "selfplay", "doctor", "json=true"]
    done = subprocess.run(
        ["taskset", "-c", "0", *words], capture_output=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )  # fmt: skip
    (cores,) = [r for r in json.loads(done.stdout)["report"] if r["name"] == "cores"]
    count = os.cpu_count()
    assert cores["detail"] == ("1" if count == 1 else f"1, by affinity or a quota, of {count}")
