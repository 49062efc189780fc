"""A sandbox that stays: many commands, one after the other, on one private copy of a tree.

A session is one long job of any backend. Its first process is `session_server.py`, which runs each
command in a bash of its own that begins with the variables, functions and working directory that
the last one left. Walls, bounds and the certain end are the backend's: when the job ends, nothing
of the session is left.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from selfplay.errors import SandboxError, SandboxSpent, SelfplayError
from selfplay.sandbox.base import Job, RunResult, Sandbox
from selfplay.sandbox.host import sandbox_uid
from selfplay.sandbox.pool import RetryingSandbox
from selfplay.sandbox.session import asking
from selfplay.sandbox.session import server as session_server
from selfplay.sandbox.session.helper import Helping
from selfplay.types import FileChange, Layer

log = logging.getLogger(__name__)
START_TIMEOUT_S = 90.0
ANSWER_GRACE_S = 45.0
CLOSE_TIMEOUT_S = 30.0
MAX_ANSWER = 256 << 20
MAX_FILE, MAX_CHANGES = 4 << 20, 32 << 20
PROGRAM = "session_server.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult:
    """How a command ended. Of a long output the middle is missing: `num_dropped` bytes between
    `head` and `tail`. `exit_code` is None when `timed_out`: then all processes were ended."""

    exit_code: int | None
    timed_out: bool
    head: bytes
    tail: bytes
    num_dropped: int
    duration_s: float

    @property
    def output(self) -> bytes:
        """Output and errors in order, with a note where the middle is missing."""
        if not self.num_dropped:
            return self.head + self.tail
        note = f"\n[... {self.num_dropped} bytes left out ...]\n"
        return self.head + note.encode() + self.tail

    @property
    def failure(self) -> str:
        """Why the command failed, in words; "" where it did not."""
        if self.timed_out:
            return f"it took longer than {self.duration_s:.0f} s; is the machine very busy?"
        said = self.output[-300:].decode(errors="replace").strip()
        return f"exit code {self.exit_code}: {said}" if self.exit_code else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a session's tree differs by from the original one; `left_out` says why a path is in
    neither state: link, special, huge, or the reason that the system gave."""

    layer: Layer
    left_out: Mapping[str, str] = field(default_factory=dict)


class FileProblem(Exception):
    """A file cannot be read or written: missing, link, directory, special, huge, or the system's
    reason. A value in disguise."""


class Session:
    """One open sandbox. One request at a time; `close` may come from any thread.

    Every method raises `SandboxError` once the sandbox is gone, and `SandboxSpent` when it was
    ended for using up what it was given (memory, disk).
    """

    def __init__(self, sandbox: Sandbox, job: Job) -> None:
        """Open a session in the environment and with the layer, variables and quota of `job`,
        whose `argv` is not used; its quota's time-out bounds the whole session."""
        inner = sandbox.inner if isinstance(sandbox, RetryingSandbox) else sandbox
        inputs = {**job.inputs, PROGRAM: Path(session_server.__file__).read_bytes()}
        self._helping: Helping | None = None
        if job.helper is not None:
            inputs[Path(session_server.CLIENT).name] = Path(asking.__file__).read_bytes()
            self._helping = Helping(helper=job.helper, sandbox=inner)
        self._job = replace(
            job,
            argv=("python", "-I", "-S", f"/in/{PROGRAM}"),
            inputs=inputs,
            attach=self._attach,
        )
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._pipes: list[Path] = []
        self._ask = self._answer = -1
        self._attached = threading.Event()
        self._done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._result: RunResult | None = None
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._follow, args=(inner,), daemon=True)
        self._thread.start()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def run(self, command: str, timeout_s: float, max_output: int = 1 << 20) -> SessionResult:
        """Run a bash command; at its time-out every process of the session is ended."""
        request = {"op": "run", "command": command, "timeout_s": timeout_s, "room": max_output}
        answer = _performed(self.call(request, timeout_s), "a command could not be started")
        return SessionResult(
            exit_code=answer["exit_code"],
            timed_out=answer["timed_out"],
            head=base64.b64decode(answer["head"]),
            tail=base64.b64decode(answer["tail"]),
            num_dropped=answer["dropped"],
            duration_s=answer["duration_s"],
        )

    def read(self, path: str, max_bytes: int = MAX_FILE, *, follow: bool = False) -> bytes:
        """Content of a plain file; relative paths begin at the tree. Raises `FileProblem`."""
        answer = self.call(
            {"op": "read", "path": path, "max_bytes": max_bytes, "follow": follow}, 0.0
        )
        return base64.b64decode(_unless_problem(answer)["content"])

    def write(self, path: str, content: bytes) -> None:
        """Replace or create a file and the folders above it. Raises `FileProblem`."""
        coded = base64.b64encode(content).decode("ascii")
        _unless_problem(self.call({"op": "write", "path": path, "content": coded}, 0.0))

    def read_changes(self, skip: Sequence[str] = (".git",)) -> Changes:
        """The tree's state now as a layer above the original; names in `skip` are passed over.

        A file that is left out counts as it was when the session began, never as its original.
        """
        environment = self._job.environment
        known = _fingerprints(environment.tree, environment.digest)
        request: dict[str, Any] = {"op": "changes", "known": known, "skip": list(skip)}
        request |= {"max_file": MAX_FILE, "max_bytes": MAX_CHANGES}
        answer = _performed(self.call(request, 60.0), "the tree could not be read")
        layer = {
            path: FileChange(content=None) for path in answer["gone"] if not _skipped(path, skip)
        }
        for path, (content, executable) in answer["files"].items():
            layer[path] = FileChange(content=base64.b64decode(content), executable=executable)
        for path in answer["left_out"]:
            if path in self._job.layer and path not in layer:
                layer[path] = self._job.layer[path]
        return Changes(layer=layer, left_out=answer["left_out"])

    def close(self) -> None:
        """End the session and everything in it. Idempotent, also from two threads at once."""
        self._closed = True
        with self._closing:
            self._attached.wait(START_TIMEOUT_S)
            if self._done >= 0:
                os.eventfd_write(self._done, 1)  # whoever waits for an answer lets go
            with self._lock:
                for fd in (self._ask, self._answer):
                    if fd >= 0:
                        os.close(fd)
                self._ask = self._answer = -1
            self._thread.join(CLOSE_TIMEOUT_S)
            if self._thread.is_alive():
                log.warning("a session does not end; its time-out will end it")
            elif self._done >= 0:
                os.close(self._done)
                self._done = -1

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow(self, sandbox: Sandbox) -> None:
        """In a thread: the job, from its beginning to its end."""
        try:
            self._result = sandbox.run(self._job)
        except BaseException as error:
            self._error = error
        self._attached.set()
        os.eventfd_write(self._done, 1)

    def _attach(self, folder: Path) -> None:
        """Make the pipes in the folder that the sandbox sees at /in."""
        fds = []
        for name in ("ask", "answer"):
            path = folder / name
            os.mkfifo(path)
            path.chmod(0o600)
            if os.geteuid() == 0:
                os.chown(path, sandbox_uid(), sandbox_uid())
            fds.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            self._pipes.append(path)
        self._ask, self._answer = fds
        self._attached.set()

    def _start(self) -> None:
        self._attached.wait(START_TIMEOUT_S)
        with self._lock:
            if self._receive(START_TIMEOUT_S) != {"ready": True}:
                raise SandboxError("a session began with an odd word")
        for path in self._pipes:  # nobody else may open them
            path.unlink(missing_ok=True)

    def call(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """One request as the server reads it, and its answer; the methods above say which."""
        with self._lock:
            if self._closed:
                raise SandboxError("the session is closed")
            deadline = timeout_s + ANSWER_GRACE_S
            try:
                self._send(json.dumps(request).encode("ascii"), deadline)
                answer = self._receive(deadline)
                while self._helping and isinstance(answer, dict) and "asks" in answer:
                    helped = self._helping.answer(answer["asks"])
                    self._send(json.dumps(helped).encode("ascii"), deadline)
                    answer = self._receive(deadline)
            except (ValueError, OSError) as error:
                raise SandboxError(f"a session answered what cannot be read: {error}") from error
        if not isinstance(answer, dict):
            raise SandboxError("a session answered what cannot be read")
        return answer

    def _send(self, data: bytes, timeout_s: float) -> None:
        view = memoryview(b"%08x" % len(data) + data)
        deadline = time.monotonic() + timeout_s
        while view:
            self._wait(self._ask, select.POLLOUT, deadline)
            with suppress(BlockingIOError):
                view = view[os.write(self._ask, view[: 1 << 16]) :]

    def _receive(self, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        size = int(self._take(8, deadline), 16)
        if size > MAX_ANSWER:
            raise SandboxError("a session answered too much")
        return json.loads(self._take(size, deadline))

    def _take(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._answer, select.POLLIN, deadline)
            with suppress(BlockingIOError):
                data += os.read(self._answer, min(size - len(data), 1 << 16))
        return bytes(data)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        """Until `fd` is ready. Raises when the session has ended or does not answer in time."""
        if fd < 0:
            raise self._ending()
        poller = select.poll()
        poller.register(fd, event)
        poller.register(self._done, select.POLLIN)
        ready = dict(poller.poll(max(0.0, deadline - time.monotonic()) * 1000 + 1))
        if fd in ready:
            return
        if self._done in ready:
            raise self._ending()
        raise SandboxError("a session does not answer")

    def _ending(self) -> SelfplayError:
        """Why there is no session any more."""
        if isinstance(self._error, SelfplayError):
            return self._error
        if self._error is not None:
            return SandboxError(f"a session could not be run: {self._error}")
        result = self._result
        if result is not None and result.stopped:
            return SandboxSpent(result.stopped)
        if result is None or result.timed_out:
            return SandboxError("the session is closed, or its time is up")
        said = result.output[-400:].decode(errors="replace").strip()
        return SandboxError(f"the session's first process ended (exit {result.exit_code}): {said}")


def _unless_problem(answer: dict[str, Any]) -> dict[str, Any]:
    if "problem" in answer:
        raise FileProblem(str(answer["problem"]))
    return answer


def _performed(answer: dict[str, Any], what: str) -> dict[str, Any]:
    """An answer to what no file of the guest's can hinder. Raises `SandboxError`."""
    if "problem" in answer:
        raise SandboxError(f"{what}: {answer['problem']}")
    return answer


def _skipped(path: str, skip: Sequence[str]) -> bool:
    return any(part in skip for part in path.split("/"))


@lru_cache(maxsize=64)
def _fingerprints(tree: Path, digest: str) -> dict[str, list[Any]]:
    """{path: [sha256 or "link:TARGET", executable]} of the original tree; `digest` is its key."""
    found: dict[str, list[Any]] = {}
    for folder, folders, files in os.walk(tree):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in (*files, *links):
            file = Path(folder) / name
            path = file.relative_to(tree).as_posix()
            if file.is_symlink():
                found[path] = [f"link:{file.readlink()}", False]
            elif file.is_file():
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                found[path] = [content, bool(file.stat().st_mode & 0o100)]
    return found
