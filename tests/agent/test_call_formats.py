"""Tool calls are taken when whole and alone; nothing malformed gets through, nothing raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.agent.calls.formats import CallFormat, FencedCalls, LlamaCalls, TaggedCalls
from selfplay.chat import BadCall, ToolCall, ToolSpec

FORMATS: list[CallFormat] = [TaggedCalls(), LlamaCalls(), FencedCalls()]
CALL = {"name": "bash", "arguments": {"command": "ls\n# `x` </tool_call>"}}


def write(form: CallFormat, call: Any, thought: str = "") -> str:
    text = call if isinstance(call, str) else json.dumps(call)
    if isinstance(form, TaggedCalls):
        return f"{thought}<tool_call>\n{text}\n</tool_call>"
    if isinstance(form, LlamaCalls):
        return f"{thought}<|python_tag|>{text}" if thought else text
    return f"{thought}\n```tool_call\n{text}\n```\n"


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: type(form).__name__)
class TestEveryFormat:
    def test_a_whole_call(self, form: CallFormat) -> None:
        call = {"name": "edit", "arguments": {"path": "a.py", "old": "x\n\ty", "n": [1, None]}}
        got = form.parse(write(form, call, "I look first."))
        assert got == ToolCall(name="edit", arguments=call["arguments"], thought="I look first.")
        assert form.parse(write(form, call)) == ToolCall(name="edit", arguments=call["arguments"])

    def test_parameters_are_arguments_too(self, form: CallFormat) -> None:
        call = {"type": "function", "name": "submit", "parameters": {}}
        assert form.parse(write(form, call)) == ToolCall(name="submit", arguments={})

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('{"name": "bash"}', "keys name and arguments"),
            ('{"arguments": {}}', "keys name and arguments"),
            ('{"name": "a", "arguments": {}, "parameters": {}}', "keys name and arguments"),
            ('{"name": "a", "arguments": {}, "id": 3}', "keys name and arguments"),
            ('{"name": 3, "arguments": {}}', "must be a text"),
            ('{"name": "", "arguments": {}}', "must be a text"),
            ('{"name": "a", "arguments": "ls"}', "must be a JSON object"),
            ('{"name": "a", "arguments": null}', "must be a JSON object"),
            ('{"name": "a", "name": "b", "arguments": {}}', "stands twice"),
            ('{"name": "a", "arguments": {"x": NaN}}', "NaN"),
            ('{"name": "a", "arguments": {"x": "\\ud800"}}', "surrogate"),
            ('{"name": "a", "arguments": {"x": ' + "[" * 100 + "]" * 100 + "}}", "too deeply"),
            ('{"name": "a", "arguments": {"x": ' + "[" * 100_000 + "}}", "too deeply"),
            ('{"name": "a", "arguments": {"x": "two\nlines"}}', "not valid JSON"),
            ('{"name": "a", "arguments": {}} {}', "not valid JSON"),
            ("{'name': 'a', 'arguments': {}}", "not valid JSON"),
            ('{"name": "a", "arguments": {"n": ' + "9" * 5000 + "}}", "not valid JSON"),
        ],
    )
    def test_what_is_refused(self, form: CallFormat, text: str, problem: str) -> None:
        got = form.parse(write(form, text))
        assert isinstance(got, BadCall) and problem in got.problem

    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ))  # fmt: skip
    def test_whatever_json_can_say_comes_back(self, form: CallFormat, value: Any) -> None:
        call = {"name": "t", "arguments": {"value": value}}
        text = json.dumps(call)
        if isinstance(form, TaggedCalls) and "tool_call>" in text:
            return
        got = form.parse(write(form, text))
        assert isinstance(got, ToolCall) and got.arguments == call["arguments"]

    @given(st.lists(st.sampled_from([
        "<tool_call>", "</tool_call>", "<|python_tag|>", "```tool_call\n", "\n```\n", "{", "}",
        '"name"', ":", '"bash"', ",", '"arguments"', "[", "\n", "</think>", "x", "\x00", "\ud800",
        '{"name": "bash", "arguments": {}}',
    ]), max_size=12).map("".join) | st.text())  # fmt: skip
    def test_anything_at_all_is_answered(self, form: CallFormat, text: str) -> None:
        got = form.parse(text)
        if isinstance(got, ToolCall):
            assert got.name in ("bash", "x") and got.arguments == {}
        else:
            assert got.problem


@pytest.mark.parametrize(
    ("form", "text", "problem"),
    [
        (TaggedCalls(), "I am done.", "no tool call"),
        (TaggedCalls(), '<tool_call>{"name": "a", "arguments": {}}', "not closed"),
        (TaggedCalls(), write(TaggedCalls(), CALL) * 2, "Only one"),
        (TaggedCalls(), write(TaggedCalls(), {"name": "a", "arguments": {}}) + " ok?", "follow"),
        (TaggedCalls(), write(TaggedCalls(), CALL) + "</think>", "no tool call"),
        (LlamaCalls(), "Sure: {}", "no tool call"),
        (LlamaCalls(), '<|python_tag|>bash.call(command="ls")', "no tool call"),
        (LlamaCalls(), "<|python_tag|>{}<|python_tag|>{}", "Only one"),
        (FencedCalls(), "```python\nls\n```", "no tool call"),
        (FencedCalls(), "```tool_call\n{}", "not closed"),
        (FencedCalls(), "```tool_call\n{}\n```\n```tool_call\n{}\n```", "Only one"),
        (FencedCalls(), '```tool_call\n{"name": "a", "arguments": {}}\n```\nok?', "follow"),
    ],
)
def test_calls_that_are_not_alone(form: CallFormat, text: str, problem: str) -> None:
    got = form.parse(text)
    assert isinstance(got, BadCall) and problem in got.problem


def test_calls_inside_reasoning_do_not_count() -> None:
    inner = write(TaggedCalls(), {"name": "a", "arguments": {}})
    outer = write(TaggedCalls(), {"name": "b", "arguments": {}})
    got = TaggedCalls().parse(f"<think>maybe {inner}</think>{outer}")
    assert isinstance(got, ToolCall) and got.name == "b" and "maybe" in got.thought


def test_the_fenced_instructions_hold_every_tool_and_an_example_of_the_shape() -> None:
    tools = [ToolSpec(name=n, description=f"does {n}", parameters={}) for n in ("bash", "submit")]
    text = FencedCalls().instructions(tools)
    assert all(f'"name": "{tool.name}"' in text and tool.description in text for tool in tools)
    assert text.endswith(FencedCalls.shape)
