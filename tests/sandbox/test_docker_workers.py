"""Containers that wait: used once, replaced when they die, gone with their harness."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, Quota
from selfplay.sandbox.docker.workers import Blueprint, WarmWorkers, job_script
from selfplay.types import FileChange


class Fake:
    """A worker without a container."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, self.alive, self.removed = blueprint, True, False

    def is_waiting(self) -> bool:
        return self.alive

    def remove(self) -> None:
        self.removed = True


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_repeated_use_makes_containers_wait(environment: Environment) -> None:
    made: list[Fake] = []

    def start(blueprint: Blueprint) -> Fake:
        made.append(Fake(blueprint))
        return made[-1]

    workers = WarmWorkers(start, 2)
    blueprint = Blueprint.of(Job(environment=environment, argv=("true",)))
    taken = [workers.take(blueprint)]
    time.sleep(0.05)
    assert len(made) == 1  # whoever runs one job keeps none waiting
    for _ in range(5):
        taken.append(workers.take(blueprint))
        wait_until(lambda: len(made) - len(taken) == min(2, len(taken) - 1))
    assert len(set(taken)) == len(taken)
    shelf = workers._shelves[blueprint].waiting
    wait_until(lambda: len(shelf) == 2)
    waiting = list(shelf)
    waiting[0].alive = False
    assert workers.take(blueprint) is waiting[1]
    wait_until(lambda: waiting[0].removed)
    workers.close()
    workers.close()
    assert all(worker.removed for worker in made if worker not in {*taken, waiting[1]})
    with pytest.raises(SandboxError, match="closed"):
        workers.take(blueprint)


def test_the_least_used_give_way(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfplay.sandbox.docker.workers.MAX_WAITING", 2)
    made: list[Fake] = []

    def start(blueprint: Blueprint) -> Fake:
        made.append(Fake(blueprint))
        return made[-1]

    workers = WarmWorkers(start, 2)
    kinds = [
        Blueprint.of(Job(environment=environment, argv=(), quota=Quota(memory=size << 20)))
        for size in (100, 200)
    ]
    taken: list[Fake] = []
    for kind in kinds:
        for _ in range(4):
            taken.append(workers.take(kind))
            time.sleep(0.05)
    waiting = [w for w in made if w not in taken and not w.removed]
    assert [w.blueprint for w in waiting] == [kinds[1]] * 2
    workers.close()


def test_what_a_container_is_made_for(environment: Environment) -> None:
    job = Job(environment=environment, argv=("true",))
    same = replace(
        job,
        argv=("false",),
        layer={"a": FileChange(content=b"")},
        quota=Quota(timeout_s=3.0, output=1),
        environment=replace(environment, variables={"A": "b"}),
    )
    assert Blueprint.of(job) == Blueprint.of(same)
    for quota in (Quota(memory=1 << 30), Quota(num_processes=9), Quota(file_size=1)):
        assert Blueprint.of(job) != Blueprint.of(replace(job, quota=quota))
    missing = replace(job, environment=replace(environment, tree=Path("/no/such")))
    with pytest.raises(SandboxError, match="/no/such"):
        Blueprint.of(missing)
    with pytest.raises(SandboxError, match="zero byte"):
        job_script(replace(job, argv=("a\0b",)))


@pytest.fixture(scope="module")
def docker_sandbox(place: Path) -> Iterator[Any]:
    from selfplay.sandbox.docker.sandbox import DockerSandbox

    sandbox = DockerSandbox(place / "docker-workers", num_workers=1)
    yield sandbox
    sandbox.close()


@pytest.mark.docker
def test_words_reach_the_command_unchanged(docker_sandbox: Any, environment: Environment) -> None:
    words = ("it's", "$HOME", "`id`", "a\nb", "", "\\", "A=b", '"', "*", "\udce9\u00e9")
    program = 'printf \'%s|\' "$@"; printf %s "$ODD"'
    for _ in range(3):
        result = docker_sandbox.run(
            Job(
                environment=environment,
                argv=("sh", "-c", program, "sh", *words),
                variables={"ODD": "'; exit 3 #", "not a name": "x", "PATH": "/usr/bin:/bin"},
            )
        )
        said = result.output.decode("utf-8", "surrogateescape")
        assert (result.exit_code, said) == (0, "|".join(words) + "|'; exit 3 #")


@pytest.mark.docker
def test_the_original_tree_is_out_of_reach(docker_sandbox: Any, environment: Environment) -> None:
    """It is the answer to every bug: a command saw it where the container copied it from."""
    attempts = (
        "cat /sandbox/below/tree/plain.txt",
        "chmod 755 /sandbox/below",
        "ls /sandbox/below",
        "cat /proc/1/cwd/../sandbox/below/tree/plain.txt",
        "echo exit 0 >/sandbox/said",
        "cat </sandbox/go & sleep 0.2; kill -9 1; kill $! || exit 1; exit 9",
    )
    for attempt in attempts:
        layer = {"plain.txt": FileChange(content=b"bug\n")}
        job = Job(environment=environment, argv=("sh", "-c", attempt), layer=layer)
        result = docker_sandbox.run(job)
        assert result.exit_code != 0, attempt
        assert b"plain\n" not in result.output


@pytest.mark.docker
def test_a_forged_exit_code_is_not_believed(docker_sandbox: Any, environment: Environment) -> None:
    job = Job(environment=environment, argv=("sh", "-c", "echo exit 0 >/proc/1/fd/3; exit 4"))
    assert docker_sandbox.run(job).exit_code == 4


@pytest.mark.docker
def test_a_dead_container_is_replaced(docker_sandbox: Any, environment: Environment) -> None:
    import docker

    from selfplay.sandbox.docker.sandbox import LABEL

    job = Job(environment=environment, argv=("cat", "plain.txt"))
    for _ in range(3):
        docker_sandbox.run(job)
    client = docker.from_env()
    label = f"{LABEL}={next(docker_sandbox._scratch.path.parent.iterdir()).name}"
    wait_until(lambda: len(client.containers.list(filters={"label": label})) == 1)
    time.sleep(0.5)
    for container in client.containers.list(filters={"label": label}):
        container.kill()
    assert docker_sandbox.run(job).output == b"plain\n"
    client.close()


@pytest.mark.docker
def test_a_container_killed_from_outside_gives_no_verdict(
    docker_sandbox: Any, environment: Environment
) -> None:
    """So does an engine that restarts; its 137 was taken for the command's own exit code."""
    import docker

    from selfplay.sandbox.docker.sandbox import LABEL

    client = docker.from_env()
    label = f"{LABEL}={docker_sandbox._token}"

    def kill_the_busy_one() -> None:
        def busy() -> list[Any]:
            with suppress(docker.errors.APIError):  # one that is just being removed
                found = client.containers.list(filters={"label": label}, ignore_removed=True)
                return [c for c in found if "sleep 61" in str(c.top()["Processes"])]
            return []

        wait_until(lambda: bool(busy()))
        busy()[0].kill()

    killer = threading.Thread(target=kill_the_busy_one)
    killer.start()
    with pytest.raises(SandboxError, match="killed from outside"):
        docker_sandbox.run(Job(environment=environment, argv=("sh", "-c", "sleep 61; true")))
    killer.join()
    client.close()
    own = docker_sandbox.run(Job(environment=environment, argv=("sh", "-c", "exit 137")))
    assert (own.exit_code, own.stopped) == (137, "")


@pytest.mark.docker
def test_waiting_containers_end_with_a_killed_harness(
    environment: Environment, place: Path
) -> None:
    import docker

    from selfplay.sandbox.docker.sandbox import LABEL, DockerSandbox

    program = (
        "import sys, pickle, time\n"
        "from selfplay.sandbox.base import Job\n"
        "from selfplay.sandbox.docker.sandbox import DockerSandbox\n"
        "environment, root = pickle.load(sys.stdin.buffer)\n"
        "sandbox = DockerSandbox(root)\n"
        "for _ in range(2): sandbox.run(Job(environment=environment, argv=('true',)))\n"
        "time.sleep(60)\n"
    )
    root = place / "killed"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((environment, root)))
    process.stdin.close()
    client = docker.from_env()

    def waiting(running_only: bool) -> int:
        names = {path.name for path in root.iterdir()} if root.is_dir() else set()
        with suppress(docker.errors.DockerException):
            found = client.containers.list(all=not running_only, filters={"label": LABEL})
            return sum(c.labels[LABEL] in names for c in found)
        return -1

    wait_until(lambda: waiting(running_only=True) >= 1)
    time.sleep(1.0)
    process.kill()
    process.wait()
    wait_until(lambda: waiting(running_only=True) == 0)
    DockerSandbox(root).close()
    assert list(root.iterdir()) == []
    client.close()
