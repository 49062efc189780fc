"""Odd answers of servers: asked again, of one sample, or the end of all; what is there is kept.

The inputs are small ones of our own after what people reported of evalscope#1674 (an error inside a
200), pi#8462 (a stop without a word), genkit#6259 (a gateway's error beside the choice, reasons of
many providers), microsoft/vscode#312616 (temperature and top_p not both), mini-sglang#51 and
unsloth#6570 (a stream that nobody asked for) and hiring-agent#186 (a quota of a minute that speaks
of billing).
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from selfplay.config.policy import OpenAIConfig
from selfplay.errors import PolicyError, UserError
from selfplay.policy.endpoint_answers import content_text, read_answer
from selfplay.policy.http import refusal
from selfplay.policy.openai import NO_ANSWER, OpenAIPolicy
from selfplay.sampling import SampleRequest, ServedPolicy

from .served import ANSWER, Unreliable, serving

OK = (200, ANSWER, {})


def choice(content: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    beside = {k: more.pop(k) for k in ("error",) if k in more}
    message = {"content": content, **more}
    return {"choices": [{"message": message, "finish_reason": finish, **beside}],
            "usage": {"completion_tokens": 3}}  # fmt: skip


def refused(status: int, message: str, **more: Any) -> tuple[int, Any, dict[str, str]]:
    return status, {"error": {"message": message, **more}}, {}


def policy_of(server: Unreliable, **more: Any) -> OpenAIPolicy:
    config = OpenAIConfig(url=server.url, api_key_variable="NO_SUCH_KEY", **more)
    return OpenAIPolicy("m", config, first_wait_s=0.01)


def ask(policy: OpenAIPolicy, num_samples: int = 1) -> SampleRequest:
    prompt = policy.tokenizer.render("Be terse.", "2 + 2?")
    return SampleRequest(prompt_ids=prompt, num_samples=num_samples, max_new_tokens=9, seed=3)


MINUTE = [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message":
          "You exceeded your current quota, please check your plan and billing details." + 400 * " "
          + "Please retry in 20ms."}}]  # fmt: skip


PASSING: dict[str, tuple[int, Any, dict[str, str]]] = {
    "a gateway's page": (200, "<html>gateway</html>", {"Content-Type": "text/html"}),
    "half a document": (200, '{"choices": [', {}),
    "nothing at all": (200, "", {}),
    "a list": (200, [], {}),
    "no choices": (200, {"choices": []}, {}),
    "choices null": (200, {"choices": None}, {}),
    "an error inside": (200, {"error": {"message": "Provider returned error", "code": 502}}, {}),
    "an error as text": (200, {"error": "upstream"}, {}),
    "an error as vLLM had it": (200, {"object": "error", "message": "x", "code": 500}, {}),
    "an error beside the choice": (200, choice("half", "error", error={"code": 502}), {}),
    "an error beside a stop": (200, choice("half", "stop", error={"message": "lost"}), {}),
    "a network error": (200, choice("half", "network_error"), {}),
    "a stop without a word": (200, {"choices": [{"message": {"content": ""},
                              "finish_reason": "stop"}]}, {}),
    "overloaded": (529, "", {}),
    "a quota of a minute": (429, MINUTE, {}),
    "brackets without end": (200, "[" * 100_000, {}),
    "half a stream": (200, 'data: {"choices": [{"delta": {"content": "fo"}}]}\n\n', {}),
    "slow down until a date far away": (429, "", {"Retry-After": "Thu, 26 Nov 2099 00:00:00 GMT"}),
    "closed half-way": (200, ANSWER, {"Content-Length": "5000", "Connection": "close"}),
    "closed": (0, None, {}),
}  # fmt: skip
OF_ONE: dict[str, tuple[tuple[int, Any, dict[str, str]], str, bool]] = {
    "filtered": ((200, choice(None, "content_filter"), {}), "content_filter", False),
    "filtered half-way": ((200, choice("half", "sensitive"), {}), "content_filter", False),
    "filtered prompt": (refused(400, "x", code="content_filter"), "content_filter", False),
    "moderated": (refused(403, "Your input was flagged"), "content_filter", False),
    "refusal": ((200, choice(None, refusal="I cannot"), {}), "refusal", False),
    "context": (refused(400, "This model's maximum context length is 512"), "context_length",
                False),
    "context of llama.cpp": (refused(500, "the request exceeds the available context size"),
                             "context_length", False),
    "context, told late": (refused(400, f"{'x' * 500} maximum context length is 512"),
                           "context_length", False),
    "something else": (refused(400, "bad request"), "infrastructure", True),
}  # fmt: skip
ENDING: dict[str, tuple[tuple[int, Any, dict[str, str]], type[Exception], str]] = {
    "credit inside a 200": ((200, {"error": {"message": "Insufficient balance", "code": 402}}, {}),
                            UserError, "credit"),
    "quota": (refused(429, "x", code="insufficient_quota"), UserError, "credit"),
    "key": (refused(403, "no"), UserError, "NO_SUCH_KEY"),
    "model": (refused(404, "no such model"), PolicyError, "no such model"),
    "parameter": (refused(400, "`temperature` and `top_p` cannot both be specified"), UserError,
                  r"policy.openai.omit=\[temperature\]"),
    "name": (refused(400, "Unsupported parameter: 'max_tokens'"), UserError, "rename"),
    "system": (refused(400, "System role not supported"), UserError, "system_role=user"),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_asked_again(name: str) -> None:
    with serving() as server:
        server.script = [PASSING[name]]
        policy = policy_of(server)
        assert policy.sample([ask(policy)])[0][0].text == "four"
        assert len(server.seen) == 2 and policy.usage()["retries"] == 1


def chunks(*deltas: dict[str, Any]) -> str:
    last = {"choices": [{"delta": {}, "finish_reason": "length"}], "usage": {"prompt_tokens": 7}}
    told = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in (*told, last, {"choices": []})]
    return ": a comment\n\nevent: message\n" + "".join(events) + "data: [DONE]\n\n"


CALL = '<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>\n'
WRITTEN: dict[str, tuple[Any, str]] = {
    "a stream": (chunks({"role": "assistant", "content": ""}, {"content": "fo"}, {"content": "ur"}),
                 "four"),
    "a stream of a call": (chunks(
        {"content": None, "tool_calls": [{"index": 0, "function": {"name": "bash"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"command":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "ls"}'}}]}), CALL),
    "the call of old": (choice(None, function_call={
        "name": "bash", "arguments": '{"command": "ls"}'}), CALL),
    "a mark before the document": ("\ufeff" + json.dumps(ANSWER), "four"),
    "half a character": (choice("four \ud83d"), "four \ufffd"),
    "one in two": ('{"choices": [{"message": {"content": "\\ud83d\\ude00"}}]}', chr(0x1F600)),
    "no end of tokens": ('{"choices": [{"message": {"content": "four"}}],'
                         ' "usage": {"completion_tokens": Infinity}}', "four"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_odd_ways_to_write_an_answer(name: str) -> None:
    document, text = WRITTEN[name]
    with serving() as server:
        server.script = [(200, document, {})]
        policy = policy_of(server)
        assert policy.sample([ask(policy)])[0][0].text == text
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("Please try again in 6m0.5s.", 360.5), ("Please retry in 20ms", 0.02), ("slow down", None),
     ("Please retry after 12 seconds", 12.0), ("try again in a while", None)],
)  # fmt: skip
def test_when_to_ask_again_is_told_in_words(said: str, seconds: float | None) -> None:
    assert refusal("here", 429, json.dumps({"error": {"message": said}})).retry_after_s == seconds


@pytest.mark.parametrize("name", OF_ONE)
def test_what_concerns_one_sample_costs_one(name: str) -> None:
    answer, problem, errored = OF_ONE[name]
    with serving() as server:
        server.script = [OK, answer, OK]
        policy = policy_of(server, max_concurrency=1)
        (group,), error = policy.try_sample([ask(policy, 4)])
        assert error is None and [c.text for c in group] == ["four", "", "four", "four"]
        assert (group[1].problem.split(":")[0], group[1].errored) == (problem, errored)
        assert len(server.seen) == 4
        server.script = [answer]
        if errored:
            with pytest.raises(PolicyError, match="bad request"):
                policy.sample([ask(policy)])
        else:
            assert policy.sample([ask(policy)])[0][0].problem == problem


@pytest.mark.parametrize("name", ENDING)
def test_what_ends_all_keeps_what_is_there(name: str) -> None:
    answer, kind, match = ENDING[name]
    with serving() as server:
        server.script = [OK, OK, answer]
        policy = policy_of(server, max_concurrency=1)
        assert isinstance(policy, ServedPolicy)
        groups, error = policy.try_sample([ask(policy, 2), ask(policy, 2), ask(policy, 2)])
        assert [len(group) for group in groups] == [2, 0, 0] and len(server.seen) == 3
        with pytest.raises(kind, match=match):
            raise error or AssertionError


def test_a_server_that_is_gone_ends_all_and_a_bad_moment_does_not() -> None:
    broken = (500, "out of luck", {})
    with serving() as server:
        server.script = [OK, broken, broken, OK]
        policy = policy_of(server, max_concurrency=1, max_retries=1)
        (group,), error = policy.try_sample([ask(policy, 3)])
        assert error is None and [c.errored for c in group] == [False, True, False]
        server.script = [broken] * 99
        (group,), error = policy.try_sample([ask(policy, 9)])
        assert len(group) == 3 and "out of luck" in str(error)


def test_a_server_that_refuses_every_request_is_told_once() -> None:
    with serving() as server:
        server.script = [refused(400, "bad request")] * 99
        policy = policy_of(server, max_concurrency=1)
        (group,), error = policy.try_sample([ask(policy, 20)])
        assert len(group) == 7 and "refused 8 requests in a row" in str(error)


@pytest.mark.parametrize(
    ("finish", "want"),
    [("eos", "stop"), (None, "stop"), ("end_turn", "stop"), ("STOP", "stop"),
     ("tool_calls", "stop"), ("max_tokens", "length"), ("model_context_window_exceeded", "length")],
)  # fmt: skip
def test_reasons_of_many_servers(finish: Any, want: str) -> None:
    assert read_answer(choice("x", finish), "u").finish == want


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x", "x"),
        (None, ""),
        ([{"type": "thinking", "thinking": "no"}, {"type": "text", "text": "x"}], "x"),
        ([{"type": "reasoning", "text": "no"}, {"text": "x"}, "y"], "xy"),
        ([{"type": "output_text", "text": {"value": "x"}}, {"type": "image_url"}], "x"),
        ({"type": "text", "text": "x"}, "x"),
        (3, ""),
    ],
)
def test_content_as_text_or_in_parts(content: Any, text: str) -> None:
    assert content_text(content) == text


def test_native_calls_are_read_beside_a_null_content() -> None:
    from selfplay.agent.fenced import parse_call
    from selfplay.chat import ToolCall

    for arguments in ('{"command": "ls"}', {"command": "ls"}):
        call = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": arguments}}
        text = read_answer(choice(None, "tool_calls", tool_calls=[call]), "u").text
        assert parse_call(text) == ToolCall(name="bash", arguments={"command": "ls"})
        two = read_answer(choice(None, "tool_calls", tool_calls=[call, call]), "u").text
        assert "Only one" in getattr(parse_call(two), "problem", "")
    answer = read_answer(choice(None, reasoning_content="hm"), "u")
    assert answer.text == "" and not answer.is_empty


KEYS = ["temperature", "top_p", "seed", "max_tokens"]


@pytest.mark.parametrize("left_out", [c for n in (1, 2) for c in itertools.combinations(KEYS, n)])
def test_any_key_can_be_left_out(left_out: tuple[str, ...]) -> None:
    with serving() as server:
        policy = policy_of(server, omit=list(left_out))
        policy.sample([ask(policy)])
        ((_, body, _),) = server.seen
        assert set(body) == {"model", "messages", *KEYS} - set(left_out)


def test_keys_can_be_renamed_and_set() -> None:
    names = {"max_tokens": "max_completion_tokens", "seed": "random_seed"}
    with serving() as server:
        policy = policy_of(server, rename=names, body={"reasoning_effort": "low", "top_p": 0.9})
        policy.sample([ask(policy)])
        body = server.seen[0][1]
        assert body["max_completion_tokens"] == 9 and "random_seed" in body
        assert body["reasoning_effort"] == "low" and body["top_p"] == 0.9
        assert not {"max_tokens", "seed"} & set(body)
        for wrong in ({"omit": ["top_k"]}, {"rename": {"max_new": "x"}}, {"system_role": "boss"}):
            with pytest.raises(UserError, match=next(iter(wrong))):
                policy_of(server, **wrong)


@pytest.mark.parametrize("role", ["system", "developer", "user"])
def test_the_system_message_goes_where_the_server_takes_it(role: str) -> None:
    with serving() as server:
        policy = policy_of(server, system_role=role)
        policy.sample([ask(policy)])
        messages = server.seen[0][1]["messages"]
        assert [m["role"] for m in messages] == ["user"] if role == "user" else [role, "user"]
        assert "Be terse." in messages[0]["content"] and "2 + 2?" in messages[-1]["content"]


def test_no_message_of_a_history_is_empty() -> None:
    with serving() as server:
        policy = policy_of(server)
        chat = policy.tokenizer.chat()
        for said in ("", " \n"):
            prompt = chat.bridge(
                policy.tokenizer.render("s", "u"), (*policy.tokenizer.encode(said), 0), "go on"
            )
            policy.sample([SampleRequest(prompt_ids=prompt)])
            assert server.seen[-1][1]["messages"][2] == {"role": "assistant", "content": NO_ANSWER}
