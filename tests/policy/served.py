"""A server on the loopback interface that answers as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER: dict[str, Any] = {
    "choices": [{"message": {"content": "four"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 2},
}


class Unreliable(ThreadingHTTPServer):
    """Answers each request with the next of `script` (status, document, headers), then `ANSWER`.

    Status 0 closes the connection without a word, -1 waits for the end of the server.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, Any, dict[str, str]]] = []
        self.seen: list[tuple[float, dict[str, Any], str]] = []
        self.paths: list[str] = []
        self.logins: list[str | None] = []
        self.lock = threading.Lock()
        self.ends = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1/"


class Handler(BaseHTTPRequestHandler):
    server: Unreliable

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            key = self.headers.get("Authorization", "")
            self.server.seen.append((time.monotonic(), body, key))
            self.server.paths.append(self.path)
            self.server.logins.append(self.headers.get("Proxy-Authorization"))
            status, document, headers = (
                self.server.script.pop(0) if self.server.script else (200, ANSWER, {})
            )
        if status < 0:
            self.server.ends.wait()
            status = 0
        if not status:
            self.close_connection = True
            return
        data = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        return


@contextmanager
def serving() -> Iterator[Unreliable]:
    """The server, while it runs."""
    server = Unreliable()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.ends.set()
        server.shutdown()
        server.server_close()
        thread.join()
