"""Chat completions over real HTTP, from a small server that fails on purpose."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.config import OpenAIConfig, PolicyConfig
from selfplay.errors import PolicyError, UserError
from selfplay.policy.openai import OpenAIPolicy, open_openai
from selfplay.sampling import SampleRequest

from .served import Unreliable, serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[Unreliable]:
    with serving() as running:
        yield running


def policy_of(server: Unreliable, **more: Any) -> OpenAIPolicy:
    config = OpenAIConfig(url=server.url, api_key_variable="NO_SUCH_KEY", **more)
    return OpenAIPolicy("m", config, first_wait_s=0.02)


def ask(policy: OpenAIPolicy, num_samples: int = 1) -> SampleRequest:
    prompt = policy.tokenizer.render("Be terse.", "2 + 2?")
    return SampleRequest(prompt_ids=prompt, num_samples=num_samples, max_new_tokens=9, seed=3)


def test_what_is_sent_and_what_comes_back(
    server: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    config = OpenAIConfig(
        url=f"http://127.0.0.1:{server.server_port}/v1",
        api_key_variable="SOME_KEY",
        body={"reasoning_effort": "low"},
        input_price=2.0,
        output_price=10.0,
    )
    policy = open_openai(PolicyConfig(engine="openai", model="big", adapter=None, openai=config))
    (group,) = policy.sample([ask(policy, num_samples=3)])
    assert [c.text for c in group] == ["four"] * 3
    assert all(c.finish_reason == "stop" and c.token_ids[-1] == 0 for c in group)
    assert all(len(c.logprobs) == len(c.token_ids) for c in group)
    assert all(map(math.isnan, group[0].logprobs)), "never to be trained on"
    bodies = [body for _, body, _ in server.seen]
    assert len({body.pop("seed") for body in bodies}) == 3
    assert bodies[0] == {
        "model": "big",
        "messages": [
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": "2 + 2?"},
        ],
        "max_tokens": 9,
        "temperature": 1.0,
        "top_p": 1.0,
        "reasoning_effort": "low",
    }
    assert {key for _, _, key in server.seen} == {"Bearer s3cret"}
    usage = policy.usage()
    assert usage["requests"] == 3 and usage["retries"] == 0
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (33, 6)
    assert usage["cost_usd"] == pytest.approx((33 * 2 + 6 * 10) / 1e6)


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_network_that_is_left_by_a_proxy_alone(
    server: Unreliable, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """As on many clusters. The stand-in takes the proxy's part: it gets the whole address."""
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    place = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HTTP_PROXY", f"{scheme}us%40er:pass@{place}")
    far = OpenAIConfig(url="http://models.example.test/v1", api_key_variable="NO_SUCH_KEY")
    assert ask_all(OpenAIPolicy("m", far, first_wait_s=0.02)) == "four"
    assert server.paths == ["http://models.example.test/v1/chat/completions"]
    assert server.logins == ["Basic dXNAZXI6cGFzcw=="]
    assert ask_all(policy_of(server)) == "four"  # the loopback interface has none
    assert server.paths[1] == "/v1/chat/completions" and server.logins[1] is None
    monkeypatch.setenv("NO_PROXY", ".example.test")
    with pytest.raises(PolicyError, match=r"models.example.test.*(resolve|Connection)"):
        ask_all(OpenAIPolicy("m", replace(far, max_retries=0)))
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("ALL_PROXY", f"socks5://user:pass@{place}")
    monkeypatch.delenv("HTTP_PROXY")
    with pytest.raises(UserError, match=r"ALL_PROXY is socks5://127.0.0.1:\d+: only .* NO_PROXY"):
        OpenAIPolicy("m", far)


def ask_all(policy: OpenAIPolicy) -> str:
    return policy.sample([ask(policy)])[0][0].text


def test_failures_that_pass_are_repeated(server: Unreliable) -> None:
    server.script = [
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.4"}),
        (503, "busy", {}),
        (0, None, {}),
    ]
    policy = policy_of(server)
    assert policy.sample([ask(policy)])[0][0].text == "four"
    assert policy.usage()["retries"] == 3 and policy.usage()["cost_usd"] is None
    times = [when for when, _, _ in server.seen]
    assert times[1] - times[0] >= 0.4, "as long as the server asks for"
    assert len({json.dumps(body) for _, body, _ in server.seen}) == 1


def test_a_server_that_keeps_failing_stops_with_its_reason(server: Unreliable) -> None:
    server.script = [(500, {"error": {"message": "out of luck"}}, {})] * 9
    policy = policy_of(server, max_retries=2)
    with pytest.raises(PolicyError, match=r"out of luck.*after 2 retries"):
        policy.sample([ask(policy)])
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("status", "kind", "match"),
    [
        (401, UserError, "NO_SUCH_KEY"),
        (402, UserError, "credit"),
        (404, PolicyError, "no such model"),
    ],
)
def test_what_repeating_does_not_mend(
    server: Unreliable, status: int, kind: type[Exception], match: str
) -> None:
    server.script = [(status, {"error": {"message": "no such model"}}, {})]
    policy = policy_of(server)
    with pytest.raises(kind, match=match):
        policy.sample([ask(policy)])
    assert len(server.seen) == 1


def test_an_empty_answer_cut_by_length(server: Unreliable) -> None:
    choice = {"message": {"content": None}, "finish_reason": "length"}
    server.script = [(200, {"choices": [choice]}, {})]
    policy = policy_of(server)
    completion = policy.sample([ask(policy)])[0][0]
    assert completion.text == "" and completion.finish_reason == "length"
    assert policy.usage()["completion_tokens"] == 0


def test_requests_keep_their_pace(server: Unreliable) -> None:
    policy = policy_of(server, requests_per_minute=600.0)
    policy.sample([ask(policy, num_samples=5)])
    times = sorted(when for when, _, _ in server.seen)
    assert times[-1] - times[0] >= 0.35
    with pytest.raises(UserError, match="must be above 0"):
        policy_of(server, requests_per_minute=0.0)


def test_nothing_listens() -> None:
    config = OpenAIConfig(url="http://127.0.0.1:9", max_retries=1)
    policy = OpenAIPolicy("m", config, first_wait_s=0.01)
    with pytest.raises(PolicyError, match="after 1 retries"):
        policy.sample([ask(policy)])
    with pytest.raises(UserError, match="adapter=null"):
        open_openai(PolicyConfig(engine="openai", model="m"))


def selfplay(*words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "selfplay", *words, "sandbox=bubblewrap", "json=true"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "s3cret"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_evaluation_counts_tokens_and_cost(server: Unreliable, tmp_path: Path) -> None:
    """`selfplay evaluate policy=openai` on real bugs, with a failure on the way."""
    selfplay("inject", "repo=sample-ledger", "source=procedural", "n=4", f"out={tmp_path}")
    server.script = [(503, "busy", {})]
    result = selfplay(
        "evaluate", f"suite={tmp_path}", "policy=openai", "policy.model=m", "num_samples=2",
        f"policy.openai.url=http://127.0.0.1:{server.server_port}/v1",
        "policy.openai.input_price=1", "policy.openai.output_price=2",
    )  # fmt: skip
    num = 2 * result["num_tasks"]
    assert num > 0 and result["num_errored"] == 0 and result["pass@1"]["mean"] == 0.0
    usage = result["usage"]
    assert (usage["requests"], usage["retries"]) == (num, 1)
    assert usage["cost_usd"] == pytest.approx(num * (11 + 2 * 2) / 1e6)
    assert all("fix" in json.dumps(body).lower() for _, body, _ in server.seen)
