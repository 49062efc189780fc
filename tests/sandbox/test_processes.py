"""Processes that take work off a run: errors come back, deaths are survived, nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from selfplay.config import SandboxConfig
from selfplay.errors import PatchError, SandboxError
from selfplay.sandbox.base import Environment, Job
from selfplay.sandbox.pool import SandboxPool, open_retrying
from selfplay.sandbox.processes import Desk, SandboxProcesses

PROGRAM = """
import os, sys, time
from functools import partial
from selfplay.config import SandboxConfig
from selfplay.sandbox.pool import open_retrying
from selfplay.sandbox.processes import SandboxProcesses

def pid(desk): return os.getpid()

if __name__ == "__main__":
    processes = SandboxProcesses(1, partial(open_retrying, "unsafe", SandboxConfig()))
    print(processes.call(pid), flush=True)
    time.sleep(60)
"""


def said(desk: Desk, environment: Environment, word: str) -> tuple[int, bytes]:
    job = Job(environment=environment, argv=("echo", word))
    return os.getpid(), desk.sandbox.run(job).output


def refuse(desk: Desk, text: str) -> None:
    raise PatchError(text)


def die(desk: Desk, once: Path | None) -> int:
    """Die; with `once`, only where that file is not there."""
    if once is None or not once.exists():
        if once is not None:
            once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@pytest.fixture(scope="module")
def processes() -> Iterator[SandboxProcesses]:
    opened = SandboxProcesses(2, partial(open_retrying, "bubblewrap", SandboxConfig()))
    yield opened
    opened.close()
    opened.close()


def test_sandboxes_of_other_processes_answer_and_raise(
    processes: SandboxProcesses, environment: Environment
) -> None:
    with ThreadPoolExecutor(4) as threads:
        words = [f"word {number}" for number in range(8)]
        found = list(threads.map(lambda w: processes.call(said, environment, w), words))
    assert [output for _, output in found] == [f"{word}\n".encode() for word in words]
    pids = {pid for pid, _ in found}
    assert os.getpid() not in pids and len(pids) <= 2
    with pytest.raises(PatchError, match="no such hunk"):
        processes.call(refuse, "no such hunk")


def test_what_a_dead_process_did_is_done_once_more(
    processes: SandboxProcesses, environment: Environment, tmp_path: Path
) -> None:
    assert processes.call(die, tmp_path / "died") > 0
    with pytest.raises(SandboxError, match="died twice"):
        processes.call(die, None)
    assert processes.call(said, environment, "alive")[1] == b"alive\n"


def test_processes_end_with_a_run_that_was_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    started = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert started.stdout is not None
    child = Path("/proc") / started.stdout.readline().decode().strip()
    assert child.is_dir()
    started.kill()
    started.wait()
    deadline = time.monotonic() + 30
    while child.is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_dir()


def test_a_sandbox_that_does_not_open_is_an_infrastructure_fault() -> None:
    processes = SandboxProcesses(1, partial(open_retrying, "no such sandbox", SandboxConfig()))
    with pytest.raises(SandboxError, match="judges died"):
        processes.call(refuse, "")
    processes.close()


def test_the_pool_closes_them(environment: Environment) -> None:
    open_alike = partial(open_retrying, "unsafe", SandboxConfig())
    processes = SandboxProcesses(1, open_alike)
    pool = SandboxPool(open_alike(), num_workers=2, processes=processes)
    assert pool.map(lambda word: processes.call(said, environment, word)[1], "ab") == [
        b"a\n",
        b"b\n",
    ]
    pool.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        processes.call(said, environment, "late")
