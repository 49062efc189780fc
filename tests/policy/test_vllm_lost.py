"""Servers at URLs that go away and come back while a run samples from them and changes weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from selfplay.config import VLLMConfig
from selfplay.errors import PolicyError
from selfplay.policy.vllm.policy import VLLMPolicy, open_vllm
from selfplay.sampling import SampleRequest

from .test_transformers import END, PlainTokenizer
from .test_vllm_client import SOUND, Fixed, answers, choice

OK = (200, {"success": True})


class Server(Fixed):
    """Answers as vLLM does: one token that tells the weights, 10 + their number, and the end.

    It begins with nobody's weights (9), knows adapters by name, and each answer takes `answer_s`.
    """

    def __init__(self, port: int = 0, answer_s: float = 0.0) -> None:
        super().__init__(SOUND, port)
        self.label, self.weights, self.answer_s = "default", -1, answer_s
        self.adapters: dict[str, str] = {}
        self.asked: list[str] = []
        self.refuses = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.goes_on.set()
        self.shutdown()
        self.server_close()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append(path)
        if path == "/inference/v1/generate":
            self.goes_on.wait(30)
        if path == "/weight_info":
            return 200, {"weight_version": self.label}
        if path == "/update_weight_version":
            self.label = body["new_version"]
        if path == "/collective_rpc":
            if self.refuses:
                return 500, {"error": {"message": "shapes differ"}}
            self.weights = int(Path(body["kwargs"]["weights_path"]).name)
        if path == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = body["lora_path"]
        if path == "/v1/unload_lora_adapter":
            self.adapters.pop(body["lora_name"], None)
        if path == "/v1/models":
            cards = [{"id": name, "root": root} for name, root in self.adapters.items()]
            return 200, {"data": [{"id": "policy", "max_model_len": 50}, *cards]}
        if path == "/inference/v1/generate" and "allowed_token_ids" not in body["sampling_params"]:
            time.sleep(self.answer_s)
            number = self.weights
            if "model" in body:
                if body["model"] not in self.adapters:
                    return 404, {"error": {"message": "The model does not exist"}}
                number = int(Path(self.adapters[body["model"]]).name)
            return answers(choice([10 + number, END], version=self.label))
        found: tuple[int, Any] = self.routes.get(path, OK)
        return found


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(port: int = 0, answer_s: float = 0.0) -> Server:
        servers.append(Server(port, answer_s))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def policy_at(*servers: Server, rank: int = 0, **more: Any) -> VLLMPolicy:
    config = VLLMConfig(urls=[server.url for server in servers], **more)
    policy = open_vllm(config, Path("/0"), PlainTokenizer(), lora_rank=rank)
    if rank:
        policy.update_weights(Path("/0"), 0)
    return policy


def ask(policy: VLLMPolicy, num: int = 1) -> set[tuple[int, int]]:
    """(number of the weights that answered, version that the answer names) of `num` requests."""
    groups = policy.sample([SampleRequest(prompt_ids=(5,)) for _ in range(num)])
    return {(group[0].token_ids[0] - 10, group[0].policy_version) for group in groups}


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("rank", [0, 4], ids=["weights", "adapters"])
def test_one_of_two_is_lost_and_comes_back_two_updates_later(start: Any, rank: int) -> None:
    """A lost server ended the run within 20 seconds, or with the next update."""
    stays, goes = start(), start()
    policy = policy_at(stays, goes, rank=rank)
    assert ask(policy, 20) == {(0, 0)}
    assert all(s.asked.count("/inference/v1/generate") > 1 for s in (stays, goes))
    goes.stop()
    assert ask(policy, 20) == {(0, 0)}, "the other has answered all of them"
    for version in (1, 2):
        assert policy.update_weights(Path(f"/{version}")) == version
        assert ask(policy, 20) == {(version, version)}
    again = start(goes.server_port)
    wait_until(lambda: ask(policy, 20) == {(2, 2)} and "/inference/v1/generate" in again.asked)
    assert policy.update_weights(Path("/3")) == 3
    assert ask(policy, 20) == {(3, 3)}
    policy.close()


@pytest.mark.parametrize("rank", [0, 4], ids=["weights", "adapters"])
def test_a_server_that_goes_while_it_is_asked_costs_nothing(start: Any, rank: int) -> None:
    """Alone, so that its requests wait for it; and started anew, so that its weights are others."""
    server = start(answer_s=0.05)
    policy = policy_at(server, rank=rank)
    policy.update_weights(Path("/1"))
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask, policy, 200)
        wait_until(lambda: server.asked.count("/inference/v1/generate") > 3)
        server.stop()
        time.sleep(1.5)
        start(server.server_port)
        assert asked.result(30) == {(1, 1)}
    policy.close()


def test_a_server_whose_engine_hangs_is_lost_though_it_says_that_it_is_well(start: Any) -> None:
    """vllm-project/vllm#16259: its requests were asked again of it, each for `request_timeout_s`,
    six times, with another server beside it."""
    stays, hangs = start(), start()
    policy = policy_at(stays, hangs, request_timeout_s=1.0)
    hangs.goes_on.clear()
    began = time.monotonic()
    assert ask(policy, 20) == {(0, 0)} and time.monotonic() - began < 10
    assert policy.update_weights(Path("/1")) == 1
    assert ask(policy, 20) == {(1, 1)}
    hangs.goes_on.set()
    wait_until(lambda: hangs.weights == 1)
    hangs.asked.clear()
    wait_until(lambda: ask(policy, 20) == {(1, 1)} and "/inference/v1/generate" in hangs.asked)
    policy.close()


def test_an_update_that_one_server_refuses_is_taken_back_where_another_is_lost(start: Any) -> None:
    stays, goes = start(), start()
    policy = policy_at(stays, goes)
    goes.stop()
    ask(policy, 20)
    stays.refuses = True
    with pytest.raises(PolicyError, match="loading weights 1 failed"):
        policy.update_weights(Path("/1"))
    stays.refuses = False
    again = start(goes.server_port)
    wait_until(lambda: again.label == "0")
    assert ask(policy, 20) == {(0, 0)} and policy.version == 0
    policy.close()


def test_all_are_lost_for_too_long(start: Any) -> None:
    """Not before the last of them has been away for as long as a start may take."""
    servers = [start(), start()]
    policy = policy_at(*servers, start_timeout_s=1.5)
    for server in servers:
        server.stop()
    began = time.monotonic()
    with pytest.raises(PolicyError, match=r"no vLLM server has answered for 1\.5 s") as caught:
        ask(policy)
    assert time.monotonic() - began > 1.5
    assert all(server.url in str(caught.value) for server in servers)
    policy.close()
