"""Servers that are no vLLM, the wrong one, or started the wrong way: told before anything runs."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from selfplay.config import VLLMConfig
from selfplay.errors import PolicyError, UserError
from selfplay.policy.vllm.backend import Backend
from selfplay.policy.vllm.interpreter import find_python
from selfplay.policy.vllm.policy import VLLMPolicy, open_vllm
from selfplay.policy.vllm.server import Launch, ServerProcess
from selfplay.sampling import SampleRequest, ScoreRequest, ScoringPolicy
from selfplay.types import VersionSpan

from .test_transformers import END, PlainTokenizer


class Fixed(ThreadingHTTPServer):
    """Answers each path with what `routes` holds, 404 otherwise; lists take turns."""

    daemon_threads = True

    def __init__(self, routes: dict[str, Any], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.routes = routes
        self.bodies: list[tuple[str, Any]] = []
        self.given = ""

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """(status, document) of one request."""
        found = self.routes.get(path, (404, {"detail": "Not Found"}))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return found  # type: ignore[no-any-return]


class Handler(BaseHTTPRequestHandler):
    server: Fixed

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        path, body = self.path.partition("?")[0], json.loads(self.rfile.read(length) or b"null")
        self.server.bodies.append((path, body))
        self.server.given = self.headers.get("Authorization", "")
        status, document = self.server.answer(path, body)
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        return


def choice(tokens: list[int], logprob: float = 0.0, version: str = "0", **more: Any) -> Any:
    content = [{"token_id": token, "logprob": logprob} for token in tokens]
    spans = [{"version": version, "start": 0, "end": len(tokens)}]
    return {
        "index": 0, "finish_reason": "stop", "token_ids": tokens, "weight_versions": spans,
        "logprobs": {"content": content}, **more,
    }  # fmt: skip


def answers(*choices: Any) -> tuple[int, Any]:
    return (200, {"choices": list(choices)})


SOUND: dict[str, Any] = {
    "/version": (200, {"version": "0.32.1+cu130"}),
    "/inference/v1/generate": answers(choice([END])),
    "/v1/models": (200, {"data": [{"id": "policy", "max_model_len": 50}]}),
    "/health": (200, None),
}


def stop(server: Fixed) -> None:
    server.shutdown()
    server.server_close()


@pytest.fixture
def serve() -> Iterator[Any]:
    servers = []

    def start(port: int = 0, **routes: Any) -> Fixed:
        changed = {f"/{name.replace('__', '/')}": value for name, value in routes.items()}
        server = Fixed({**SOUND, **changed}, port)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def open_at(server: Fixed, **more: Any) -> VLLMPolicy:
    config = VLLMConfig(urls=[f"http://127.0.0.1:{server.server_port}"], **more)
    return open_vllm(config, None, PlainTokenizer())


@pytest.mark.parametrize(
    ("routes", "match"),
    [
        ({"version": (200, {"version": "0.11.0"})}, r"vLLM 0\.11\.0 is not supported"),
        ({"version": (200, {"version": "1.0"})}, "not supported; install a version"),
        ({"version": (404, {})}, "not a vLLM server"),
        ({"version": (200, {"version": "dev"})}, "not a vLLM server"),
        ({"inference__v1__generate": (403, {"error": {"message": "closed"}})}, "enable-scale-out"),
        ({"inference__v1__generate": answers(choice([END], -4.0))}, "processed_logprobs"),
    ],
)
def test_servers_that_cannot_be_used(serve: Any, routes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        open_at(serve(**routes))


def test_a_server_without_administration_answers_but_cannot_be_changed(serve: Any) -> None:
    server = serve(inference__v1__generate=answers(choice([7, END], version="default")))
    policy = open_at(server)
    (group,) = policy.sample([SampleRequest(prompt_ids=(5, 6), max_new_tokens=90)])
    assert group[0].token_ids == (7, END) and group[0].text == "7"
    assert group[0].policy_version == 0 and group[0].spans == ()
    assert server.bodies[-1][1]["sampling_params"]["max_tokens"] == 48, "what the context leaves"
    with pytest.raises(UserError, match="VLLM_SERVER_DEV_MODE=1"):
        policy.update_weights(Path("/nowhere"))
    for prompt in ((), (5,) * 50):
        with pytest.raises(PolicyError, match="prompt"):
            policy.sample([SampleRequest(prompt_ids=prompt)])


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (answers(), "0 answers instead of 1"),
        (answers(choice([7]), choice([8])), "2 answers instead of 1"),
        (answers(choice([7], logprobs={"content": []})), "other tokens"),
        (answers(choice([7], logprobs=None)), "another form"),
        (answers(choice([7], float("nan"))), "not finite"),
        ((400, {"error": {"message": "too long"}}), "too long"),
    ],
)
def test_answers_of_another_form(serve: Any, answer: Any, match: str) -> None:
    server = serve(inference__v1__generate=[SOUND["/inference/v1/generate"], answer])
    policy = open_at(server, max_failures=1)
    with pytest.raises(PolicyError, match=match):
        policy.sample([SampleRequest(prompt_ids=(5,))])


def test_what_was_cut_short_is_asked_again(serve: Any) -> None:
    aborted = choice([7], finish_reason="abort")
    sound = answers(choice([9, END]))
    script = [sound, answers(aborted), (500, {"error": "engine died"}), sound]
    policy = open_at(serve(inference__v1__generate=[answers(choice([END])), *script[1:]]))
    assert policy.sample([SampleRequest(prompt_ids=(5,))])[0][0].token_ids == (9, END)


def test_a_server_that_was_started_anew_gets_its_weights_back(serve: Any) -> None:
    """Its answers carry a label that we never gave."""
    ok = (200, {"success": True})
    routes = {
        "weight_info": (200, {"weight_version": "default"}),
        "update_weight_version": ok, "pause": ok, "resume": ok, "collective_rpc": ok,
        "reset_prefix_cache": ok,
        "inference__v1__generate": [
            answers(choice([END])), answers(choice([7, END], version="default")),
            answers(choice([8, END], version="1")),
        ],
    }  # fmt: skip
    server = serve(**routes)
    policy = open_at(server)
    assert policy.update_weights(Path("/weights/1")) == 1
    (group,) = policy.sample([SampleRequest(prompt_ids=(5,))])
    assert group[0].token_ids == (8, END) and group[0].policy_version == 1
    loads = [body for path, body in server.bodies if path == "/collective_rpc"]
    assert [b["kwargs"]["weights_path"] for b in loads] == ["/weights/1"] * 2


def test_versions_within_an_answer(serve: Any) -> None:
    spans = [{"version": "3", "start": 0, "end": 1}, {"version": "4", "start": 1, "end": 3}]
    server = serve(
        inference__v1__generate=[
            answers(choice([END])), answers(choice([7, 8, END], weight_versions=spans))
        ]
    )  # fmt: skip
    (group,) = open_at(server).sample([SampleRequest(prompt_ids=(5,))])
    assert group[0].policy_version == 3, "the oldest"
    assert group[0].spans == (
        VersionSpan(version=3, start=0, end=1), VersionSpan(version=4, start=1, end=3),
    )  # fmt: skip


def test_requests_go_where_there_is_least_to_do(serve: Any) -> None:
    servers = [serve(), serve()]
    config = VLLMConfig(urls=[f"http://127.0.0.1:{s.server_port}" for s in servers])
    policy = open_vllm(config, None, PlainTokenizer())
    policy.sample([SampleRequest(prompt_ids=(5,)) for _ in range(40)])
    counts = [sum(path == "/inference/v1/generate" for path, _ in s.bodies) for s in servers]
    assert sum(counts) == 42 and min(counts) > 1


def test_nothing_listens_at_the_url() -> None:
    config = VLLMConfig(urls=["http://127.0.0.1:9"], start_timeout_s=0.3)
    with pytest.raises(PolicyError, match=r"127\.0\.0\.1:9: no vLLM server .*start_timeout_s"):
        open_vllm(config, None, PlainTokenizer())


def test_a_server_that_starts_later_than_the_run_is_waited_for(serve: Any) -> None:
    """Both may be parts of one job; a gateway before it answers 503 meanwhile."""
    server = serve(health=[(503, {}), (200, None)])
    port = server.server_port
    stop(server)
    later = threading.Timer(1.0, lambda: serve(port, health=[(503, {}), (200, None)]))
    later.start()
    policy = open_at(server)
    later.join()
    assert policy.sample([SampleRequest(prompt_ids=(5,))])[0][0].token_ids == (END,)


def test_a_server_that_is_gone_for_good_ends_the_run(serve: Any) -> None:
    server = serve()
    policy = open_at(server, max_failures=1, start_timeout_s=0.5)
    stop(server)
    with pytest.raises(PolicyError, match=r"no vLLM server has answered for 0.5 s .*goes on"):
        policy.sample([SampleRequest(prompt_ids=(5,))])


def test_interpreters_without_vllm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be run"):
        find_python(str(tmp_path / "python"))
    lonely = tmp_path / "python"
    lonely.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    lonely.chmod(0o755)
    with pytest.raises(UserError, match="has no vLLM"):
        find_python(str(lonely))


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no space left on device\nexit 3\n")
    broken.chmod(0o755)
    process = ServerProcess(Launch(python=str(broken)))
    with pytest.raises(PolicyError, match="no space left on device"):
        Backend(model=tmp_path, process=process).open(END)
    assert not process.is_alive()


def test_what_ended_a_server_comes_before_the_tracebacks_that_follow(tmp_path: Path) -> None:
    """As vLLM writes it: the engine's error far above, and at the end another that points to it."""
    engine = "(EngineCore pid=7) ERROR 11-27 16:00:00 [core.py:936] "
    full = "Free memory on device cuda:0 (1.2/79.1 GiB) on startup is less than desired GPU "
    full += "memory utilization (0.9, 71.2 GiB)."
    trace = "".join(f"(APIServer pid=6)   File 'serve.py', line {n}, in run\n" for n in range(99))
    pointer = "RuntimeError: Engine core initialization failed. See root cause above."
    log = tmp_path / "log"
    log.write_text(f"{engine}ValueError: {full}\n{trace}(APIServer pid=6) {pointer}\n")
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\ncat {log}\nexit 1\n")
    broken.chmod(0o755)
    process = ServerProcess(Launch(python=str(broken)))
    with pytest.raises(PolicyError) as caught:
        Backend(model=tmp_path, process=process).open(END)
    first = str(caught.value).splitlines()[0]
    assert f"ended while starting: ValueError: {full}" in first
    assert "policy.vllm.args=[--gpu-memory-utilization" in first


TOLD = [None, {"2": {"logprob": -1.0}}, {"3": {"logprob": -0.5}}, {"1": {"logprob": -0.25}}]
GOLD = ScoreRequest(prompt_ids=(1, 2), answer_ids=(3, 1))


def test_how_likely_an_answer_is_is_told_by_a_prompt_s_end(serve: Any) -> None:
    server = serve()
    with closing(open_at(server)) as policy:
        server.routes["/inference/v1/generate"] = (200, {"choices": [], "prompt_logprobs": TOLD})
        assert policy.score([GOLD, GOLD]) == [(-0.5, -0.25)] * 2
    _, body = server.bodies[-1]
    assert body["token_ids"] == [1, 2, 3, 1]
    assert body["sampling_params"]["prompt_logprobs"] == 0
    assert body["sampling_params"]["max_tokens"] == 1


def test_a_policy_that_scores_refuses_what_it_cannot_tell(serve: Any) -> None:
    with closing(open_at(serve())) as policy:
        assert isinstance(policy, ScoringPolicy)
        with pytest.raises(UserError, match=r"policy\.temperature=0\.5: .* at 1 alone"):
            policy.score([replace(GOLD, temperature=0.5)])
        with pytest.raises(PolicyError, match="max_model_len"):
            policy.score([replace(GOLD, answer_ids=(3,) * 60)])


@pytest.mark.parametrize(
    "told", [None, [], TOLD[:2], [*TOLD[:3], {"4": {"logprob": 0.0}}], [*TOLD[:3], {"1": {}}]]
)
def test_scores_of_another_form_are_asked_for_again(serve: Any, told: Any) -> None:
    server = serve()
    with closing(open_at(server)) as policy:
        bad, good = ((200, {"choices": [], "prompt_logprobs": rows}) for rows in (told, TOLD))
        probe = SOUND["/inference/v1/generate"]  # whether the engine answers after that
        server.routes["/inference/v1/generate"] = [bad, probe, good]
        assert policy.score([GOLD]) == [(-0.5, -0.25)]
