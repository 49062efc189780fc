"""A sandbox whose jobs run on the nodes of a Ray cluster.

Everything above it is the code of one machine: a job goes out as a record and its result comes back
as one. A job is a function of its record, so what a lost node was doing is done again elsewhere. A
session stays on its node: when that is lost, the session has failed, as one of this machine would.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import tempfile
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, SelfplayError, UserError
from selfplay.sandbox.base import Job, RunResult
from selfplay.sandbox.ray.hosts import HostLost, Hosts
from selfplay.sandbox.select import check

log = logging.getLogger(__name__)
MAX_TRIES = 3
"""Hosts that one job may lose: it could be the job that ends them."""
GRACE_S = 120.0
"""What a host gets beyond a job's own time-out before it counts as lost."""
CALL_GRACE_S = 60.0
READY = json.dumps({"ready": True}).encode("ascii")


def open_ray(options: SandboxConfig) -> RaySandbox:
    """The sandboxes of a cluster, each node's having run a command on files of this machine.

    Raises `UserError` with the remedy where there is no cluster, or no node of it can.
    """
    ours = connect(options.cluster.address)
    try:
        sandbox = RaySandbox(Hosts(options), disconnect=ours)
    except BaseException:
        if ours:
            ray.shutdown()
        raise
    try:
        sandbox.check()
    except SelfplayError:
        sandbox.close()
        raise
    return sandbox


def connect(address: str | None) -> bool:
    """Join a cluster that runs already; False where this process has joined one before."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Code comes from the package that is installed on every node: nothing is uploaded.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if address:  # a wrong one: Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10.0).close()
        ray.init(address=address or "auto", log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cluster=ray: no cluster at {address or 'this machine'} ({reason}); start one with "
            "scripts/launch_ray.sh, or `ray start --head` and `ray start --address=...`, and "
            "name it in sandbox.cluster.address"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return True


class RaySandbox:
    """See `sandbox.base.Sandbox`; `num_repeated` counts jobs that lost their node and ran again."""

    def __init__(self, hosts: Hosts, *, disconnect: bool) -> None:
        self.hosts = hosts
        self.name = hosts.all[0].facts.sandbox
        self.num_repeated = 0
        self._disconnect = disconnect

    @property
    def num_slots(self) -> int:
        """Sandboxes that may run at once."""
        return self.hosts.num_slots

    def describe(self) -> str:
        """One line for people."""
        counts = [host.num_slots for host in self.hosts.all]
        return f"{self.name} sandboxes on {len(counts)} nodes of the cluster, {sum(counts)} at once"

    def check(self) -> None:
        """Every node runs a command on a tree that this machine has written."""
        for host in self.hosts.all:
            try:
                check(_Pinned(self.name, host))
            except HostLost as lost:
                self.hosts.lose(host, str(lost))
            except SandboxError as error:
                raise UserError(f"cluster=ray: node {host.node[:12]}: {error}") from error

    def run(self, job: Job) -> RunResult:
        """See `Sandbox.run`. A job whose node is lost runs again on another, `MAX_TRIES` in all."""
        if job.attach is not None:
            return self._serve(job)
        for number in range(1, MAX_TRIES + 1):
            with self.hosts.slot() as host:
                try:
                    return run_on(host, job)
                except HostLost as lost:
                    self.hosts.lose(host, str(lost))
                    self.num_repeated += number < MAX_TRIES
        raise SandboxError(f"{MAX_TRIES} nodes were lost while they ran the same job")

    def close(self) -> None:
        """End all hosts and leave the cluster. Idempotent."""
        self.hosts.close()
        if self._disconnect and ray.is_initialized():
            ray.shutdown()

    def _serve(self, job: Job) -> RunResult:
        """A session: what its pipes say goes to a session on a node, and its answers come back."""
        assert job.attach is not None
        key = uuid.uuid4().hex
        with self.hosts.session() as host, tempfile.TemporaryDirectory() as folder:
            job.attach(Path(folder))
            asked = os.open(Path(folder, "ask"), os.O_RDONLY | os.O_CLOEXEC)
            answers = os.open(Path(folder, "answer"), os.O_WRONLY | os.O_CLOEXEC)
            try:
                host.ask("open", key, replace(job, attach=None), timeout_s=GRACE_S)
                _write(answers, READY)
                while request := _read(asked):
                    document = json.loads(request)
                    limit = float(document.get("timeout_s", CALL_GRACE_S))
                    answer = host.ask("call", key, document, limit, timeout_s=limit + CALL_GRACE_S)
                    _write(answers, json.dumps(answer).encode("ascii"))
            except HostLost as lost:
                self.hosts.lose(host, str(lost))
                raise SandboxError(f"a session's node is lost: {lost}") from lost
            except BrokenPipeError:
                pass  # closed while it was answered
            finally:
                os.close(asked)
                os.close(answers)
                with contextlib.suppress(HostLost, SelfplayError):
                    host.ask("close_session", key, timeout_s=CALL_GRACE_S)
        return RunResult(
            exit_code=0, timed_out=False, output=b"", output_truncated=False, duration_s=0.0
        )


class _Pinned:
    """One host as a sandbox, for `check`."""

    def __init__(self, name: str, host: Any) -> None:
        self.name, self._host = name, host

    def run(self, job: Job) -> RunResult:
        return run_on(self._host, job)

    def close(self) -> None: ...


def run_on(host: Any, job: Job) -> RunResult:
    """One job on one host. Raises `HostLost`, or what the sandbox there raised."""
    result = host.ask("run", job, timeout_s=job.quota.timeout_s + GRACE_S)
    assert isinstance(result, RunResult)
    return result


def _read(fd: int) -> bytes:
    """One request of a session; b"" where it is closed."""
    size = _take(fd, 8)
    return _take(fd, int(size, 16)) if size else b""


def _take(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(b"%08x" % len(data) + data)
    while view:
        view = view[os.write(fd, view) :]
