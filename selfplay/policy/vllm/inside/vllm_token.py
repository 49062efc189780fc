"""A door for all routes of a vLLM server: whoever calls has the token that it was started with.

vLLM's own `--api-key` guards `/v1` alone; the routes that change weights or call methods of the
engine (`VLLM_SERVER_DEV_MODE=1`) are open to whoever reaches the port. Runs in vLLM's environment
(`--middleware vllm_token.Token`): the standard library alone.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

_Send = Callable[[dict[str, Any]], Awaitable[None]]
_App = Callable[[dict[str, Any], Any, _Send], Awaitable[None]]


class Token:
    """ASGI: 401 without `Authorization: Bearer TOKEN`; `/health` tells everybody that it is up."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ['SELFPLAY_VLLM_TOKEN']}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: _Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") == "/health" or self._has_token(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            body = b'{"error": {"message": "a token is wanted"}}'
            await send({"type": "http.response.body", "body": body})

    def _has_token(self, scope: dict[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)
