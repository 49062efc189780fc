"""Runs inside a sandbox as its first process and serves one `Session` (sandbox/session.py).

A program of its own: standard library alone, Python 3.8 or newer. Requests come and answers go as
JSON, 8 hexadecimal digits of length before each, through two named pipes that are gone from the
file system once they are open. As the first process of its namespace it cannot be killed from
inside, and its end is the end of everything that it started.
"""

# Paths are bytes here, which pathlib does not know.
# ruff: noqa: PTH103, PTH115, PTH116, PTH118, PTH120
from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

WORKDIR = "/testbed"
PR_SET_DUMPABLE = 4
KILL_GRACE_S = 15.0
MAX_STATE = 1 << 20
MAX_ENTRIES = 200_000
CLIENT, DESK = "/in/reference.py", "\0selfplay-reference"
"""The program that asks the harness for a run, where there is one, and the socket it asks at."""
MAX_QUESTION, PATIENCE_S = 4 << 20, 5.0
WHOLE = b"#whole\n"
SHELL = b"""\
echo 500 >/proc/self/oom_score_adj
trap '{ set +eux; printf "cd -- %q\\n" "$PWD"; declare -p; declare -f; echo "#whole"
} >&8 2>/dev/null' EXIT
. /dev/fd/7 >/dev/null 2>&1
. /dev/fd/9
"""
"""One bash for each command: the last state is fd 7, the next one 8, the command 9."""


class Gone(Exception):
    """The harness has closed the session."""


class Clipped:
    """The first and the last bytes of a stream, `room` in all."""

    def __init__(self, room: int) -> None:
        self.half = max(1, room // 2)
        self.head, self.tail, self.dropped = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        fits = max(0, self.half - len(self.head))
        self.head += data[:fits]
        self.tail += data[fits:]
        surplus = len(self.tail) - self.half
        if surplus > 0:
            del self.tail[:surplus]
            self.dropped += surplus


class Server:
    """The pipes, the shell's state, and the outputs of what still runs in the background."""

    def __init__(self) -> None:
        self.ask = os.open("/in/ask", os.O_RDONLY | os.O_CLOEXEC)
        self.answers = os.open("/in/answer", os.O_WRONLY | os.O_CLOEXEC)
        # The end of a child writes a byte here, so that one `select` waits for everything; without
        # it a child that dies between a check and the call would be waited for in vain.
        self.wake, notify = os.pipe()
        for fd in (self.wake, notify):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(notify)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.desk: list[socket.socket] = []
        if os.access(CLIENT, os.F_OK):
            self.desk.append(socket.socket(socket.AF_UNIX))
            self.desk[0].bind(DESK)
            self.desk[0].listen(64)
        self.background: list[int] = []
        self.ended: dict[int, int] = {}
        self.state = b""

    def serve(self) -> None:
        """Answer requests until the harness goes."""
        operations: dict[str, Callable[..., dict[str, Any]]]
        operations = {"run": self.run, "read": read, "write": write, "changes": changes}
        self.answer({"ready": True})
        while True:
            request = json.loads(self.take(int(self.take(8), 16)))
            try:
                answer = operations[request.pop("op")](**request)
            except OSError as error:
                answer = {"problem": error.strerror or str(error)}
            self.answer(answer)

    def take(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            if self.ask in self.wait([self.ask], None):
                piece = os.read(self.ask, min(size - len(data), 1 << 16))
                if not piece:
                    raise Gone
                data += piece
        return bytes(data)

    def answer(self, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode("ascii")
        view = memoryview(b"%08x" % len(data) + data)
        while view:
            view = view[os.write(self.answers, view) :]

    def wait(self, wanted: list[int], timeout_s: float | None) -> list[int]:
        """Those of `wanted` that are readable, perhaps none; the background is drained, the dead
        are buried."""
        ready, _, _ = select.select([*wanted, self.wake, *self.background], [], [], timeout_s)
        if self.wake in ready:
            os.read(self.wake, 4096)
            self.reap()
        for fd in [fd for fd in self.background if fd in ready]:
            if not os.read(fd, 1 << 16):
                self.background.remove(fd)
                os.close(fd)
        return [fd for fd in wanted if fd in ready]

    def reap(self) -> bool:
        """Bury the dead; False when no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            self.ended[pid] = code

    def kill_all(self) -> None:
        """End every process but this one. What will not die is ended with the sandbox."""
        deadline = time.monotonic() + KILL_GRACE_S
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            if not self.reap():
                break
            if time.monotonic() > deadline:
                raise Gone
            time.sleep(0.002)
        while self.background:
            os.close(self.background.pop())

    def run(self, command: str, timeout_s: float, room: int) -> dict[str, Any]:
        """One command in a bash that begins where the last one ended."""
        began = time.monotonic()
        output = Clipped(room)
        self.ended.clear()
        files = [memory(SHELL), memory(self.state), memory(b""), memory(encoded(command))]
        read_end, write_end = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        timed_out = False
        try:
            pid = spawn(nothing, write_end, files)
        except OSError as error:  # too much runs in the background already
            pid = 0
            self.ended[pid] = 126
            output.add(f"bash: {error.strerror}\n".encode())
        os.close(write_end)
        os.close(nothing)
        os.set_blocking(read_end, False)
        if pid:
            timed_out = self.follow(pid, read_end, output, began + timeout_s)
        self.finish_output(read_end, output)
        # A shell that was killed, or filled the file, leaves no last line: the state before holds.
        saved = os.pread(files[2], MAX_STATE + 1, 0)
        if saved.endswith(WHOLE) and len(saved) <= MAX_STATE:
            self.state = saved
        for fd in files:
            os.close(fd)
        return {
            "exit_code": None if timed_out else self.ended[pid],
            "timed_out": timed_out,
            "head": coded(output.head),
            "tail": coded(output.tail),
            "dropped": output.dropped,
            "duration_s": time.monotonic() - began,
        }

    def follow(self, pid: int, stream: int, output: Clipped, deadline: float) -> bool:
        """Read until the shell has ended; True when its time is up first."""
        others = [self.ask, *(desk.fileno() for desk in self.desk)]
        wanted = [stream, *others]
        while pid not in self.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill_all()
                return True
            ready = self.wait(wanted, left)
            if self.ask in ready:  # one request at a time: nobody is there any more
                raise Gone
            if stream in ready:
                piece = os.read(stream, 1 << 16)
                output.add(piece)
                if not piece:  # closed, but the shell goes on
                    wanted = others
            for desk in self.desk:
                if desk.fileno() in ready:
                    self.pass_on(desk)
        return False

    def pass_on(self, desk: socket.socket) -> None:
        """One question of a command to the harness, and its answer back. Whoever does not ask or
        listen in time is left."""
        with contextlib.suppress(OSError), desk.accept()[0] as caller:
            deadline, question = time.monotonic() + PATIENCE_S, bytearray()
            while not question.endswith(b"\n"):
                caller.settimeout(max(0.01, deadline - time.monotonic()))
                piece = caller.recv(1 << 16)
                if not piece or len(question) > MAX_QUESTION:
                    return
                question += piece
            self.answer({"asks": coded(question)})
            answer = self.take(int(self.take(8), 16))
            caller.settimeout(PATIENCE_S)
            caller.sendall(answer)

    def finish_output(self, stream: int, output: Clipped) -> None:
        """What was printed up to now. Whoever still holds the pipe is read in the background."""
        for _ in range(4):  # a pipe holds 64 KiB; more is the background's
            try:
                piece = os.read(stream, 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                os.close(stream)
                return
            output.add(piece)
        self.background.append(stream)


def spawn(nothing: int, output: int, files: list[int]) -> int:
    """Start the shell in a session of its own."""
    plan = [
        (os.POSIX_SPAWN_DUP2, source, fd) for fd, source in enumerate([nothing, output, output])
    ]
    plan += [(os.POSIX_SPAWN_DUP2, source, fd) for fd, source in enumerate(files, 6)]
    return os.posix_spawnp(
        "bash",
        ["bash", "--noprofile", "--norc", "/dev/fd/6"],
        os.environ,
        file_actions=plan,
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD],
    )


def memory(content: bytes) -> int:
    """A file in memory, its descriptor above those that the shell gets."""
    fd = os.memfd_create("session", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)


def read(path: str, max_bytes: int, follow: bool) -> dict[str, Any]:
    """Content of a plain file, or the problem: missing, link, directory, special, huge."""
    place = encoded(os.path.join(WORKDIR, path))
    try:
        status = os.stat(place) if follow else os.lstat(place)
        problem = kind_problem(status.st_mode)
        if problem or status.st_size > max_bytes:
            return {"problem": problem or "huge"}
        flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        with os.fdopen(os.open(place, flags), "rb") as file:
            content = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {"problem": "missing"}
    return {"problem": "huge"} if len(content) > max_bytes else {"content": coded(content)}


def write(path: str, content: str) -> dict[str, Any]:
    """Replace or create a plain file and the folders above it. A pipe would hold us up for ever, or
    be one of ours: /proc/self/fd is that of this process."""
    place = encoded(os.path.join(WORKDIR, path))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
    with os.fdopen(os.open(place, flags, 0o666), "wb") as file:
        problem = kind_problem(os.fstat(file.fileno()).st_mode)
        if problem:
            return {"problem": problem}
        file.truncate(0)
        file.write(base64.b64decode(content))
    return {}


def changes(
    known: dict[str, list[Any]], skip: list[str], max_file: int, max_bytes: int
) -> dict[str, Any]:
    """What differs from `known` ({path: [sha256 or "link:TARGET", executable]}) below the tree.

    files       {path: [content, executable]} of what is new or changed
    gone        known paths that are no plain file any more
    left_out    {path: why} of what is neither
    """
    files: dict[str, list[Any]] = {}
    left_out: dict[str, str] = {}
    seen = set()
    for path, place, status in walk(skip, left_out):
        problem = kind_problem(status.st_mode)
        if problem == "link" and known.get(path, [""])[0] == "link:" + target(place):
            seen.add(path)
            continue
        if problem:
            left_out[path] = problem
            continue
        seen.add(path)
        try:
            if status.st_size > min(max_file, max_bytes):
                raise OSError(0, "huge")
            # The command may put a link or a pipe here between `stat` and this.
            with open(place, "rb", opener=unfollowed) as file:
                content = file.read(max_file)
        except OSError as error:
            left_out[path] = error.strerror or "unreadable"
            continue
        executable = bool(status.st_mode & 0o100)
        if known.get(path) != [hashlib.sha256(content).hexdigest(), executable]:
            max_bytes -= len(content)
            files[path] = [coded(content), executable]
    return {"files": files, "gone": [p for p in known if p not in seen], "left_out": left_out}


def walk(skip: list[str], left_out: dict[str, str]) -> Iterator[tuple[str, str, os.stat_result]]:
    """(path, place, status) of all below the tree but directories; no link is followed."""
    pending, number = [""], 0
    while pending:  # a stack of our own: a tree may be deeper than Python's
        folder = pending.pop()
        try:
            entries = list(os.scandir(os.path.join(WORKDIR, folder)))
        except OSError as error:
            left_out[folder] = error.strerror or "closed"
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            number += 1
            if number > MAX_ENTRIES:
                left_out[path] = "too many files"
                return
            if entry.name in skip:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                left_out[path] = error.strerror or "unreadable"
                continue
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            else:
                yield path, entry.path, status


def target(link: str) -> str:
    """Where a link leads; "" when a command has removed it meanwhile."""
    with contextlib.suppress(OSError):
        return os.readlink(link)
    return ""


def kind_problem(mode: int) -> str:
    names = {stat.S_IFREG: "", stat.S_IFLNK: "link", stat.S_IFDIR: "directory"}
    return names.get(stat.S_IFMT(mode), "special")


def unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def coded(content: bytes | bytearray) -> str:
    return base64.b64encode(content).decode("ascii")


if __name__ == "__main__":
    if os.getpid() != 1:  # it ends everything that it can reach
        sys.exit("serves a sandbox as its first process, and nothing else")
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        Server().serve()
    except Gone:
        sys.exit(0)
