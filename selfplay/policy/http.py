"""JSON over HTTP to inference servers: one call, and what its failure means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import urllib3

from selfplay.errors import PolicyError

_CONNECT_S = 10.0
_SHOWN = 400


class Unreachable(PolicyError):
    """No answer: the server is down, was killed, or closed the connection half-way."""


class Refused(PolicyError):
    """The server answered with an error; `status` is the HTTP status code."""

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class JsonClient:
    """Calls of one server. Thread-safe; nothing is repeated here."""

    def __init__(
        self,
        url: str,
        *,
        num_connections: int = 64,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=num_connections, headers=dict(headers or {}), retries=False
        )

    def get(self, path: str, *, timeout_s: float | None = None) -> Any:
        """The document at `path`, None for an empty answer. Raises `Unreachable`, `Refused`."""
        return self._call("GET", path, None, timeout_s)

    def post(self, path: str, body: Any = None, *, timeout_s: float | None = None) -> Any:
        """As `get`, with a JSON body."""
        return self._call("POST", path, {} if body is None else body, timeout_s)

    def close(self) -> None:
        """Drop idle connections."""
        self._pool.clear()

    def _call(self, method: str, path: str, body: Any, timeout_s: float | None) -> Any:
        read_s = self._timeout_s if timeout_s is None else timeout_s
        timeout = urllib3.Timeout(connect=min(_CONNECT_S, read_s), read=read_s)
        url = f"{self.url}{path}"
        try:
            answer = self._pool.request(method, url, json=body, timeout=timeout)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{url}: {type(error).__name__}: {error}") from error
        text = answer.data.decode("utf-8", "replace")
        if answer.status >= 300:
            raise Refused(
                f"{url}: HTTP {answer.status}: {_reason(text)}",
                answer.status,
                _seconds(answer.headers.get("Retry-After")),
            )
        if not text:
            return None
        try:
            return json.loads(text)
        except ValueError as error:
            raise Refused(f"{url}: no JSON: {text[:_SHOWN]!r}", answer.status) from error


def _reason(text: str) -> str:
    """The message inside an error document, or the text itself."""
    try:
        document = json.loads(text)
    except ValueError:
        return text[:_SHOWN]
    for key in ("error", "message", "detail"):
        if isinstance(document, dict) and key in document:
            document = document[key]
    return str(document)[:_SHOWN]


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
