"""Calls in any family's style: taken where one call stands in the message, else answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.agent.calls.formats import CallFormat, FencedCalls, LlamaCalls, OwnCalls, TaggedCalls
from selfplay.agent.calls.styles import only_call
from selfplay.agent.fenced import parse_call
from selfplay.chat import BadCall, ToolCall

JSON = '{"name": "bash", "arguments": {"command": "ls -l"}}'
ARGS = '{"command": "ls -l"}'
STYLES = {
    "hermes": f"<tool_call>\n{JSON}\n</tool_call>",
    "hermes without end": f"<tool_call>\n{JSON}\n",
    "json fence": f"```json\n{JSON}\n```",
    "bare fence": f"```\n{JSON}\n```",
    "fence with prose behind": f"```json\n{JSON}\n```\nThis lists the files.",
    "indented fence": f"   ```json\n   {JSON}\n   ```",
    "bare json": JSON,
    "bare json behind prose": f"I look.\n{JSON}",
    "a list of one": f"[{JSON}]",
    "as OpenAI has it": '{"id": "c1", "type": "function", "function": {"name": "bash", '
    '"arguments": "{\\"command\\": \\"ls -l\\"}"}}',
    "xml": "<function=bash>\n<parameter=command>\nls -l\n</parameter>\n</function>",
    "xml in tags": "<tool_call>\n<function=bash>\n<parameter=command>\nls -l\n</parameter>\n"
    "</function>\n</tool_call>",
    "glm": "<tool_call>bash\n<arg_key>command</arg_key>\n<arg_value>ls -l</arg_value>\n"
    "</tool_call>",
    "minimax": '<minimax:tool_call>\n<invoke name="bash">\n<parameter name="command">ls -l'
    "</parameter>\n</invoke>\n</minimax:tool_call>",
    "mistral": f"[TOOL_CALLS]bash[ARGS]{ARGS}",
    "mistral list": f"[TOOL_CALLS] [{JSON}]</s>",
    "gpt-oss": "<|channel|>commentary to=functions.bash <|constrain|>json<|message|>"
    f"{ARGS}<|call|>",
    "gpt-oss thinking": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>"
    f"commentary to=functions.bash <|constrain|>json<|message|>{ARGS}<|call|>",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>bash\n```json\n"
    f"{ARGS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek 3.1": f"<｜tool▁call▁begin｜>bash<｜tool▁sep｜>{ARGS}<｜tool▁call▁end｜>",
    "kimi": "<|tool_call_begin|>functions.bash:0<|tool_call_argument_begin|>"
    f"{ARGS}<|tool_call_end|>",
    "phi": f"<|tool_call|>[{JSON}]<|/tool_call|>",
    "granite": f"<|tool_call|>[{JSON}]",
    "gemma 4": '<|tool_call>call:bash{command:<|"|>ls -l<|"|>}<tool_call|>',
    "cohere": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "bash", "parameters": '
    f"{ARGS}}}]<|END_ACTION|>",
    "olmo": '<function_calls>bash(command="ls -l")</function_calls>',
    "lfm": '<|tool_call_start|>[bash(command="ls -l")]<|tool_call_end|>',
    "shell fence": "```sh\nls -l\n```",
    "bash fence, Windows": "```bash\r\nls -l\r\n```\r\n",
    "indented shell fence": "1. Look:\n   ```shell\n   ls -l\n   ```",
}
OWN: dict[str, CallFormat] = {
    "tags": TaggedCalls(), "llama": LlamaCalls(), "fence": FencedCalls(), "own": OwnCalls("[x]")
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_each_style_is_read_by_every_format(style: str) -> None:
    for name, parse in {"fenced": parse_call, **{n: f.parse for n, f in OWN.items()}}.items():
        call = parse(STYLES[style])
        if isinstance(call, BadCall):  # strict about its own marks
            own = {"tags": "<tool_call>", "llama": "{"}.get(name, "\0")
            assert STYLES[style].lstrip().startswith(own), (name, call.problem)
            continue
        assert (call.name, call.arguments) == ("bash", {"command": "ls -l"}), name


@pytest.mark.parametrize("style", STYLES)
def test_two_calls_are_answered_not_guessed(style: str) -> None:
    if "prose" in style or "without end" in style or "thinking" in style:
        return
    twice = f"{STYLES[style]}\n\n{STYLES[style]}"
    got = only_call(twice)
    assert got is None or (isinstance(got, BadCall) and "Only one" in got.problem), got
    assert isinstance(parse_call(twice), BadCall)


@pytest.mark.parametrize(
    "text",
    [
        "I am done.",
        '```json\n{"name": "acme", "version": "1.0"}\n```',
        '```json\n{"name": "acme", "arguments": {}, "scripts": {}}\n```',
        "```python\nprint(1)\n```",
        "```console\n$ ls\na.py\n```",
        "```bash\n```",
        "```bash\nls",
        "<function=bash>rm -rf /</function>",
        "<tool_call>import os; os.system('ls')</tool_call>",
        '<function_calls>__import__("os").system("ls")</function_calls>',
        '[{"name": "bash", "arguments": {}}, 3] and more',
    ],
)
def test_what_is_no_call_gets_a_hint(text: str) -> None:
    for form in OWN.values():
        got = form.parse(text)
        assert isinstance(got, BadCall) and got.problem
    assert only_call(text) is None


def test_a_fence_holds_fences_and_keeps_what_lies_deeper() -> None:
    body = "cat > a.md <<'E'\n  ```\n  x\n  ```\nE"
    assert parse_call(f"```bash\n{body}\n```") == ToolCall(name="bash", arguments={"command": body})


@given(st.lists(st.sampled_from(
    ["<tool_call>", "</tool_call>", "<function=a>", "<parameter=b>", "</parameter>", "</function>",
     "```json\n", "```\n", "[TOOL_CALLS]", "[ARGS]", "call:a{", "}", "{", JSON, "<arg_key>",
     "a(", ")", "\n", "</think>", "<think>", "<|message|>", " to=a", "\x00", "\ud800", "é"]
), max_size=14).map("".join))  # fmt: skip
def test_whatever_is_written_is_a_call_or_a_problem(text: str) -> None:
    for parse in (parse_call, *(form.parse for form in OWN.values())):
        got = parse(text)
        assert isinstance(got, ToolCall) or got.problem
