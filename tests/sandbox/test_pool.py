"""Many sandboxes at once: order, errors, the second try."""

from __future__ import annotations

import threading

import pytest

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, RunResult
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.unsafe import UnsafeSandbox


class FailsOnce:
    """A real sandbox whose first start of each job fails."""

    name = "fails once"

    def __init__(self, inner: UnsafeSandbox, num_failures: int) -> None:
        self._inner, self._left = inner, num_failures

    def run(self, job: Job) -> RunResult:
        self._left -= 1
        if self._left >= 0:
            raise SandboxError("down")
        return self._inner.run(job)

    def close(self) -> None:
        self._inner.close()


def test_pool_repeats_a_failed_start_once(environment: Environment) -> None:
    job = Job(environment=environment, argv=("true",))
    pool = SandboxPool(FailsOnce(UnsafeSandbox(), 1), num_workers=1)
    assert pool.sandbox.run(job).exit_code == 0
    pool.close()
    pool = SandboxPool(FailsOnce(UnsafeSandbox(), 2), num_workers=1)
    with pytest.raises(SandboxError, match="down"):
        pool.sandbox.run(job)
    pool.close()
    pool.close()


def test_pool_grows_with_its_cluster() -> None:
    """A run begins with the first node; those that join later are to be used, too."""
    slots = [1]
    pool = SandboxPool(UnsafeSandbox(), 1, num_slots=lambda: slots[0])
    assert pool.map(str, [1]) == ["1"] and pool.use()[1] == 1
    slots[0] = 3
    at_once = threading.Barrier(3)
    assert sorted(pool.map(lambda _: at_once.wait(20.0), range(3))) == [0, 1, 2]
    slots[0] = 2  # a node is lost: its jobs wait for a slot
    assert pool.map(str, [1]) == ["1"] and pool.use()[1] == 3
    pool.close()


def test_pool_keeps_order_and_raises(environment: Environment) -> None:
    pool = SandboxPool(BubblewrapSandbox(), num_workers=4)

    def said(number: int) -> bytes:
        argv = ("sh", "-c", f"sleep 0.{3 - number % 3}; echo {number}")
        return pool.sandbox.run(Job(environment=environment, argv=argv)).output

    assert pool.map(said, range(9)) == [f"{number}\n".encode() for number in range(9)]
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda number: 1 // number, [1, 0, 2])
    pool.close()
