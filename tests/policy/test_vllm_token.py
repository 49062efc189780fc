"""The door before a vLLM server's routes."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import pytest

from selfplay.config import VLLMConfig
from selfplay.errors import UserError
from selfplay.policy.vllm.policy import open_vllm
from selfplay.policy.vllm.server import INSIDE, TOKEN_VARIABLE, Launch

from .test_transformers import PlainTokenizer
from .test_vllm_lost import Server, ask


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether a request of these headers comes through to the server."""
    spec = importlib.util.spec_from_file_location("vllm_token", INSIDE / "vllm_token.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")

    def comes_through(*headers: tuple[bytes, bytes], kind: str = "http", path: str = "/x") -> bool:
        reached, sent = [], []

        async def app(*_: Any) -> None:
            reached.append(True)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message.get("status") or message.get("code") or 0)

        scope = {"type": kind, "path": path, "headers": list(headers)}
        asyncio.run(module.Token(app)(scope, None, send))
        assert bool(reached) != bool(sent) and set(sent) <= {401, 0, 1008}
        return bool(reached)

    return comes_through


def test_who_comes_through(passed: Any) -> None:
    right = (b"authorization", b"Bearer secret")
    assert passed(right) and passed(right, kind="websocket") and passed(kind="lifespan")
    assert passed(path="/health"), "whether it is up is no secret"
    for wrong in (b"Bearer secre", b"Bearer secrets", b"secret", b"", b"bearer secret", b"\xff"):
        assert not passed((b"authorization", wrong))
    assert not passed() and not passed(kind="websocket")
    assert not passed(right, (b"authorization", b"Bearer other")), "which of them?"
    for path in ("/health/", "/healthz", "//health", "/v1/models", "/collective_rpc", ""):
        assert not passed(path=path)


def test_a_run_shows_its_token_to_servers_at_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(Server):
        def answer(self, path: str, body: Any) -> tuple[int, Any]:
            if self.given != "Bearer secret" and path != "/health":
                return 401, {"error": {"message": "a token is wanted"}}
            return super().answer(path, body)

    server = Guarded()
    config = VLLMConfig(urls=[server.url])
    try:
        for wrong in ("", "other"):
            monkeypatch.setenv(TOKEN_VARIABLE, wrong)
            with pytest.raises(UserError, match=f"wants a token; set {TOKEN_VARIABLE}"):
                open_vllm(config, None, PlainTokenizer())
        monkeypatch.setenv(TOKEN_VARIABLE, "secret")
        assert ask(open_vllm(config, None, PlainTokenizer())) == {(-1, 0)}
    finally:
        server.stop()


def test_the_token_is_in_no_command_line() -> None:
    """Which any user of the machine can read."""
    launch = Launch(python="python", token="secret")
    assert not any("secret" in word for word in launch.command(INSIDE, 1, 0))
    assert launch.environment()[TOKEN_VARIABLE] == "secret"
