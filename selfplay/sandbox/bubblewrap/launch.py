"""One start of bwrap: its pipes, the handshake that bounds it, and its certain end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Job, Quota, RunResult
from selfplay.sandbox.bubblewrap.cgroup import born_in, enter, ran_out_of_memory
from selfplay.sandbox.collect import OutWatch, collect
from selfplay.sandbox.scratch import read_out

START_TIMEOUT_S = 60.0


class Launch:
    """A context: when it is left, every descriptor is closed and every process dead.

    `arguments()` and `pass_file()` make the parts of bwrap's command line that name descriptors;
    then `run()` starts it once.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._open: set[int] = set()
        self._passed: list[int] = []
        self._init = -1  # pidfd of the namespace's first process
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Launch:
        self._output, self._output_in = self._pipe()
        self._status, self._status_in = self._pipe()
        self._block, self._release = self._pipe()
        self._passed += [self._status_in, self._block]
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        if self._process is not None:
            self._process.wait()
        for fd in list(self._open):
            self._close(fd)

    def arguments(self) -> list[str]:
        """bwrap's options for the handshake."""
        return ["--json-status-fd", str(self._status_in), "--block-fd", str(self._block)]

    def pass_file(self, path: Path) -> int:
        """Open a file for bwrap to read from its descriptor."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open.add(fd)
        self._passed.append(fd)
        return fd

    def run(self, argv: list[str], groups: list[Path]) -> RunResult:
        """Start, hold, bound, release, follow to the end. `groups` are cgroup directories."""
        job, out = self._job, self._folder / "out"
        try:
            with born_in(groups):
                self._start(argv)
        except OSError as error:
            raise SandboxError(f"cannot enter a cgroup: {error}") from error
        child = self._first_process()
        try:
            self._init = os.pidfd_open(child)
            self._open.add(self._init)
            enter(groups, child)
            os.write(self._release, b"x")
        except OSError as error:
            raise self._failure(f"cannot bound a sandbox ({error})") from error
        root, watch = Path(f"/proc/{child}/root"), OutWatch(out, job.quota)
        ending = collect(
            self._output,
            self._init,
            job.quota,
            self._kill,
            lambda: watch.excess(child) or memory_excess(root, job.quota),
        )
        assert self._process is not None
        self._process.wait()
        code = self._exit_code()
        stopped = ending.stopped
        if ran_out_of_memory(groups) and code in (None, 128 + signal.SIGKILL):
            stopped = stopped or "out of memory"
        if code is None and stopped:
            code = 128 + signal.SIGKILL  # the job's doing: bwrap shares its bounds
        if code is None and not ending.timed_out:
            said = ending.output[-400:].decode(errors="replace").strip()
            raise SandboxError(f"bubblewrap failed (exit {self._process.returncode}): {said}")
        return RunResult(
            exit_code=None if ending.timed_out else code,
            timed_out=ending.timed_out,
            output=ending.annotated(),
            output_truncated=ending.truncated,
            duration_s=ending.duration_s,
            files={} if ending.stopped else read_out(out, job.quota.output),
            stopped=stopped,
        )

    def _start(self, argv: list[str]) -> None:
        with (self._folder / "stdin").open("rb") as stdin:
            try:
                self._process = subprocess.Popen(
                    argv,
                    stdin=stdin,
                    stdout=self._output_in,
                    stderr=subprocess.STDOUT,
                    pass_fds=self._passed,
                    cwd="/",
                )
            except (OSError, ValueError) as error:
                raise SandboxError(f"bubblewrap could not be started: {error}") from error
        for fd in (self._output_in, *self._passed):
            self._close(fd)

    def _first_process(self) -> int:
        """Pid of the namespace's first process, which waits for our word before it goes on."""
        deadline = time.monotonic() + START_TIMEOUT_S
        text = b""
        while b"\n" not in text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._status], [], [], left)[0]:
                raise SandboxError(f"bubblewrap did not start within {START_TIMEOUT_S:.0f} s")
            chunk = os.read(self._status, 4096)
            if not chunk:
                raise self._failure("bubblewrap failed")
            text += chunk
        return int(json.loads(text.partition(b"\n")[0])["child-pid"])

    def _failure(self, what: str) -> SandboxError:
        """The error of a bwrap that did not come up, with what it said."""
        assert self._process is not None
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        said = _drain(self._output)[-400:].decode(errors="replace").strip()
        return SandboxError(f"{what}, exit {self._process.returncode}: {said}")

    def _exit_code(self) -> int | None:
        """The command's exit code from bwrap's status lines; None when it never ran."""
        for line in _drain(self._status).decode(errors="replace").splitlines():
            document = json.loads(line)
            if "exit-code" in document:
                return int(document["exit-code"])
        return None

    def _kill(self) -> None:
        if self._init >= 0 and self._init in self._open:
            with suppress(OSError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)


def memory_excess(root: Path, quota: Quota) -> str:
    """Names the bound when the sandbox's own in-memory file system (the overlay's upper layer)
    holds more than the job's memory; "" while within bounds or where it cannot be seen.

    A slow start still has this machine's own root, whose size is not the job's doing.
    """
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if os.fstat(fd).st_dev == Path("/").stat().st_dev:
            return ""
        status = os.fstatvfs(fd)
    finally:
        os.close(fd)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    return "files written hold too many bytes" if used > quota.memory else ""


def _drain(fd: int) -> bytes:
    """What lies in a pipe now."""
    os.set_blocking(fd, False)
    text = b""
    while True:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return text
        if not chunk:
            return text
        text += chunk
