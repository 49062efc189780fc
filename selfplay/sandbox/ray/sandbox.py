"""A sandbox whose jobs run on the nodes of a Ray cluster.

Everything above it is the code of one machine: a job goes out as a record and its result comes back
as one. A job is a function of its record, so what a lost node was doing is done again elsewhere. A
session stays on its node: when that is lost, the session has failed, as one of this machine would.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import ray

from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, SelfplayError
from selfplay.sandbox.base import Job, RunResult
from selfplay.sandbox.ray.hosts import Hosts
from selfplay.sandbox.ray.joining import connect
from selfplay.sandbox.ray.start import GRACE_S, HostLost

MAX_TRIES = 3
"""Hosts that one job may lose: it could be the job that ends them."""
CALL_GRACE_S = 60.0
READY = json.dumps({"ready": True}).encode("ascii")


def open_ray(options: SandboxConfig) -> RaySandbox:
    """The sandboxes of a cluster, as soon as one of its nodes has run a command on files of this
    machine; the others join.

    Raises `UserError` with the remedy where there is no cluster, or no node of it can.
    """
    ours = connect(options.cluster.address)
    try:
        return RaySandbox(Hosts(options), disconnect=ours)
    except BaseException:
        if ours:
            ray.shutdown()
        raise


class RaySandbox:
    """See `sandbox.base.Sandbox`; `num_repeated` counts jobs that lost their node and ran again."""

    def __init__(self, hosts: Hosts, *, disconnect: bool) -> None:
        self.hosts = hosts
        self.name = hosts.sandbox
        self.num_repeated = 0
        self._disconnect = disconnect

    @property
    def num_slots(self) -> int:
        """Sandboxes that may run at once."""
        return self.hosts.num_slots

    @property
    def num_expected(self) -> int:
        """Sandboxes that may run at once when every node is up that was there at the beginning."""
        return max(self.num_slots, self.hosts.num_expected)

    def describe(self) -> str:
        """One line for people."""
        nodes, slots = len(self.hosts.all), self.num_slots
        more = self.num_expected - slots
        return f"{self.name} sandboxes on the cluster: {slots} at once on {nodes} nodes" + (
            f", {more} more when the other nodes are up" if more else ""
        )

    def run(self, job: Job) -> RunResult:
        """See `Sandbox.run`. A job whose node is lost runs again on another, `MAX_TRIES` in all."""
        if job.attach is not None:
            return self._serve(job)
        for number in range(1, MAX_TRIES + 1):
            with self.hosts.slot() as host:
                try:
                    return host.run(job)
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
