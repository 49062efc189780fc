"""JSON over HTTP to inference servers: one call, and what its failure means."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from selfplay.errors import PolicyError, UserError
from selfplay.policy.streams import joined_stream

_CONNECT_S = 10.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHOWN = 400
_ASKED = re.compile(
    r"(?:retry|try again) (?:in|after):? (?=\d)(?:(\d+)m(?!s) ?)?(?:(\d+(?:\.\d+)?) ?(ms|s))?",
    re.IGNORECASE,
)


class Unreachable(PolicyError):
    """No answer: the server is down, was killed, or closed the connection half-way."""


class Garbled(Unreachable):
    """An answer that is none: a gateway's page, half a document, a document of another form."""


class Refused(PolicyError):
    """The server answered with an error; `status` is the HTTP status code, `code` its own, `said`
    all of its words, of which the message shows the first."""

    def __init__(
        self,
        message: str,
        status: int,
        retry_after_s: float | None = None,
        code: str = "",
        said: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.said = said or message
        self.retry_after_s = retry_after_s


class JsonClient:
    """Calls of one server. Thread-safe; nothing is repeated here. `proxied`: through the proxy that
    the environment names for it, as `pool_for` says."""

    def __init__(
        self,
        url: str,
        *,
        num_connections: int = 64,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 600.0,
        proxied: bool = False,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._pool = pool_for(
            self.url if proxied else "",
            num_pools=2,
            maxsize=num_connections,
            headers=dict(headers or {}),
            retries=False,
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
        text = answer.data.decode("utf-8-sig", "replace")
        if answer.status >= 300:
            raise refusal(
                f"{url}: HTTP {answer.status}",
                answer.status,
                text,
                _seconds(answer.headers.get("Retry-After")),
            )
        if not text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            document = joined_stream(text)
            if document is None:
                raise Garbled(f"{url}: no JSON: {text[:_SHOWN]!r}") from error
            return document


def pool_for(url: str, **words: Any) -> urllib3.PoolManager:
    """Connections to `url`, through HTTPS_PROXY, HTTP_PROXY or ALL_PROXY unless NO_PROXY names its
    host (curl's rules); the loopback interface has no proxy. "": direct ones. Raises `UserError`.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    direct = not proxy or not parts.hostname or parts.hostname in _LOOPBACK
    if direct or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return urllib3.PoolManager(**words)
    assert proxy is not None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    through = urlsplit(proxy)
    place = f"{through.scheme}://{through.netloc.rpartition('@')[2]}"
    if through.scheme not in ("http", "https") or not through.hostname:
        raise UserError(
            f"{parts.scheme.upper()}_PROXY or ALL_PROXY is {place}: only proxies of http:// and "
            f"https:// can be used; unset it, or name {parts.hostname} in NO_PROXY"
        )
    headers: dict[str, str] = {}
    if through.username:
        login = f"{unquote(through.username)}:{unquote(through.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=login)
    return urllib3.ProxyManager(place, proxy_headers=headers, **words)


def refusal(where: str, status: int, text: str, retry_after_s: float | None = None) -> Refused:
    """The error that a document tells of, or that a text is."""
    message, code = text, ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, list) and document:  # as Google's endpoint writes it
        document = document[0]
    if isinstance(document, dict):
        for key in ("error", "message", "detail"):
            if isinstance(document, dict) and document.get(key):
                code = str(document.get("code") or code)
                document = document[key]
        message = str(document)
    if retry_after_s is None:
        retry_after_s = _told_seconds(message)
    return Refused(f"{where}: {message[:_SHOWN]}", status, retry_after_s, code, message)


def _told_seconds(message: str) -> float | None:
    """Of "Please try again in 6m0.5s" and the like."""
    found = _ASKED.search(message)
    if found is None:
        return None
    minutes, number, unit = found.groups()
    seconds = float(number or 0) / (1000 if unit == "ms" else 1)
    return 60 * float(minutes or 0) + seconds


def _seconds(header: str | None) -> float | None:
    """Of a Retry-After header: seconds, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
