"""Sandboxes that stay: the same behaviour behind both backends, and their certain end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfplay.errors import SandboxError, SandboxSpent, UserError
from selfplay.sandbox.base import Environment, Job, Quota, Sandbox
from selfplay.sandbox.pool import RetryingSandbox
from selfplay.sandbox.select import open_sandbox
from selfplay.sandbox.session.server import Clipped
from selfplay.sandbox.session.session import MAX_FILE, FileProblem, Session
from selfplay.sandbox.unsafe import UnsafeSandbox
from selfplay.types import FileChange, Layer

Open = Callable[..., Session]


@pytest.fixture(
    scope="module", params=["bubblewrap", pytest.param("docker", marks=pytest.mark.docker)]
)
def backend(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    opened = open_sandbox(request.param)
    yield opened
    opened.close()


@pytest.fixture
def opened(backend: Sandbox, environment: Environment) -> Iterator[Open]:
    """opened(layer=..., quota=...): a session that is closed at the end of the test."""
    sessions: list[Session] = []

    def start(**keywords: object) -> Session:
        job = Job(environment=environment, argv=(), **keywords)  # type: ignore[arg-type]
        sessions.append(Session(backend, job))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


def said(session: Session, command: str, timeout_s: float = 20.0) -> str:
    return session.run(command, timeout_s).output.decode()


def test_state_is_kept_between_commands(opened: Open) -> None:
    session = opened()
    assert said(session, "pwd") == "/testbed\n"
    set_up = "cd package; export A='x y\n z'; B=(1 '2 3'); greet() { echo hi $1; }; echo n > new"
    assert said(session, set_up) == ""
    assert said(session, 'pwd; echo "$A"; echo ${B[1]}; greet you; env | grep -c ^A=; cat new') == (
        "/testbed/package\nx y\n z\n2 3\nhi you\n1\nn\n"
    )
    assert session.run("cd sub; exit 7", 9).exit_code == 7
    assert said(session, "pwd") == "/testbed/package/sub\n"
    assert session.run("cd /tmp; set -e; false; echo no", 9).exit_code == 1
    assert said(session, "pwd; false; echo goes on") == "/tmp\ngoes on\n"


def test_two_sessions_share_nothing(opened: Open) -> None:
    first, second = opened(), opened()
    said(first, "echo mine > plain.txt; X=1; echo t > /tmp/t")
    assert said(second, "cat plain.txt; echo -$X-; ls /tmp") == "plain\n--\n"


def test_bad_commands_cost_nothing_but_their_answer(opened: Open) -> None:
    session = opened()
    said(session, "cd package; KEPT=yes")
    for command in ("(", "exec true", "kill -9 $$", "exec 8>&-", "no-such-command", "\x01", ""):
        session.run(command, 9)
    assert said(session, "pwd; echo $KEPT") == "/testbed/package\nyes\n"
    big = "echo " + "x" * 500_000 + " | wc -c"
    assert said(session, big) == "500001\n"


def test_a_time_out_ends_the_tree_and_nothing_else(opened: Open) -> None:
    session = opened()
    said(session, "cd package; K=1; (trap '' TERM INT HUP; exec sleep 77) & disown")
    began = time.monotonic()
    result = session.run("echo begun; echo kept > kept; setsid sleep 78 & sleep 79 | cat", 0.7)
    assert result.timed_out and result.exit_code is None and result.output == b"begun\n"
    assert "longer than" in result.failure
    assert session.run("echo why; exit 3", 60).failure == "exit code 3: why"
    assert session.run("echo fine", 60).failure == ""
    assert time.monotonic() - began < 40
    assert said(session, "cat kept; pwd; echo $K; ps ax | grep -c '[s]leep'") == (
        "kept\n/testbed/package\n1\n0\n"
    )


def test_background_processes_live_on_and_hold_nobody_up(opened: Open) -> None:
    session = opened()
    began = time.monotonic()
    noise = said(session, "yes & echo $! > /tmp/pid")
    assert set(noise.split()) <= {"y"}
    assert time.monotonic() - began < 40
    assert said(session, "sleep 0.2; kill -0 $(cat /tmp/pid) && echo lives") == "lives\n"


def test_nobody_inside_can_end_or_read_the_session(opened: Open) -> None:
    session = opened()
    tried = "kill -9 1; kill -9 -1; cat /proc/1/environ /proc/1/mem; ls /proc/1/fd; ls /in"
    assert "session_server.py" in said(session, tried).splitlines()
    assert said(session, "ls /in/ask /in/answer 2>&1 | grep -c 'No such'") == "2\n"
    assert said(session, "echo lives") == "lives\n"


def test_nothing_but_a_plain_file_is_written(opened: Open) -> None:
    """A pipe without a reader held the session up until it counted as a fault of the machine, and
    so did words in our own pipe: an episode that ended so had no reward."""
    session = opened()
    said(session, "mkfifo pipe; mkfifo read; (sleep 60 < read) & ln -s pipe to-pipe")
    began = time.monotonic()
    for path in ("pipe", "to-pipe", *(f"/proc/self/fd/{number}" for number in range(1, 20))):
        with pytest.raises(FileProblem):
            session.write(path, b"00000002{}")
    with pytest.raises(FileProblem, match="special"):
        session.write("read", b"x")
    with pytest.raises(FileProblem, match=r"[Dd]irectory"):
        session.write("package", b"x")
    assert time.monotonic() - began < 40
    session.write("plain.txt", b"new\n")
    session.write("plain.txt", b"n\n")
    assert said(session, "cat plain.txt") == "n\n"


def test_a_tree_that_changes_while_it_is_read(opened: Open) -> None:
    """A link that was gone before it could be followed ended the whole run."""
    session = opened()
    flap = """
import os
names = [f"link{number}" for number in range(200)]
while True:
    for step in (lambda name: os.symlink("a", name), os.unlink):
        for name in names:
            step(name)
"""
    session.write("/tmp/flap.py", flap.encode())
    said(session, "python /tmp/flap.py & sleep 1")
    for _ in range(60):
        session.read_changes()


def test_what_the_machine_refuses_is_no_answer(opened: Open) -> None:
    """No memory or descriptors for a command: an error with a name, not one of the program."""
    session = opened()
    session.call = lambda *_: {"problem": "Too many open files"}  # type: ignore[method-assign]
    with pytest.raises(SandboxError, match="could not be started: Too many open files"):
        session.run("true", 9)
    with pytest.raises(SandboxError, match="could not be read: Too many open files"):
        session.read_changes()


def test_long_output_keeps_both_ends(opened: Open) -> None:
    result = opened().run("seq 200000", 20, 1000)
    assert result.output.startswith(b"1\n2\n") and result.output.endswith(b"199999\n200000\n")
    assert b"bytes left out" in result.output and len(result.output) < 1100
    total = sum(len(f"{i}\n") for i in range(1, 200_001))
    assert len(result.head) + len(result.tail) + result.num_dropped == total


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(max_size=40), max_size=12), room=st.integers(2, 40))
def test_clipping(pieces: list[bytes], room: int) -> None:
    clipped = Clipped(room)
    for piece in pieces:
        clipped.add(piece)
    whole = b"".join(pieces)
    head, tail = bytes(clipped.head), bytes(clipped.tail)
    assert whole.startswith(head) and whole.endswith(tail)
    assert len(head) + clipped.dropped + len(tail) == len(whole)
    assert len(head) + len(tail) <= room


def test_files_are_read_without_following_links(opened: Open) -> None:
    session = opened()
    said(session, "ln -s /etc/passwd evil; mkfifo pipe; truncate -s 9M huge; mkdir dir; : > empty")
    problems = {"evil": "link", "pipe": "special", "huge": "huge", "dir": "directory",
                "none": "missing", "plain.txt/x": "missing"}  # fmt: skip
    for path, problem in problems.items():
        with pytest.raises(FileProblem, match=problem):
            session.read(path)
    assert session.read("empty") == b""
    assert b"sandbox" in session.read("evil", follow=True)
    session.write("/tmp/new/deep \udce9", b"\xff\x00")
    assert session.read("/tmp/new/deep \udce9") == b"\xff\x00"
    with pytest.raises(FileProblem, match="directory"):
        session.write("dir", b"")
    with pytest.raises(FileProblem, match="Read-only"):
        session.write("/in/new", b"")


def test_changes_are_a_layer_above_the_original(opened: Open, backend: Sandbox) -> None:
    below: Layer = {
        "plain.txt": FileChange(content=b"bug\n"),
        "package/module.py": FileChange(content=None),
        "added.sh": FileChange(content=b"x", executable=True),
    }
    session = opened(layer=below)
    assert session.read_changes().layer == below
    said(session, "rm added.sh; echo plain > plain.txt; mkdir -p d/.git; echo h > d/.git/h; "
         "echo 1 > d/new; chmod +x d/new; ln -s new d/link; mv package/sub/deep.txt package/up; "
         "rm link; echo l > link; truncate -s 5M huge; "
         "printf 1 > \"$(printf 'a\\351')\"")  # fmt: skip
    changes = session.read_changes()
    assert changes.layer == {
        "package/module.py": FileChange(content=None),
        "package/sub/deep.txt": FileChange(content=None),
        "package/up": FileChange(content=b"deep\n"),
        "d/new": FileChange(content=b"1\n", executable=True),
        "link": FileChange(content=b"l\n"),
        "a\udce9": FileChange(content=b"1"),
    }
    assert changes.left_out == {"d/link": "link", "huge": "huge"} and MAX_FILE < 5 << 20


def test_what_cannot_be_read_is_never_the_original(opened: Open) -> None:
    """Else a solver would repair a file by closing it."""
    bug: Layer = {"plain.txt": FileChange(content=b"bug\n")}
    for trick in ("chmod 0 plain.txt", "truncate -s 9M plain.txt"):
        session = opened(layer=bug)
        said(session, trick)
        assert session.read_changes().layer == bug
    session = opened(layer=bug)
    said(session, "rm plain.txt; ln -s package/module.py plain.txt")
    assert session.read_changes().layer == {"plain.txt": FileChange(content=None)}


def test_git_inside_is_a_matter_of_the_inside(opened: Open) -> None:
    """A repository whose configuration is a program: nothing of ours runs git on it."""
    session = opened()
    said(session, "git init -q . && git config core.fsmonitor 'touch /out/ran; :' && git add -A; "
         "rm -f /out/ran; echo 1 > new")  # fmt: skip
    assert set(session.read_changes().layer) == {"new"}
    assert said(session, "ls /out") == ""


def test_a_killed_sandbox_is_an_infrastructure_fault(opened: Open) -> None:
    session = opened(variables={"MARK": "kill-me"})
    timer = threading.Timer(0.5, kill_servers)
    timer.start()
    with pytest.raises(SandboxError):
        session.run("sleep 30", 30)
    with pytest.raises(SandboxError):
        session.run("true", 30)
    with pytest.raises(SandboxError):
        session.read_changes()


def kill_servers() -> None:
    """End the first process of every session that this process has opened."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
                if b"MARK=kill-me" in (folder / "environ").read_bytes() and b"/in/" in command:
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue


def test_memory_is_the_guests_own_doing(opened: Open) -> None:
    session = opened(quota=Quota(timeout_s=120, memory=256 << 20))
    try:
        result = session.run("head -c 900M /dev/zero > big; head -c 900M /dev/zero | tail -c 1", 60)
        assert result.exit_code != 0
        session.run("true", 20)
    except SandboxSpent:
        pass


def test_closing_ends_a_running_command(opened: Open) -> None:
    session = opened()
    threading.Timer(0.3, session.close).start()
    began = time.monotonic()
    with pytest.raises(SandboxError):
        session.run("sleep 60", 60)
    session.close()
    assert time.monotonic() - began < 40
    with pytest.raises(SandboxError, match="closed"):
        session.run("true", 5)


def test_many_may_close_at_once(opened: Open) -> None:
    session = opened()
    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(session.close) for _ in range(8)]:
            future.result()


def test_nothing_is_left_behind(backend: Sandbox, environment: Environment) -> None:
    def descriptors() -> set[str]:
        return {str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()}

    before, threads = descriptors(), threading.active_count()
    with Session(RetryingSandbox(backend), Job(environment=environment, argv=())) as session:
        session.run("sleep 100 & true", 9)
    leaked = {name for name in descriptors() - before if "socket" not in name}
    assert not leaked or backend.name == "docker"
    assert threading.active_count() <= threads + 2  # Docker's worker threads


def test_what_cannot_be_opened_says_so(backend: Sandbox, environment: Environment) -> None:
    broken = Environment(
        tree=environment.tree, mounts=environment.mounts, path="/nowhere", digest="b"
    )
    with pytest.raises(SandboxError):
        Session(backend, Job(environment=broken, argv=()))


def test_never_without_walls(environment: Environment, place: Path) -> None:
    sandbox = UnsafeSandbox(place / "unsafe")
    with pytest.raises(UserError, match="agentic"):
        Session(sandbox, Job(environment=environment, argv=()))
    sandbox.close()
