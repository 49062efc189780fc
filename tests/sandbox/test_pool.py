"""Many sandboxes at once: order, errors, the second try."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future

import pytest

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, RunResult
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.unsafe import UnsafeSandbox
from selfplay.sandbox.workers import Workers


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


def test_workers_run_in_order_and_never_more_than_allowed() -> None:
    """Their threads stay: a fork server dies with the thread that started it."""
    workers, lock = Workers(2, "test"), threading.Lock()
    busy, most, order = 0, 0, []

    def work(number: int) -> int:
        nonlocal busy, most
        with lock:
            busy, most = busy + 1, max(most, busy + 1)
            order.append(number)
        time.sleep(random.random() / 500)
        with lock:
            busy -= 1
        return number

    for limit in (2, 5, 3):  # it grows, and never shrinks
        workers.grow(limit)
        most = 0
        futures = [workers.submit(work, number) for number in range(200)]
        assert [future.result() for future in futures] == list(range(200))
        assert most == workers.limit == {2: 2, 5: 5, 3: 5}[limit]
    alive = {t.name for t in threading.enumerate() if t.name.startswith("test_")}
    assert 5 <= len(alive) <= 10
    workers.shutdown()
    workers.shutdown()
    assert not [t for t in threading.enumerate() if t.name.startswith("test_")]
    with pytest.raises(RuntimeError):
        workers.submit(work, 1)


def test_workers_grow_under_what_waits_already() -> None:
    workers, at_once = Workers(1, "test"), threading.Barrier(3)
    futures = [workers.submit(at_once.wait, 20.0) for _ in range(3)]
    workers.grow(3)
    assert sorted(future.result() for future in futures) == [0, 1, 2]
    workers.shutdown()


def test_workers_tell_errors_cancel_and_keep_nothing() -> None:
    workers, go = Workers(1, "test"), threading.Event()
    running, waiting = workers.submit(go.wait, 20.0), workers.submit(go.wait, 20.0)
    while not running.running():
        time.sleep(0.01)
    assert waiting.cancel() and not running.cancel()
    never = workers.submit(go.wait, 20.0)
    failing: Future[float] = workers.submit(lambda: 1 / 0)
    assert never.cancel()
    go.set()
    assert running.result() and isinstance(failing.exception(20.0), ZeroDivisionError)

    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    workers.submit(id, big).result()
    del big
    for _ in range(100):
        gc.collect()
        if gone() is None:
            break
        time.sleep(0.01)
    assert gone() is None
    go.clear()
    running, waiting = workers.submit(go.wait, 20.0), workers.submit(go.wait, 20.0)
    while not running.running():
        time.sleep(0.01)
    threading.Timer(0.2, go.set).start()
    workers.shutdown()
    assert running.result()
    with pytest.raises(CancelledError):
        waiting.result()


def test_a_pool_that_nobody_closed_does_not_hold_its_process() -> None:
    program = """
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.unsafe import UnsafeSandbox
pool = SandboxPool(UnsafeSandbox(), 4)
print(pool.map(abs, range(-9, 0)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=200)
    assert done.returncode == 0 and done.stdout == b"[9, 8, 7, 6, 5, 4, 3, 2, 1]\n", done.stderr
