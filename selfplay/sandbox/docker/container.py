"""One container's life: started, waits, runs one job, is removed."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from docker.errors import DockerException
from requests.exceptions import RequestException

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Job, RunResult
from selfplay.sandbox.collect import KILL_GRACE_S, OutWatch, collect
from selfplay.sandbox.docker.workers import Channel
from selfplay.sandbox.host import make_readable
from selfplay.sandbox.scratch import read_out, remove_tree

log = logging.getLogger(__name__)
START_TIMEOUT_S = 60.0


class DockerWorker:
    """One container: started, waits, runs one job, is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("in", "out"):
            (folder / name).mkdir()
        make_readable(folder)
        self._channel = Channel(folder / "sandbox")
        self._container: Any = None
        self._init: int | None = None

    def start(self, container: Any) -> None:
        """Start a created container and return when it waits. `SandboxError`, Docker's errors."""
        self._container = container
        container.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while b"waiting" not in self._channel.hear(timeout_s=1.0):
            container.reload()
            late = time.monotonic() > deadline
            if late or container.status != "running" or not self._channel.is_connected():
                raise self._failure()
        container.reload()
        self._init = _open_init(container, self._folder.name)
        self._channel.shut_below()

    def is_waiting(self) -> bool:
        """Whether it can still take a job."""
        return self._channel.is_connected()

    def run(self, job: Job, script: bytes, files: Path) -> RunResult:
        """Hand over a job and follow it to its end; `files` is its folder of `Scratch`."""
        assert self._init is not None
        with engine_errors("a job could not be handed over"):
            if job.inputs:
                for entry in (files / "in").iterdir():
                    entry.rename(self._folder / "in" / entry.name)
            if job.attach is not None:
                job.attach(self._folder / "in")
            self._channel.release(script, files)
        out, first = self._folder / "out", int(self._container.attrs["State"]["Pid"])
        watch = OutWatch(out, job.quota)
        ending = collect(
            self._channel.output,
            self._init,
            job.quota,
            self._kill,
            lambda: watch.excess(first),
        )
        said = self._channel.hear()[1:]
        if b"ready" not in said[:1]:
            raise self._failure(ending.output)
        code = None if ending.timed_out else self._exit_code(said[1:])
        stopped = ending.stopped or (code == 137 and self._memory_ended()) or ""
        if code == 137 and not said[1:] and not stopped:
            raise SandboxError("a container was killed from outside: was the engine restarted?")
        return RunResult(
            exit_code=code,
            timed_out=ending.timed_out,
            output=ending.annotated(),
            output_truncated=ending.truncated,
            duration_s=ending.duration_s,
            files={} if ending.stopped else read_out(out, job.quota.output),
            stopped=stopped,
        )

    def remove(self) -> None:
        """Remove the container and its folder; a failure is logged."""
        self._channel.close()
        if self._init is not None:
            os.close(self._init)
            self._init = None
        if self._container is not None:
            remove_container(self._container)
        remove_tree(self._folder)

    def _exit_code(self, said: list[bytes]) -> int:
        """The one code that was said, which comes before the engine's own; the engine's when the
        shell could not say it, or when somebody else spoke too."""
        if len(said) == 1 and (match := re.fullmatch(rb"exit (\d{1,3})", said[0])):
            return int(match[1])
        with engine_errors("lost sight of a container"):
            return int(self._container.wait(timeout=KILL_GRACE_S)["StatusCode"])

    def _memory_ended(self) -> str:
        """Names the bound when the container was killed for its memory."""
        with suppress(DockerException, RequestException):
            self._container.reload()
        return "out of memory" if self._container.attrs["State"].get("OOMKilled") else ""

    def _kill(self) -> None:
        with suppress(DockerException, RequestException):  # it may have ended by itself
            self._container.kill()

    def _failure(self, printed: bytes = b"") -> SandboxError:
        said = printed[-400:].decode(errors="replace").strip() or self._channel.read_output()
        with suppress(DockerException, RequestException):
            self._container.reload()
        state = self._container.attrs.get("State", {})
        code = state.get("Error") or state.get("ExitCode")
        return SandboxError(f"the container failed before the command (exit {code}): {said}")


def _open_init(container: Any, name: str) -> int:
    """A pidfd of the container's first process, whose command line (or that of the runtime's
    process that stands for it) names the container's folder or id."""
    pid = int(container.attrs["State"]["Pid"])
    with engine_errors("a container has ended before its job"):
        fd = os.pidfd_open(pid)
    command = b""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    if name.encode() not in command and container.id.encode() not in command:
        os.close(fd)
        raise SandboxError(
            "the first process of a container cannot be seen from here: it has ended already, or "
            "the engine runs in another pid namespace than we"
        )
    return fd


def remove_container(container: Any) -> None:
    """Remove a container, running or not; a failure is logged."""
    try:
        container.remove(force=True, v=True)
    except (DockerException, RequestException) as error:
        log.warning("container %s could not be removed: %s", container.short_id, error)


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Faults of the engine and of the disk as `SandboxError`, which says `what` they spoilt."""
    try:
        yield
    except (DockerException, OSError) as error:  # those of requests are OSErrors
        raise SandboxError(f"Docker: {what}: {error}") from error
