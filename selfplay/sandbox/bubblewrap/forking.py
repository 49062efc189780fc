"""The other end of `fork_server`: test runs as forks of an interpreter that has loaded its runner.

A server is one bubblewrap sandbox that sees the environment, an empty working directory and this
process's job folders. Each job becomes a sandbox of its own inside it, with the same snapshot,
bounds and end as a plain run (`launch`), for a fraction of the start.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any

from selfplay.errors import SandboxError
from selfplay.sandbox.base import WORKDIR, Environment, Job, RunResult
from selfplay.sandbox.bubblewrap.cgroup import entrances, ran_out_of_memory
from selfplay.sandbox.bubblewrap.launch import memory_excess
from selfplay.sandbox.collect import KILL_GRACE_S, OutWatch, collect
from selfplay.sandbox.scratch import (
    BASE_VARIABLES,
    SHM_SIZE,
    TMP_SIZE,
    deleted_paths,
    read_out,
)

log = logging.getLogger(__name__)
START_TIMEOUT_S = 60.0
MAX_SERVERS = 8
"""Servers kept alive, the least recently used ones end first: each holds about 40 MB."""
MAX_MESSAGE = 100_000
SHELL_VARIABLES = {"PWD": WORKDIR, "SHLVL": "0", "_": "/usr/bin/env"}
"""What a test script's shell would have left in the environment."""

Start = Callable[[Environment, Mapping[str, str], int, int, str], list[str]]
"""(environment, variables, its end of the control socket, descriptor of the system-call filter or
-1, module) -> command line of a server."""


def module_of(job: Job) -> str | None:
    """The module that a job runs and that a server can load; None when there is none."""
    return job.module[0] if job.module and job.environment.image is None else None


def variables_of(job: Job) -> dict[str, str]:
    """The whole environment of the job's process."""
    own = {**job.environment.variables, **job.variables}
    return {**BASE_VARIABLES, "PATH": job.environment.path, **SHELL_VARIABLES, **own}


class ForkServers:
    """Servers by environment, interpreter variables and module, started when first needed."""

    def __init__(self, start: Start, folder: Path, seccomp: Path | None) -> None:
        self._start, self._folder, self._seccomp = start, folder, seccomp
        self._servers: OrderedDict[str, Future[Server]] = OrderedDict()
        self._lock = Lock()
        # A sandbox dies with the *thread* that started it: one thread of ours starts them all.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fork-servers")
        self.num_runs = 0

    def run(self, job: Job, folder: Path, quota_groups: list[Path]) -> RunResult | None:
        """The run of a job, None when it needs an interpreter of its own.

        Raises `SandboxError` when the server fails; the next job gets a new one.
        """
        message = _message(job, folder)
        if len(message) > MAX_MESSAGE:
            return None
        key, server = self._server(job)
        try:
            result = ForkedRun(job, folder, quota_groups).run(server, message)
        except SandboxError:
            if not server.is_alive():
                self._drop(key)
            raise
        with self._lock:
            self.num_runs += result is not None
        return result

    def close(self) -> None:
        """End every server. Idempotent."""
        with self._lock:
            servers, self._servers = list(self._servers.values()), OrderedDict()
        for future in servers:
            if future.exception() is None:
                future.result().close()
        self._thread.shutdown()

    def _server(self, job: Job) -> tuple[str, Server]:
        module = module_of(job)
        assert module is not None
        variables = variables_of(job)
        python = {k: v for k, v in variables.items() if k.startswith("PYTHON")}
        environment = job.environment
        mounts = sorted(environment.mounts.items())
        key = json.dumps([environment.digest, str(environment.tree), mounts, python, module])
        ended: list[Future[Server]] = []
        with self._lock:
            if key not in self._servers:
                while len(self._servers) >= MAX_SERVERS:
                    ended.append(self._servers.popitem(last=False)[1])
                self._servers[key] = self._thread.submit(self._open, environment, variables, module)
            self._servers.move_to_end(key)
            future = self._servers[key]
        for old in ended:
            if old.exception() is None:
                old.result().retire()
        try:
            return key, future.result()
        except Exception:  # the next job tries anew
            self._drop(key)
            raise

    def _open(self, environment: Environment, variables: Mapping[str, str], module: str) -> Server:
        control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far, ExitStack() as stack:
            passed = [far.fileno()]
            if self._seccomp is not None:
                passed.append(stack.enter_context(self._seccomp.open("rb")).fileno())
            said = stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
            seccomp = passed[-1] if self._seccomp is not None else -1
            try:
                process = subprocess.Popen(
                    self._start(environment, variables, far.fileno(), seccomp, module),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    pass_fds=passed,
                    cwd="/",
                )
            except OSError as error:
                control.close()
                raise SandboxError(f"bubblewrap could not be started: {error}") from error
            far.close()
            server = Server(process, control)
            if not _receive(control, START_TIMEOUT_S)[0]:
                server.close()
                said.seek(0)
                text = said.read()[-400:].decode(errors="replace").strip()
                raise SandboxError(f"the interpreter to fork from did not start: {text}")
        return server

    def _drop(self, key: str) -> None:
        with self._lock:
            future = self._servers.pop(key, None)
        if future is not None and future.exception() is None:
            future.result().close()


class Server:
    """One running `fork_server`. Jobs may be sent from many threads."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process, self._control = process, control
        self._lock = Lock()

    def send(self, message: bytes, fds: list[int]) -> None:
        """Hand over one job. `SandboxError` when the server is gone."""
        try:
            with self._lock:
                socket.send_fds(self._control, [message], fds)
        except OSError as error:
            raise SandboxError(f"the interpreter to fork from is gone ({error})") from error

    def is_alive(self) -> bool:
        """Whether the server runs."""
        return self._process.poll() is None

    def retire(self) -> None:
        """Take no more jobs; what runs comes to its end first."""
        with self._lock, suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the server and everything that was forked from it."""
        self._control.close()
        with suppress(OSError):
            self._process.kill()
        self._process.wait()


class ForkedRun:
    """One job in a server: handshake, bounds, certain end."""

    def __init__(self, job: Job, folder: Path, groups: list[Path]) -> None:
        self._job, self._folder, self._groups = job, folder, groups

    def run(self, server: Server, message: bytes) -> RunResult | None:
        """Start, hold, bound, release, follow to the end."""
        with ExitStack() as stack:
            link, output = self._send(server, message, stack)
            hello, fds = _receive(link, START_TIMEOUT_S)
            for fd in fds:
                stack.callback(os.close, fd)
            if "error" in hello or not fds:
                raise SandboxError(f"a run could not be forked: {hello.get('error', 'no answer')}")
            if hello["refused"]:
                log.debug("%s: the tree has its own %s", self._folder.name, hello["refused"])
                return None
            init = fds[0]
            stack.callback(_kill, init)
            link.send(b"x")
            return self._follow(link, output, init)

    def _send(self, server: Server, message: bytes, stack: ExitStack) -> tuple[socket.socket, int]:
        link, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(link)
        output, output_in = os.pipe()
        stack.callback(os.close, output)
        with far, (self._folder / "stdin").open("rb") as stdin, entrances(self._groups) as doors:
            try:
                server.send(message, [far.fileno(), output_in, stdin.fileno(), *doors])
            finally:
                os.close(output_in)
        return link, output

    def _follow(self, link: socket.socket, output: int, init: int) -> RunResult:
        job, out = self._job, self._folder / "out"
        pid, watch = host_pid(init), OutWatch(out, job.quota)
        tree = Path(f"/proc/{pid}/root{WORKDIR}")
        ending = collect(
            output,
            init,
            job.quota,
            lambda: _kill(init),
            lambda: watch.excess(pid) or memory_excess(tree, job.quota),
        )
        told = _receive(link, KILL_GRACE_S)[0]
        if "error" in told:
            raise SandboxError(f"a run could not begin: {told['error']}")
        code, stopped = told.get("exit_code"), ending.stopped
        if ran_out_of_memory(self._groups) and code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            stopped = stopped or "out of memory"
        if code is not None and code < 0:  # init itself was killed
            code = 128 + signal.SIGKILL if stopped else None
        if code is None and not ending.timed_out:
            said = ending.output[-400:].decode(errors="replace").strip()
            raise SandboxError(f"a forked run ended without an exit code: {said}")
        return RunResult(
            exit_code=None if ending.timed_out else code,
            timed_out=ending.timed_out,
            output=ending.annotated(),
            output_truncated=ending.truncated,
            duration_s=ending.duration_s,
            files={} if ending.stopped else read_out(out, job.quota.output),
            stopped=stopped,
        )


def host_pid(pidfd: int) -> int:
    """The pid, in our own namespace, of the process behind a descriptor; -1 when it is gone."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pid:")))


def _message(job: Job, folder: Path) -> bytes:
    document = {
        "folder": folder.name,
        "layer": bool(job.layer),
        "inputs": bool(job.inputs),
        "deleted": deleted_paths(job.layer),
        "workdir": WORKDIR,
        "module": module_of(job),
        "arguments": list(job.module[1:]),
        "variables": variables_of(job),
        "limits": job.quota.limits(),
        "tmp_size": TMP_SIZE,
        "shm_size": SHM_SIZE,
    }
    return json.dumps(document).encode()


def _receive(link: socket.socket, timeout_s: float) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors; ({}, []) when there is none in time."""
    if not select.select([link], [], [], timeout_s)[0]:
        return {}, []
    try:
        message, fds, _, _ = socket.recv_fds(link, 1 << 16, 1)
    except OSError:
        return {}, []
    return (json.loads(message) if message else {}), list(fds)


def _kill(pidfd: int) -> None:
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
