"""What the machine refuses or ends is no verdict, and what a job does to itself is one."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, Quota, RunResult
from selfplay.sandbox.bubblewrap import sandbox as bubblewrap
from selfplay.sandbox.bubblewrap.cgroup import find_controllers, ran_out_of_memory
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.collect import out_excess
from selfplay.sandbox.pool import RetryingSandbox
from selfplay.sandbox.scratch import read_out

V1 = {"memory.limit_in_bytes": "100000000\n"}
IDLE = ("timeit", "-n", "1", "-r", "1")


def in_a_new_process(check: Callable[..., None], *arguments: Any) -> None:
    """Limits that are lowered stay lowered."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(check, *arguments).result()


def idle_job(environment: Environment) -> Job:
    return Job(environment=environment, argv=("python", "-m", *IDLE), module=IDLE)


def test_a_limit_that_we_may_not_give_is_no_exit_code(environment: Environment) -> None:
    """The command that sets the limits failed, and its exit code 1 was taken for the tests'."""
    in_a_new_process(low_limits, environment)


def low_limits(environment: Environment) -> None:
    sandboxes = [BubblewrapSandbox(preload=preload) for preload in (False, True)]
    for name in ("nofile", "fsize", "nproc"):
        number, low = getattr(resource, f"RLIMIT_{name.upper()}"), Quota().limits()[name] // 2
        resource.setrlimit(number, (low, low))
        for sandbox in sandboxes:
            with pytest.raises(SandboxError, match=f"hard limit {name} of this process is {low}"):
                sandbox.run(idle_job(environment))
    bubblewrap.check_limits = lambda _: None
    with pytest.raises(SandboxError, match="a run could not begin: ValueError"):
        sandboxes[1].run(idle_job(environment))
    for sandbox in sandboxes:
        sandbox.close()


def test_a_report_that_we_cannot_read_is_not_missing(tmp_path: Path) -> None:
    """Without descriptors every file of a run was missing, and a test without its report failed."""
    (tmp_path / "junit.xml").write_bytes(b"x")
    in_a_new_process(no_descriptors, tmp_path)


def no_descriptors(out: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most[1]))
    try:
        with pytest.raises(SandboxError, match=r"cannot be read: .*Too many open files"):
            read_out(out, 9)
        with pytest.raises(SandboxError, match=r"cannot be counted: .*Too many open files"):
            out_excess(out, Quota())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    (out / "closed").mkdir(mode=0)
    (out / "link").symlink_to(out / "junit.xml")
    os.mkfifo(out / "pipe")
    assert read_out(out, 9) == {"junit.xml": b"x"}


@pytest.mark.parametrize("preload", [False, True])
def test_a_machine_out_of_descriptors_is_no_verdict(
    environment: Environment, preload: bool
) -> None:
    """An interpreter to fork from that could not be opened once was not asked for again."""
    in_a_new_process(few_descriptors, environment, preload)


def few_descriptors(environment: Environment, preload: bool) -> None:
    sandbox = BubblewrapSandbox(preload=preload)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(1, 12):
        used = len(list(Path("/proc/self/fd").iterdir())) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, most[1]))
        try:
            assert sandbox.run(idle_job(environment)).exit_code == 0
        except SandboxError:
            pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert sandbox.run(idle_job(environment)).exit_code == 0
    sandbox.close()


class Counted(BubblewrapSandbox):
    """Counts its jobs."""

    num_jobs = 0

    def run(self, job: Job) -> RunResult:
        self.num_jobs += 1
        return super().run(job)


@pytest.mark.parametrize("preload", [False, True])
def test_a_command_that_was_killed_is_asked_again(environment: Environment, preload: bool) -> None:
    """A kill -9 from outside was taken for tests that gave no results."""
    sandbox = Counted(preload=preload)
    setup = "import time; time.sleep(2); 'kill-me-once'"
    words = (*IDLE, "-s", setup)
    job = Job(environment=environment, argv=("python", "-m", *words), module=words)
    killer = threading.Thread(target=kill_once, args=(sandbox,))
    killer.start()
    try:
        assert RetryingSandbox(sandbox).run(job).exit_code == 0
    finally:
        killer.join()
        sandbox.close()
    assert sandbox.num_jobs == 2


def kill_once(sandbox: Counted) -> None:
    """End the command itself: the youngest process in the pid namespace that ran last."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.1)
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                status = (folder / "status").read_text()
                inside = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()[2:]
                if not inside or inside[-1] == "1" or not is_asleep(folder):
                    continue
                os.kill(int(folder.name), signal.SIGKILL)
                return


def is_asleep(folder: Path) -> bool:
    """Whether a process is in `time.sleep` of the job."""
    return b"kill-me-once" in (folder / "cmdline").read_bytes() or (
        b"fork_server" in (folder / "cmdline").read_bytes()
        and "sleep" in (folder / "wchan").read_text()
    )


def test_a_command_that_kills_itself_has_its_verdict(environment: Environment) -> None:
    sandbox = Counted()
    argv = ("sh", "-c", "echo said; kill -9 $$")
    result = RetryingSandbox(sandbox).run(Job(environment=environment, argv=argv))
    sandbox.close()
    assert (result.exit_code, result.output, sandbox.num_jobs) == (137, b"said\n", 2)


@pytest.mark.parametrize(
    ("files", "own"),
    [
        ({"memory.events": "low 0\noom 3\noom_kill 1\n"}, True),
        ({"memory.events": "low 0\noom 0\noom_kill 1\n"}, None),
        ({"memory.events": "low 0\noom 0\noom_kill 0\n"}, False),
        (
            {"memory.oom_control": "oom_kill 1\n", **V1, "memory.max_usage_in_bytes": "99000000\n"},
            True,
        ),
        (
            {"memory.oom_control": "oom_kill 1\n", **V1, "memory.max_usage_in_bytes": "90000000\n"},
            None,
        ),
        (
            {"memory.oom_control": "oom_kill 0\n", **V1, "memory.max_usage_in_bytes": "99000000\n"},
            False,
        ),
        ({}, False),
    ],
)
def test_whose_memory_it_was(tmp_path: Path, files: dict[str, str], own: bool | None) -> None:
    """Both versions count every kill, also those for want of memory in the whole machine."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    if own is None:
        with pytest.raises(SandboxError, match="this machine ran out of memory"):
            ran_out_of_memory([tmp_path])
    else:
        assert ran_out_of_memory([tmp_path]) is own


def test_a_process_that_the_machine_had_no_memory_for(environment: Environment) -> None:
    """A cgroup around all of us stands for the machine, where there is one of version 1."""
    above = [f.parent for f in find_controllers() if (f.parent / "memory.oom_control").exists()]
    if not above:
        return
    around = above[0] / f"tests-{os.getpid()}"
    around.mkdir()
    try:
        (around / "memory.limit_in_bytes").write_text(str(300 << 20))
        in_a_new_process(eats_memory, environment, around)
    finally:
        for folder in (*around.glob("*/*/"), *around.glob("*/"), around):
            folder.rmdir()


def eats_memory(environment: Environment, around: Path) -> None:
    home = around.parent / "cgroup.procs"
    (around / "cgroup.procs").write_text(str(os.getpid()))
    sandbox = BubblewrapSandbox()
    program = "x = b'x' * (500 << 20); print('ate')"
    job = Job(environment=environment, argv=("python", "-c", f"{program}"))
    own = Job(environment=environment, argv=job.argv, quota=Quota(memory=100 << 20))
    try:
        with pytest.raises(SandboxError, match="this machine ran out of memory"):
            sandbox.run(job)
        assert sandbox.run(own).exit_code != 0
    finally:
        sandbox.close()
        home.write_text(str(os.getpid()))
