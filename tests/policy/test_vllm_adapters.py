"""Adapters on a vLLM server: which one an answer was drawn with, in what order, after a failure."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from selfplay.cache import cache_root
from selfplay.config import VLLMConfig
from selfplay.curriculum.compact import trajectory
from selfplay.errors import PolicyError, UserError
from selfplay.learner.grpo import ADAPTERS, use_adapter
from selfplay.learner.lora import add_lora, lora_layers, save_adapter
from selfplay.learner.measures.mismatch import measure_mismatch
from selfplay.learner.publish import DirectoryPublisher
from selfplay.learner.vllm_learner import publishes_adapters
from selfplay.modeling.model_files import load_model, resolve_model
from selfplay.policy.transformers import HFTokenizer
from selfplay.policy.vllm.interpreter import find_python
from selfplay.policy.vllm.policy import VLLMPolicy, open_vllm
from selfplay.policy.vllm.server import Launch
from selfplay.sampling import SampleRequest
from selfplay.types import Trajectory

from .test_transformers import END, PlainTokenizer
from .test_vllm_client import SOUND, Fixed, Handler, answers, choice

OK = (200, {"success": True})


class Adapting(Handler):
    """A server that knows adapters by name, as vLLM does; `slow` holds an answer up."""

    server: AdaptingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        self.server.bodies.append((self.path, body))
        self.reply(*self.server.answer(self.path, body))

    def do_GET(self) -> None:
        self.reply(*self.server.answer(self.path, None))

    def reply(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode() if not isinstance(document, str) else document.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class AdaptingServer(Fixed):
    def __init__(self) -> None:
        super().__init__({**SOUND, "/weight_info": (200, {"weight_version": "0"})})
        self.RequestHandlerClass = Adapting
        self.adapters: dict[str, str] = {}
        self.refuses = ""
        self.entered, self.slow = threading.Event(), threading.Event()
        self.slow.set()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        path = path.partition("?")[0]
        if path == "/v1/models":
            card = {"id": "policy", "max_model_len": 50}
            cards = [{"id": name, "root": path} for name, path in self.adapters.items()]
            return 200, {"data": [card, *cards]}
        if path == "/v1/load_lora_adapter":
            if self.refuses:
                return 500, {"error": {"message": self.refuses}}
            self.adapters[body["lora_name"]] = body["lora_path"]
            return 200, "Success: added"
        if path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return 200, "Success: removed"
        if path == "/inference/v1/generate" and "model" in body:
            if body["model"] not in self.adapters:
                return 404, {"error": {"message": "The model does not exist"}}
            number = int(Path(self.adapters[body["model"]]).name.rpartition("_")[2])
            self.entered.set()
            self.slow.wait(10)
            return answers(choice([10 + number, END], version="0"))
        return self.routes.get(path, OK)


@pytest.fixture
def server() -> Iterator[AdaptingServer]:
    started = AdaptingServer()
    threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.02}).start()
    yield started
    started.slow.set()
    started.shutdown()
    started.server_close()


@pytest.fixture
def served(server: AdaptingServer, tmp_path: Path) -> Iterator[VLLMPolicy]:
    config = VLLMConfig(urls=[f"http://127.0.0.1:{server.server_port}"], max_failures=2)
    policy = open_vllm(config, Path("/model"), PlainTokenizer(), lora_rank=4)
    publisher_of(tmp_path).publish(policy, 0)
    yield policy
    policy.close()


def publisher_of(root: Path) -> DirectoryPublisher:
    return DirectoryPublisher(lambda directory: directory.mkdir(exist_ok=True), root)


def ask(policy: VLLMPolicy) -> tuple[int, int]:
    """The first token, 10 + the adapter's number, and the version that the answer names."""
    ((answer,),) = policy.sample([SampleRequest(prompt_ids=(5,))])
    assert answer.spans == ()
    return answer.token_ids[0], answer.policy_version


def test_answers_name_the_adapter_that_they_were_drawn_with(
    server: AdaptingServer, served: VLLMPolicy, tmp_path: Path
) -> None:
    publisher = publisher_of(tmp_path)
    assert ask(served) == (10, 0)
    server.entered.clear()
    server.slow.clear()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(ask, served)
        assert server.entered.wait(10)
        publisher.publish(served, 1)
        publisher.publish(served, 2)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["version_0", "version_2"], (
            "what a request under way was begun with may be read again; version 1 is not needed"
        )
        server.slow.set()
        assert running.result() == (10, 0), "begun before two updates"
    assert ask(served) == (12, 2) and served.version == 2
    publisher.publish(served, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["version_3"]
    assert list(server.adapters.values()) == [str(tmp_path / "version_3")], "the others are gone"
    assert len({body["lora_name"] for path, body in server.bodies if "/load" in path}) == 4
    assert not any(path.startswith(("/pause", "/reset")) for path, _ in server.bodies[8:])


def test_a_load_that_fails_changes_nothing(
    server: AdaptingServer, served: VLLMPolicy, tmp_path: Path
) -> None:
    server.refuses = "LoRA rank 32 is greater than max_lora_rank 16."
    with pytest.raises(PolicyError, match=r"loading weights 1 failed.*max_lora_rank 16"):
        publisher_of(tmp_path).publish(served, 1)
    assert ask(served) == (10, 0) and served.version == 0
    server.refuses = ""
    publisher_of(tmp_path).publish(served, 2)
    assert ask(served) == (12, 2)


def test_a_failure_on_one_of_two_servers_changes_neither(
    server: AdaptingServer, tmp_path: Path
) -> None:
    other = AdaptingServer()
    threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02}).start()
    try:
        urls = [f"http://127.0.0.1:{s.server_port}" for s in (server, other)]
        policy = open_vllm(VLLMConfig(urls=urls), Path("/model"), PlainTokenizer(), lora_rank=4)
        publisher_of(tmp_path).publish(policy, 0)
        other.refuses = "no"
        with pytest.raises(PolicyError, match="loading weights 1 failed"):
            publisher_of(tmp_path).publish(policy, 1)
        assert {ask(policy) for _ in range(8)} == {(10, 0)}
        assert list(server.adapters.values()) == [str(tmp_path / "version_0")], "taken back"
    finally:
        other.shutdown()
        other.server_close()


def test_a_server_that_was_started_anew_gets_its_adapter_back(
    server: AdaptingServer, served: VLLMPolicy
) -> None:
    """It does not know the name, and never answers with its bare model instead."""
    server.adapters.clear()
    assert ask(served) == (10, 0)
    assert len(server.adapters) == 1


def test_a_server_that_stays_forgets_a_run_that_ended_or_was_killed(
    server: AdaptingServer, served: VLLMPolicy, tmp_path: Path
) -> None:
    """Names of directories that are gone were kept for ever; those of others are left alone."""
    server.adapters["theirs"] = "/elsewhere/version_0"
    publisher_of(tmp_path).publish(served, 1)
    config = VLLMConfig(urls=[f"http://127.0.0.1:{server.server_port}"])
    resumed = open_vllm(config, Path("/model"), PlainTokenizer(), lora_rank=4)
    publisher_of(tmp_path).publish(resumed, 5)
    left = {"/elsewhere/version_0", str(tmp_path / "version_5")}
    assert {*server.adapters.values()} == left, "what the killed run gave is unloaded"
    resumed.close()
    assert [*server.adapters] == ["theirs"]
    resumed.close()


def test_a_server_without_adapters_is_refused(server: AdaptingServer) -> None:
    server.answer = lambda path, body: (  # type: ignore[method-assign]
        (404, {"detail": "Not Found"})
        if "lora" in path
        else AdaptingServer.answer(server, path, body)
    )
    config = VLLMConfig(urls=[f"http://127.0.0.1:{server.server_port}"])
    policy = open_vllm(config, Path("/model"), PlainTokenizer(), lora_rank=4)
    with pytest.raises(UserError, match=r"enable-lora.*policy.vllm.publish=weights"):
        policy.update_weights(Path("/adapter"), 0)


def test_which_way_weights_go() -> None:
    ours, theirs = VLLMConfig(gpus=["0"]), VLLMConfig(urls=["http://there:8000"])
    assert publishes_adapters(ours, 16) and not publishes_adapters(ours, 0)
    assert not publishes_adapters(VLLMConfig(), 16), "vLLM's adapters are slow on a CPU"
    assert not publishes_adapters(theirs, 16), "it may have been started without --enable-lora"
    assert publishes_adapters(dataclasses.replace(theirs, publish="adapter"), 16)
    assert not publishes_adapters(dataclasses.replace(ours, publish="weights"), 16)
    assert not publishes_adapters(ours, 1000)
    assert not publishes_adapters(ours, 16, scores=True), "vLLM cannot score with adapters"
    assert publishes_adapters(dataclasses.replace(ours, publish="adapter"), 16, scores=True)
    for rank in (0, 1000):
        with pytest.raises(UserError, match=f"learner.lora_rank={rank}"):
            publishes_adapters(VLLMConfig(publish="adapter"), rank)


@pytest.mark.parametrize(("rank", "bound"), [(1, 1), (2, 8), (16, 16), (17, 32), (512, 512)])
def test_servers_are_started_for_the_rank(rank: int, bound: int) -> None:
    launch = Launch(python="python", lora_rank=rank)
    words = launch.command(Path("/model"), 1, 0)
    assert words[words.index("--max-lora-rank") + 1] == str(bound)
    assert launch.environment()["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    plain = Launch(python="python")
    assert "--enable-lora" not in plain.command(Path("/model"), 1, 0)


def test_an_engine_may_take_as_long_for_a_step_as_a_request_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ended itself after 300 s of one step, on a busy CPU, and the whole server with it."""
    name = "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"
    monkeypatch.delenv(name, raising=False)
    launch = Launch(python="python", request_timeout_s=900.5)
    assert launch.environment()[name] == "901"
    monkeypatch.setenv(name, "77")
    assert launch.environment()[name] == "77"


def test_idle_connections_outlast_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM closes them after 5 s: what was sent just then was reset, and the server called lost."""
    name = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
    monkeypatch.delenv(name, raising=False)
    assert int(Launch(python="python").environment()[name]) >= 600
    monkeypatch.setenv(name, "60")
    assert Launch(python="python").environment()[name] == "60"


@pytest.mark.parametrize(
    ("words", "gpus", "eager"),
    [({}, [], True), ({}, ["0"], False), ({"enforce_eager": True}, ["0"], True),
     ({"enforce_eager": False}, [], False)],
)  # fmt: skip
def test_servers_have_compiled_graphs_where_they_have_a_gpu(
    monkeypatch: pytest.MonkeyPatch, words: dict[str, Any], gpus: list[str], eager: bool
) -> None:
    started: list[Launch] = []

    class Started(Exception):
        pass

    def start(launch: Launch, number: int, gpus: str) -> None:
        started.append(launch)
        raise Started

    monkeypatch.setattr("selfplay.policy.vllm.policy.find_python", lambda python: "python")
    monkeypatch.setattr("selfplay.policy.vllm.policy.ServerProcess", start)
    with pytest.raises(Started):
        open_vllm(VLLMConfig(gpus=gpus, **words), Path("/model"), None)  # type: ignore[arg-type]
    assert started[0].enforce_eager is eager
    assert ("--enforce-eager" in started[0].command(Path("/model"), 1, 0)) is eager


# What follows runs vLLM itself.


@pytest.fixture(scope="module")
def model_dir() -> Path:
    return resolve_model("smollm2-135m", cache_root())


@pytest.fixture(scope="module")
def adapted(model_dir: Path) -> Any:
    model = load_model(model_dir)
    use_adapter(model, str(ADAPTERS / "default"), rank=16)
    return model


@pytest.fixture(scope="module")
def real(model_dir: Path) -> Iterator[VLLMPolicy]:
    try:
        find_python(None)
    except UserError as error:
        pytest.skip(f"vLLM is not installed: {error}")
    config = VLLMConfig(max_model_len=1024, kv_cache_gib=1, start_timeout_s=3000)
    policy = open_vllm(config, model_dir, HFTokenizer.load(model_dir), lora_rank=16)
    policy.update_weights(ADAPTERS / "default", 0)
    yield policy
    policy.close()


@torch.no_grad()
def scaled(adapted: Any, factor: float, directory: Path) -> Path:
    """The adapter with its effect multiplied, on disk; the model stays as it is."""
    for _, layer in lora_layers(adapted):
        layer.lora_B.mul_(factor)
    save_adapter(adapted, directory)
    for _, layer in lora_layers(adapted):
        layer.lora_B.div_(factor)
    return directory


def prompts_of(policy: VLLMPolicy, num: int) -> list[tuple[int, ...]]:
    text = "def f(x):\n    return x + 1\n" * 4
    return [policy.tokenizer.render("You repair code.", f"{text}File {n}.") for n in range(num)]


def records_of(policy: VLLMPolicy, num: int) -> list[Trajectory]:
    requests = [
        SampleRequest(prompt_ids=prompt, max_new_tokens=24) for prompt in prompts_of(policy, num)
    ]
    groups = policy.sample(requests)
    return [
        trajectory(request, answer) for request, (answer,) in zip(requests, groups, strict=True)
    ]


@pytest.mark.model
@pytest.mark.slow
def test_log_probabilities_are_those_of_the_model_in_this_process(
    real: VLLMPolicy, adapted: Any
) -> None:
    mismatch = measure_mismatch(adapted, records_of(real, 8))
    assert mismatch.kl < 0.02 and mismatch.mean_abs < 0.15 and mismatch.max_abs < 1.5, mismatch


@pytest.mark.model
@pytest.mark.slow
def test_a_new_adapter_never_meets_what_was_cached_for_the_old_one(
    real: VLLMPolicy, adapted: Any, tmp_path: Path
) -> None:
    """The same path with other contents, as when a version is published anew (vLLM issue 42125)."""
    text = "def f(x):\n    return x + 1\n" * 50  # vLLM caches whole blocks: of 128 tokens on a CPU
    long = real.tokenizer.render("You repair code.", text)
    assert len(long) > 300
    request = SampleRequest(prompt_ids=long, max_new_tokens=8, temperature=0.0)
    directory = scaled(adapted, 1.0, tmp_path / "adapter")
    real.update_weights(directory, 1)
    ((before,),) = real.sample([request])
    scaled(adapted, -2.0, directory)
    real.update_weights(directory, 2)
    ((warm,),) = real.sample([request])
    real._backends[0].client._admin("/reset_prefix_cache?reset_running_requests=true")
    ((cold,),) = real.sample([request])
    assert (warm.policy_version, before.policy_version) == (2, 1)
    assert warm.token_ids == cold.token_ids != before.token_ids
    assert warm.logprobs == pytest.approx(cold.logprobs, abs=0.05)
    real.update_weights(ADAPTERS / "default", 3)


@pytest.mark.model
@pytest.mark.slow
def test_more_versions_under_way_than_the_server_keeps(
    real: VLLMPolicy, adapted: Any, tmp_path: Path
) -> None:
    """Two adapters run at once and four are kept; what comes after waits."""
    publisher = DirectoryPublisher(partial(save_adapter, adapted), tmp_path)
    prompt = prompts_of(real, 1)[0]
    running = []
    with ThreadPoolExecutor(8) as threads:
        for version in range(10, 17):
            publisher.publish(real, version)
            request = SampleRequest(prompt_ids=prompt, num_samples=2, max_new_tokens=32)
            running.append(threads.submit(real.sample, [request]))
            time.sleep(0.2)
        found = [future.result() for future in running]
    versions = [{answer.policy_version for answer in group} for (group,) in found]
    assert versions == [{version} for version in range(10, 17)]
    assert real._backends[0]._generation == 0, "the server lived through it"
    real.update_weights(ADAPTERS / "default", 17)


@pytest.mark.model
@pytest.mark.slow
def test_adapters_that_vllm_refuses_leave_the_one_before(
    real: VLLMPolicy, adapted: Any, model_dir: Path, tmp_path: Path
) -> None:
    """Of too high a rank, with a head of its own, cut off, or absent."""
    request = SampleRequest(prompt_ids=prompts_of(real, 1)[0], max_new_tokens=8, temperature=0.0)
    ((before,),) = real.sample([request])
    version = real.version
    broken = {"absent": tmp_path / "absent"}
    wide = load_model(model_dir)
    add_lora(wide, 32, 32.0)
    save_adapter(wide, tmp_path / "wide")
    broken["max_lora_rank"] = tmp_path / "wide"
    for name in ("cut", "head"):
        broken[name] = scaled(adapted, 1.0, tmp_path / name)
    weights = broken["cut"] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    add_head(broken["head"] / "adapter_model.safetensors")
    for directory in broken.values():
        with pytest.raises(PolicyError, match=f"loading weights {version + 1} failed"):
            real.update_weights(directory, version + 1)
        ((after,),) = real.sample([request])
        assert (after.token_ids, after.policy_version) == (before.token_ids, version)
    assert real._backends[0]._generation == 0, "the server lived through it"


def add_head(path: Path) -> None:
    """Saved output weights beside the factors, as peft's `modules_to_save` writes them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(path))
    save_file({**tensors, "base_model.model.lm_head.weight": torch.zeros(8, 8)}, str(path))
