"""The desk behind HTTP, as OpenEnv has it: POST /reset, /step; GET /state, /health; WebSocket /ws.

Nothing of the machine is reachable but these paths: commands run in sandboxes. A request that is
wrong is answered by 4xx with {"error": text}; a fault of ours by 503, which is no verdict.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from selfplay import __version__
from selfplay.errors import InfrastructureError, UserError
from selfplay.serving.desk import ACTIONS, Desk, Full, NotFound, Over
from selfplay.serving.exam import Exam, plain
from selfplay.serving.websocket import Broken, WebSocket, accept_key

log = logging.getLogger(__name__)
MAX_BODY = 1 << 20
SOCKET_TIMEOUT_S = 600.0
"""Of a connection that says nothing; longer than a step may take on our side is not needed."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
TEXT = {"type": "string"}
SCHEMA = {
    "action": {
        "type": "object",
        "properties": {**dict.fromkeys(ACTIONS, TEXT), "submit": {"const": True}},
        "minProperties": 1,
    },
    "observation": {"type": "object", "properties": {"episode_id": TEXT}},
    "state": {
        "type": "object",
        "properties": {"episode_id": TEXT, "step_count": {"type": "integer"}},
    },
}


class BadRequest(UserError):
    """With its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class EnvServer(ThreadingHTTPServer):
    """`num_open` connections at most are served at once; others are told to come again."""

    daemon_threads = True

    def __init__(self, host: str, port: int, desk: Desk, num_open: int) -> None:
        super().__init__((host, port), Handler)
        self.desk = desk
        self.local = host in LOOPBACK
        self.free = threading.BoundedSemaphore(num_open)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke ends nothing else."""
        log.debug("connection of %s broke", client_address, exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: EnvServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"selfplay/{__version__}", ""
    timeout = SOCKET_TIMEOUT_S

    def do_GET(self) -> None:
        """State, health, what there is."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Reset, step, grade."""
        self._guarded(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """To the log, not to stderr."""
        log.debug(format, *args)

    def _guarded(self, answer: Any) -> None:
        if not self.server.free.acquire(blocking=False):
            self.close_connection = True
            return self._say(503, {"error": "too many connections at once; come again"})
        try:
            self._check_host()
            found = answer()
            if found is not None:
                self._say(200, found)
        except BadRequest as error:
            self._say(error.status, {"error": str(error)})
        except UserError as error:
            self._say(status_of(error), {"error": str(error)})
        except InfrastructureError as error:
            self._say(503, {"error": f"no verdict, a fault of the machine: {error}"})
        except Broken:
            self.close_connection = True
        except Exception as error:  # one odd request ends no server
            log.exception("%s", self.path)
            self._say(500, {"error": f"no verdict, a fault of the server: {type(error).__name__}"})
        finally:
            self.server.free.release()

    def _check_host(self) -> None:
        """On loopback the name must be loopback's, so that no web page reaches it by its own."""
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if self.server.local and host not in LOOPBACK:
            self.close_connection = True
            raise BadRequest(403, f"Host: {host!r} is not this machine's loopback address")

    def _get(self) -> Any:
        place = urlsplit(self.path)
        desk = self.server.desk
        if place.path == "/ws":
            return self._websocket()
        if place.path == "/state":
            return desk.state(parse_qs(place.query).get("episode_id", [""])[0])
        answers: dict[str, Callable[[], Any]] = {
            "/health": lambda: {"status": "healthy"},
            "/metadata": lambda: {
                "name": "selfplay",
                "description": f"{len(desk.exam.tasks)} bugs to be repaired",
                "version": __version__,
            },
            "/schema": lambda: SCHEMA,
            "/tasks": lambda: told_tasks(desk.exam),
        }
        if place.path not in answers:
            raise BadRequest(404, f"{place.path}: there are /ws, /state, {', '.join(answers)}")
        return answers[place.path]()

    def _post(self) -> Any:
        path, document = urlsplit(self.path).path, self._body()
        if path not in ("/reset", "/step", "/grade"):
            raise BadRequest(404, f"{path}: there are POST /reset, /step and /grade")
        return answer_to(self.server.desk, path[1:], document)

    def _body(self) -> dict[str, Any]:
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            self.close_connection = True
            raise BadRequest(411, "Content-Length: is missing") from None
        if not 0 <= size <= MAX_BODY:
            self.close_connection = True
            raise BadRequest(413, f"a body of {size} bytes; at most {MAX_BODY}")
        return read_object(self.rfile.read(size) or b"{}")

    def _websocket(self) -> None:
        key = accept_key(self.headers)  # type: ignore[arg-type]
        if key is None:
            raise BadRequest(426, "/ws: speaks WebSocket alone")
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", key),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        serve_socket(self.server.desk, WebSocket(self.rfile, self.wfile, MAX_BODY))

    def _say(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True


def told_tasks(exam: Exam) -> dict[str, Any]:
    """All bugs by their ids, and the repositories that are left out, where there is one."""
    left_out = {"left_out": exam.left_out} if exam.left_out else {}
    return {"instance_ids": sorted(exam.tasks), **left_out}


def status_of(error: UserError) -> int:
    """The HTTP status of what a client can mend."""
    return {NotFound: 404, Over: 409, Full: 429}.get(type(error), 400)


def read_object(data: bytes | str) -> dict[str, Any]:
    """A JSON object. Raises `BadRequest`."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BadRequest(400, f"not JSON ({error})") from None
    if not isinstance(document, dict):
        raise BadRequest(400, "not a JSON object")
    return document


def answer_to(desk: Desk, what: str, document: dict[str, Any]) -> dict[str, Any]:
    """Reset, step or grade. Raises `UserError`, `InfrastructureError`."""
    if what == "reset":
        return desk.reset(document)
    if what == "step":
        timeout_s = document.get("timeout_s")
        if timeout_s is not None and (
            isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or timeout_s <= 0
        ):
            raise UserError(f"timeout_s: {timeout_s!r} is no number of seconds")
        return desk.step(document.get("episode_id"), document.get("action"), timeout_s)
    kinds = [kind for kind in ("answer", "patch") if isinstance(document.get(kind), str)]
    if len(kinds) != 1:
        raise UserError("grade: must have exactly one of answer and patch, as text")
    judge = desk.exam.judge_answer if kinds == ["answer"] else desk.exam.judge_patch
    return plain(judge(str(document.get("instance_id")), document[kinds[0]]))


def serve_socket(desk: Desk, socket: WebSocket) -> None:
    """One connection of OpenEnv's client: one episode at a time, ended with it."""
    name = uuid.uuid4().hex
    try:
        while (text := socket.receive()) is not None:
            try:
                message = read_object(text)
                kind, data = message.get("type"), message.get("data") or {}
                if kind == "close":
                    return
                if kind == "reset" and isinstance(data, dict):
                    said = ("observation", desk.reset({**data, "episode_id": name}))
                elif kind == "step":
                    said = ("observation", desk.step(name, data))
                elif kind == "state":
                    said = ("state", desk.state(name))
                else:
                    raise UserError(f"type: {kind!r} must be reset, step, state or close")
            except (UserError, InfrastructureError) as error:
                code = (
                    "EXECUTION_ERROR"
                    if isinstance(error, InfrastructureError)
                    else "VALIDATION_ERROR"
                )
                said = ("error", {"message": str(error), "code": code})
            socket.send(json.dumps({"type": said[0], "data": said[1]}))
    finally:
        desk.end(name)
