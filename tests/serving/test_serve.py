"""The environment server: answers, patches and commands judged; odd requests refused."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from selfplay.bugs.patches.diffs import reverse_patch
from selfplay.bugs.patches.layers import apply_patch
from selfplay.cli import main
from selfplay.commands.serve import open_exam
from selfplay.commands.suites import read_tasks
from selfplay.corpus.suite import SuiteTask, write_suite
from selfplay.errors import UserError
from selfplay.serving.desk import Desk, NotFound
from selfplay.serving.exam import Exam
from selfplay.serving.http import MAX_BODY, EnvServer
from selfplay.serving.websocket import accept_key


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "bugs"
    words = ["repo=sample-ledger", "source=procedural", "num_bugs=2", "n=6", f"out={run}"]
    assert main(["inject", *words]) == 0
    return run


@pytest.fixture(scope="module")
def exam(suite: Path) -> Iterator[Exam]:
    with open_exam(suite) as found:
        yield found


@contextmanager
def serving(exam: Exam, **limits: Any) -> Iterator[EnvServer]:
    desk = Desk(exam, **{"max_episodes": 4, "idle_s": 60.0, "max_steps": 3, **limits})
    server = EnvServer("127.0.0.1", 0, desk, 8)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        desk.close()
        thread.join()


def call(server: EnvServer, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{server.server_port}{path}"
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=200) as said:
            return said.status, json.load(said)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def opened(server: EnvServer, exam: Exam) -> tuple[str, str]:
    bug = next(iter(exam.tasks))
    status, said = call(server, "/reset", {"instance_id": bug})
    assert (status, said["done"], said["reward"]) == (200, False, None)
    assert said["observation"]["messages"][-1]["role"] == "user"
    assert "Fix the bug in line" in said["observation"]["messages"][-1]["content"]
    return bug, said["observation"]["episode_id"]


def test_a_repository_that_shows_its_answers_is_left_out_alone(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `evaluate` does; a machine may have a project of the suite installed, too."""
    ledger = Path(__file__).resolve().parents[2] / "repos/samples/ledger"
    leaky = shutil.copytree(ledger, tmp_path / "leaky")
    for file in list((leaky / "ledger").glob("*.py")):
        shutil.copy(file, leaky / f"old_{file.stem}.txt")
    task = read_tasks(suite)[0]

    def elsewhere(name: str) -> SuiteTask:
        solve_task = dataclasses.replace(task.solve_task, bug_id=f"in-{name}", repo=name)
        source = {"local": {"path": str(tmp_path / name)}}
        return dataclasses.replace(task, solve_task=solve_task, environment={"source": source})

    mixed = tmp_path / "mixed.jsonl"
    write_suite([elsewhere("leaky"), elsewhere("gone"), task], mixed)
    with open_exam(mixed) as exam, serving(exam) as server:
        told = capsys.readouterr().err
        assert "leaky: left out with its 1 bugs" in told and "gone: " in told
        found = call(server, "/tasks")[1]
        assert found["instance_ids"] == [task.solve_task.bug_id]
        num_tasks = {name: why["num_tasks"] for name, why in found["left_out"].items()}
        assert num_tasks == {"leaky": 1, "gone": 1}
        assert "holds the original of" in found["left_out"]["leaky"]["reason"]
        status, said = call(server, "/grade", {"instance_id": "in-leaky", "patch": ""})
        assert status == 400 and "leaky: left out" in said["error"]


def test_an_episode_of_commands(exam: Exam) -> None:
    with serving(exam) as server:
        bug, name = opened(server, exam)
        gold = reverse_patch(exam.task(bug).artifact.bug_patch)

        def act(**action: Any) -> tuple[int, Any]:
            return call(server, "/step", {"episode_id": name, "action": action})

        status, said = act(command="ls; exit 3")
        assert (said["observation"]["exit_code"], said["done"]) == (3, False)
        assert "ledger" in said["observation"]["output"]
        text = base64.b64encode(gold.encode()).decode()
        assert (
            act(command=f"echo {text} | base64 -d | git apply")[1]["observation"]["exit_code"] == 0
        )
        assert act(command="true")[0] == 200
        assert act(command="true")[0] == 409, "three commands are allowed"
        status, said = act(submit=True)
        assert (status, said["reward"], said["done"]) == (200, 1.0, True)
        assert act(submit=True)[0] == 409
        status, state = call(server, f"/state?episode_id={name}")
        assert state["done"] and state["step_count"] == 4 and state["reward"] == 1.0


def test_the_reward_is_our_grade(exam: Exam) -> None:
    with serving(exam, max_episodes=20) as server:
        for bug, task in exam.tasks.items():
            gold = reverse_patch(task.artifact.bug_patch)
            for action, reward in (
                ({"patch": gold}, 1.0),
                ({"patch": ""}, 0.0),
                ({"answer": "?"}, 0),
            ):
                _, said = call(server, "/reset", {"instance_id": bug})
                request = {"episode_id": said["observation"]["episode_id"], "action": action}
                status, said = call(server, "/step", request)
                assert (status, said["reward"], said["done"]) == (200, reward, True)
                status, graded = call(server, "/grade", {"instance_id": bug, **action})
                assert (status, graded["reward"]) == (200, reward)


def test_nothing_of_the_answer_is_told(exam: Exam) -> None:
    for bug, task in exam.tasks.items():
        told = json.dumps([exam.messages(bug), exam.told(bug)])
        bug_patch = task.artifact.bug_patch
        tree = exam.attempt(bug).sealed.environment.tree
        layer = apply_patch(tree, {}, bug_patch)
        seen = b"".join(change.content or b"" for change in layer.values()).decode()
        removed = [x[1:].strip() for x in bug_patch.splitlines() if x.startswith("- ")]
        secret = [line for line in removed if line not in seen]
        assert all(json.dumps(line)[1:-1] not in told for line in secret)
        assert removed


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/reset", b"[1", 400, "not JSON"),
        ("/reset", [], 400, "not a JSON object"),
        ("/reset", {"instance_id": "x"}, 400, "'x' is no bug of this suite"),
        ("/reset", {"seed": "1"}, 400, "seed: '1' is no integer"),
        ("/step", {"action": {"submit": True}}, 400, "episode_id: is missing"),
        ("/step", {"action": {}, "episode_id": "a"}, 400, "must have exactly one of answer, patch"),
        (
            "/step",
            {"action": {"command": 1}, "episode_id": "a"},
            400,
            "command: must be text",
        ),
        ("/step", {"action": {"patch": ""}, "episode_id": "a"}, 404, "'a' is not open"),
        ("/step", {"action": {"patch": ""}, "timeout_s": -1}, 400, "timeout_s: -1"),
        ("/grade", {}, 400, "exactly one of answer and patch"),
        ("/etc/passwd", {}, 404, "there are POST /reset"),
        ("/../../etc/passwd", None, 404, "there are /ws"),
        ("/reset", b" " * (MAX_BODY + 1), 413, "at most"),
        ("/state", None, 400, "episode_id: is missing"),
        ("/ws", None, 426, "WebSocket alone"),
    ],
)
def test_odd_requests_are_told_why(
    exam: Exam, path: str, body: Any, status: int, said: str
) -> None:
    with serving(exam) as server:
        try:
            code, document = call(server, path, body)
        except (urllib.error.URLError, ConnectionError):
            assert status == 413, "the server does not read what is too long"
            return
        assert code == status and said in document["error"]
        assert call(server, "/health") == (200, {"status": "healthy"})
        assert call(server, "/tasks", Host="evil.example")[0] == 403


def test_episodes_are_bounded_and_expire(exam: Exam) -> None:
    now = 0.0
    desk = Desk(exam, max_episodes=2, idle_s=10.0, max_steps=1, clock=lambda: now)
    names = [desk.reset({"seed": 1})["observation"]["episode_id"] for _ in range(2)]
    with serving(exam) as server:
        server.desk = desk
        assert call(server, "/reset", {})[0] == 429
    desk.step(names[0], {"command": "true"})
    session = desk._open[names[0]].session
    assert session is not None
    now = 11.0
    with pytest.raises(NotFound):
        desk.state(names[0])
    assert not desk._open
    with pytest.raises(Exception, match=r"."):
        session.run("true", 1.0)
    assert desk.reset({"seed": 3})["observation"]["instance_id"] in exam.tasks


def test_openenvs_messages_over_a_websocket(exam: Exam) -> None:
    with serving(exam) as server, socket.create_connection(server.server_address[:2]) as wire:
        key = base64.b64encode(os.urandom(16)).decode()
        head = "GET /ws HTTP/1.1\r\nHost: localhost:1\r\nUpgrade: websocket\r\n"
        head += f"Sec-WebSocket-Key: {key}"
        wire.sendall(head.encode() + b"\r\n\r\n")
        reader = wire.makefile("rb")
        told = b"".join(iter(reader.readline, b"\r\n")).decode()
        accepted = accept_key({"Upgrade": "websocket", "Sec-WebSocket-Key": key})
        assert "101" in told and f"Sec-WebSocket-Accept: {accepted}" in told

        def say(message: Any) -> Any:
            data, mask = json.dumps(message).encode(), b"\1\2\3\4"
            assert len(data) < 1 << 16
            masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
            wire.sendall(b"\x81\xfe" + len(data).to_bytes(2) + mask + masked)
            size = reader.read(2)[1]
            size = int.from_bytes(reader.read(2 if size == 126 else 8)) if size > 125 else size
            return json.loads(reader.read(size))

        assert say({"type": "step", "data": {"submit": True}})["type"] == "error"
        bug = next(iter(exam.tasks))
        found = say({"type": "reset", "data": {"instance_id": bug}})
        assert found["data"]["observation"]["instance_id"] == bug
        gold = reverse_patch(exam.task(bug).artifact.bug_patch)
        assert say({"type": "step", "data": {"patch": gold}})["data"]["reward"] == 1.0
        assert say({"type": "state"})["data"]["done"]
        assert say({"type": "hello"})["data"]["code"] == "VALIDATION_ERROR"
        assert server.desk._open
        wire.shutdown(socket.SHUT_RDWR)
        for _ in range(100):
            if not server.desk._open:
                break
            threading.Event().wait(0.05)
        assert not server.desk._open, "its episode ends with the connection"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_every_sandbox(suite: Path, number: int) -> None:
    """With an episode whose sandbox is at work, while its client waits."""
    words = ["serve", f"suite={suite}", "port=0", "sandbox=bubblewrap"]
    server = subprocess.Popen(
        [sys.executable, "-m", "selfplay", *words], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        # A shell's background job hands on that it ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert server.stdout is not None
    try:
        told = next(line for line in server.stdout if " bugs at http" in line)
        url = told.split()[-1]

        def post(path: str, body: Any) -> Any:
            request = urllib.request.Request(url + path, json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=200) as said:
                return json.load(said)

        name = post("/reset", {})["observation"]["episode_id"]
        mark = f"{os.getpid()}{number}.5"
        said: list[Any] = []

        def wait() -> None:
            with contextlib.suppress(OSError):
                body = {"episode_id": name, "action": {"command": f"sleep {mark}"}}
                said.append(post("/step", body))

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_for(lambda: running(f"sleep {mark}"))
        server.send_signal(number)
        assert server.wait(60) == 0
        waiting.join(60)
        assert not said
        wait_for(lambda: not running(f"sleep {mark}"))
    finally:
        server.kill()
        server.stdout.close()


def running(words: str) -> bool:
    """Whether a process with this command line is there."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip() == words:
                return True
    return False


def wait_for(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_episode_that_ends_while_its_sandbox_opens(exam: Exam) -> None:
    desk = Desk(exam, max_episodes=2, idle_s=60.0, max_steps=3)
    name = desk.reset({"seed": 1})["observation"]["episode_id"]
    found = desk._open[name]
    opened = exam.attempt

    def attempt(bug_id: str) -> Any:
        desk.close()
        return opened(bug_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exam, "attempt", attempt)
        with pytest.raises(NotFound, match="was ended"):
            desk.step(name, {"command": "true"})
    assert found.session is None
    with pytest.raises(UserError, match="0 episodes are open"):
        desk.reset({})
