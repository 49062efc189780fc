"""Processes that take work off a run: errors come back, deaths are survived, nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfplay.errors import PatchError, SandboxError
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.processes import Host, Processes
from selfplay.sandbox.unsafe import UnsafeSandbox

PROGRAM = """
import os, time
from selfplay.sandbox.processes import Processes

def pid(host): return os.getpid()

if __name__ == "__main__":
    print(Processes(1).call(pid, None), flush=True)
    time.sleep(60)
"""


class Lent:
    """What the run lends to a call."""

    def double(self, number: int, *, times: int = 1) -> int:
        if number < 0:
            raise SandboxError(f"down at {number}")
        return number * 2**times


def four_times(host: Host, number: int) -> tuple[int, int]:
    return os.getpid(), host.ask("double", host.ask("double", number), times=1)


def survives(host: Host) -> str:
    try:
        host.ask("double", -1)
    except SandboxError as error:
        return f"told: {error}"
    return ""


def refuse(host: Host, text: str) -> None:
    raise PatchError(text)


def secret(host: Host) -> object:
    return lambda: None


class Odd(Exception):
    """An error that pickle writes and cannot read."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def raise_odd(host: Host) -> None:
    raise Odd(1, 2)


def die(host: Host, once: Path | None) -> int:
    """Die; with `once`, only where that file is not there."""
    if once is None or not once.exists():
        if once is not None:
            once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    opened = Processes(2)
    yield opened
    opened.close()
    opened.close()


def test_calls_are_answered_and_may_ask_back(processes: Processes) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: processes.call(four_times, Lent(), n), range(20)))
    assert [number for _, number in found] == [4 * number for number in range(20)]
    pids = {pid for pid, _ in found}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2


def test_errors_go_both_ways(processes: Processes) -> None:
    with pytest.raises(PatchError, match="no such hunk"):
        processes.call(refuse, None, "no such hunk")
    assert processes.call(survives, Lent()) == "told: down at -1"
    with pytest.raises(SandboxError, match="down at -3"):
        processes.call(four_times, Lent(), -3)
    with pytest.raises(SandboxError, match="cannot be sent"):
        processes.call(secret, None)
    with pytest.raises(SandboxError, match="cannot be sent: Odd: 1 and 2"):
        processes.call(raise_odd, None)
    assert processes.call(four_times, Lent(), 1)[1] == 4


def test_what_a_dead_process_did_is_done_once_more(processes: Processes, tmp_path: Path) -> None:
    assert processes.call(die, None, tmp_path / "died") > 0
    with pytest.raises(SandboxError, match="died, two"):
        processes.call(die, None, None)
    assert processes.call(four_times, Lent(), 2)[1] == 8


def test_a_call_that_is_broken_off_spoils_no_later_one(processes: Processes) -> None:
    class Stopped(BaseException):
        pass

    class Stops:
        def double(self, number: int) -> int:
            raise Stopped

    for _ in range(3):
        with pytest.raises(Stopped):
            processes.call(four_times, Stops(), 1)
    assert processes.call(four_times, Lent(), 3)[1] == 12


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


def test_the_pool_closes_them() -> None:
    processes = Processes(1)
    pool = SandboxPool(UnsafeSandbox(), num_workers=2, processes=processes)
    assert pool.map(lambda n: processes.call(four_times, Lent(), n)[1], [1, 2]) == [4, 8]
    pool.close()
    with pytest.raises(SandboxError, match="closed"):
        processes.call(four_times, Lent(), 1)
