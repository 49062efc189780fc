"""Sandboxes on the nodes of a Ray cluster: three real nodes in this machine, one CPU each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from selfplay.config import ClusterConfig, SandboxConfig
from selfplay.errors import SandboxError, SandboxSpent, UserError
from selfplay.sandbox.base import Environment, Job, Quota, RunResult, Sandbox
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.session.session import Session
from selfplay.types import FileChange
from tests.sandbox.ray_cluster import add_node, ray_nodes

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
OPTIONS = SandboxConfig(name="bubblewrap", cluster=ClusterConfig(name="ray", wait_s=20.0))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_nodes(3) as nodes:
        yield nodes


@pytest.fixture
def remote(cluster: Any) -> Iterator[Any]:
    from selfplay.sandbox.ray.sandbox import open_ray

    opened = open_ray(OPTIONS)
    until(lambda: opened.num_slots == 3)  # work begins with the first host
    yield opened
    opened.close()


def until(condition: Any, limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes(word: str) -> list[int]:
    """Of this machine whose command line has `word`; not this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def what(result: RunResult) -> tuple[Any, ...]:
    return (result.exit_code, result.timed_out, result.output, dict(result.files))


def test_jobs_come_back_as_from_this_machine(remote: Any, environment: Environment) -> None:
    changed = {"plain.txt": FileChange(content=b"new\n"), "link": FileChange(content=None)}
    jobs = [
        Job(environment=environment, argv=("sh", "-c", "ls; cat plain.txt; env"), layer=changed),
        Job(environment=environment, argv=("sh", "-c", "cat /in/x >/out/y; exit 7"),
            inputs={"x": bytes(range(256))}),
        Job(environment=environment, argv=("sleep", "60"), quota=Quota(timeout_s=0.5)),
        Job(environment=environment, argv=("sh", "-c", "head -c 3000000 /dev/zero")),
    ]  # fmt: skip
    local: Sandbox = BubblewrapSandbox()
    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(map(what, threads.map(remote.run, jobs))) == [
                what(local.run(job)) for job in jobs
            ]
    finally:
        local.close()


def test_a_session_stays_on_its_node(remote: Any, environment: Environment) -> None:
    sessions = [Session(remote, Job(environment=environment, argv=())) for _ in range(3)]
    assert sorted(host.sessions for host in remote.hosts.all) == [1, 1, 1]
    session = sessions[0]
    session.run("cd package; export A=1; echo new >made", 10.0)
    assert session.run("echo $A $PWD", 10.0).output == b"1 /testbed/package\n"
    assert session.read("package/made") == b"new\n"
    assert set(session.read_changes().layer) == {"package/made"}
    for each in sessions:
        each.close()
    until(lambda: not any(host.sessions for host in remote.hosts.all))
    with pytest.raises(SandboxError):
        session.run("true", 1.0)


def test_a_node_that_dies_costs_only_its_work(
    cluster: Any, remote: Any, environment: Environment
) -> None:
    """The node's raylet is killed with -9 under running jobs; another node takes its place."""
    pool = SandboxPool(remote, num_workers=3)
    jobs = [Job(environment=environment, argv=("sh", "-c", f"sleep 1; echo {i}")) for i in range(9)]
    session = Session(remote, Job(environment=environment, argv=()))
    with_session = next(host.node for host in remote.hosts.all if host.sessions)
    victim = next(node for node in cluster.worker_nodes if node.node_id != with_session)
    killer = threading.Timer(1.5, cluster.remove_node, (victim,), {"allow_graceful": False})
    killer.start()
    results = pool.map(pool.sandbox.run, jobs)
    killer.join()
    assert [result.output for result in results] == [f"{i}\n".encode() for i in range(9)]
    assert remote.num_repeated >= 1
    assert session.run("echo here", 10.0).output == b"here\n"
    session.close()
    assert remote.num_slots == 2
    add_node(cluster)
    until(lambda: remote.num_slots == 3)
    pool.close()


def test_an_actor_that_is_killed_leaves_no_sandbox(remote: Any, environment: Environment) -> None:
    """ray-project/ray#42861: children of a worker that is killed with -9 are not Ray's to end."""
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(
            remote.run, Job(environment=environment, argv=("sh", "-c", "sleep 3.14159; echo end"))
        )
        until(lambda: processes("3.14159"))
        [host] = [host for host in remote.hosts.all if host.used]
        before = set(processes("3.14159"))
        pid = next(p for p in processes("ray::SandboxHost") if _is_above(p, min(before)))
        os.kill(pid, signal.SIGKILL)
        until(lambda: not before & set(processes("3.14159")), 10.0)
        assert done.result(60.0).output == b"end\n"
    assert host not in remote.hosts.all
    until(lambda: remote.num_slots == 3)


def _is_above(ancestor: int, pid: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_faults_stay_what_they_are(remote: Any, environment: Environment) -> None:
    """What a node cannot do is no result; what a job did to itself is told as such."""
    elsewhere = Environment(tree=Path("/nowhere"), mounts={}, path="/bin", digest="elsewhere")
    with pytest.raises(SandboxError, match="this node has no /nowhere: SELFPLAY_CACHE"):
        remote.run(Job(environment=elsewhere, argv=("true",)))
    answer = SandboxSpent("memory")
    import ray

    from selfplay.sandbox.ray.start import answer_of

    with pytest.raises(SandboxSpent, match="memory"):
        answer_of(ray.put(answer), 10.0)


def test_joining_changes_nothing_in_this_process(cluster: Any) -> None:
    """verl-project/verl#589 and others: what Ray sets in its workers must not reach the learner."""
    program = """
import json, os, signal, sys
from selfplay.sandbox.ray.joining import connect
before = {**os.environ}, signal.getsignal(signal.SIGTERM)
connect(sys.argv[1])
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
after = {name: os.environ.get(name) for name in names}
assert after == {name: before[0].get(name) for name in names}, after
assert signal.getsignal(signal.SIGTERM) is before[1]
import ray
assert not ray.get_runtime_context().runtime_env  # nothing is uploaded
"""
    done = subprocess.run([sys.executable, "-c", program, cluster.address], timeout=200)
    assert done.returncode == 0


def test_no_cluster_is_said_with_the_remedy() -> None:
    program = """
import sys
from selfplay.sandbox.ray.joining import connect
from selfplay.errors import UserError
try:
    connect("127.0.0.1:1")
except UserError as error:
    sys.exit(0 if "launch_ray.sh" in str(error) else str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=200)
    assert done.returncode == 0
    with pytest.raises(UserError, match=r"sandbox\.cluster\.name"):
        ClusterConfig(name="slurm")


def test_a_seeded_run_is_the_same(cluster: Any, tmp_path: Path) -> None:
    """Byte for byte, but for what a clock says; and without the cluster Ray is never imported."""
    episodes = {}
    for name, words in {
        "local": ["sandbox.num_workers=2"],
        "ray": ["cluster=ray", f"sandbox.cluster.address={cluster.address}"],
    }.items():
        command = [sys.executable, "-X", "importtime", "-m", "selfplay", "train",
                   "experiment=samples", "steps=1", f"name={name}", f"runs_dir={tmp_path}",
                   "sandbox=bubblewrap", "metrics.report=false", *words]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-2000:]
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert ("ray" in imported) == (name == "ray")
        lines = (tmp_path / name / "episodes.jsonl").read_text().splitlines()
        episodes[name] = [timeless(json.loads(line)) for line in lines]
    assert episodes["local"] == episodes["ray"] and episodes["ray"]


def timeless(document: Any) -> Any:
    if isinstance(document, dict):
        return {k: timeless(v) for k, v in document.items() if not k.endswith("_s") and k != "time"}
    return [timeless(item) for item in document] if isinstance(document, list) else document


def test_a_second_run_is_told_who_has_the_slots(cluster: Any, remote: Any) -> None:
    """verl-project/verl#7381: what Ray has no room for waits without a word. Said at once, and in
    the last error; the first run notices nothing of it."""
    program = """
import logging, sys
from selfplay.config import ClusterConfig, SandboxConfig
from selfplay.errors import UserError
from selfplay.sandbox.ray.sandbox import open_ray
logging.basicConfig(level=logging.WARNING)
cluster = ClusterConfig(name="ray", address=sys.argv[1], wait_s=float(sys.argv[2]))
try:
    opened = open_ray(SandboxConfig(name="bubblewrap", cluster=cluster))
except UserError as error:
    sys.exit(f"refused: {error}")
print(opened.num_slots)
opened.close()
"""
    words = [sys.executable, "-c", program, cluster.address]
    done = subprocess.run([*words, "5"], capture_output=True, text=True, timeout=150)
    said, _, refused = done.stderr.partition("refused: ")
    holder = f"3 of 3 sandbox slots are taken, by process {os.getpid()} of "
    assert done.returncode == 1 and "two runs cannot share" in refused, done.stderr
    assert f"waiting for slots: {holder}" in said
    assert f"waited 5 s for slots: {holder}" in refused and "in the namespace " in refused
    assert remote.num_slots == 3
    with subprocess.Popen([*words, "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waits:
        assert waits.stderr is not None and waits.stdout is not None
        until(lambda: b"waiting for slots" in waits.stderr.readline(), 90.0)
        remote.close()  # the first run ends: the second begins
        assert int(waits.stdout.read()) >= 1
