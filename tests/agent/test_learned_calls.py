"""A template's own style of calls is learned from what it writes, and read to the letter."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.agent.calls.formats import OwnCalls
from selfplay.agent.renderer import TemplateRenderer
from selfplay.chat import BadCall, ToolCall, ToolSpec

from .test_renderer import TOOLS, load, plain_ids

OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS_OF = "{% for call in message.tool_calls or [] %}{% set f = call.function %}CALL{% endfor %}"
REPLY = "{{ message.content }}<|im_end|>\n"
CHAT = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}<|im_start|>"
    '{{ message.role }}\n{% if message.role == "assistant" %}{{ message.content }}'
    + CALLS_OF
    + "<|im_end|>\n{% else %}"
    + REPLY
    + "{% endif %}{% endfor %}"
    + OPEN
)
EACH = "{% for key, value in f.arguments.items() %}"
STYLES = {
    "pairs": "<tool_call>{{ f.name }}\n" + EACH + "<arg_key>{{ key }}</arg_key>\n<arg_value>"
    "{{ value }}</arg_value>\n{% endfor %}</tool_call>",
    "pairs of a version": "<calls:v1>\n<call:v1>{{ f.name }}<sep:v1>\n" + EACH + "<key:v1>"
    "{{ key }}</key:v1>\n<value:v1>{{ value }}</value:v1>\n{% endfor %}</call:v1>\n</calls:v1>",
    "lines of their own": "<tool_call>\n<function={{ f.name }}>\n" + EACH
    + "<parameter={{ key }}>\n{{ value }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
    "attributes": '<dsml|calls>\n<dsml|invoke name="{{ f.name }}">\n' + EACH + "<dsml|parameter "
    'name="{{ key }}" string="true">{{ value }}</dsml|parameter>\n{% endfor %}</dsml|invoke>\n'
    "</dsml|calls>",
    "open and close": '<|open|>call tool="{{ f.name }}" index="1"<|sep|>' + EACH
    + '<|open|>argument key="{{ key }}" type="string"<|sep|>{{ value }}<|close|>'
    "argument<|sep|>{% endfor %}<|close|>call<|sep|><|close|>message<|sep|>",
    "tags named by keys": ']~[<invoke name="{{ f.name }}">' + EACH + "]~[<{{ key }}>{{ value }}"
    "]~[</{{ key }}>{% endfor %}]~[</invoke>",
    "a name that stands twice": 'to={{ f.name }}<a:calls><a:invoke name="{{ f.name }}">' + EACH
    + '<a:parameter name="{{ key }}">{{ value }}</a:parameter>{% endfor %}</a:invoke></a:calls>',
    "CDATA": '<function name="{{ f.name }}">' + EACH
    + '<param name="{{ key }}">{% if "<" in value %}'
    "<![CDATA[{{ value }}]]>{% else %}{{ value }}{% endif %}</param>{% endfor %}</function>",
    "quoted by a mark": "<|tool_call>call:{{ f.name }}{{ '{' }}" + EACH
    + "{{ key }}:<|q|>{{ value }}<|q|>{% if not loop.last %},{% endif %}{% endfor %}"
    "{{ '}' }}<tool_call|>",
    "JSON behind a name": "<|call:begin|>{{ call.id }}<|call:name|>{{ f.name }}<|call:args|>"
    "{{ f.arguments | tojson }}<|call:end|>",
    "a name as the key": "<|tools_prefix|>[{{ {f.name: f.arguments} | tojson }}]<|tools_suffix|>",
    "JSON in tags": '<calls>[{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}'
    "{{ '}' }}]</calls>",
}  # fmt: skip
JSON = {"JSON behind a name", "a name as the key", "JSON in tags"}
EDIT = ToolSpec(name="edit", description="edits", parameters={"type": "object"})


@functools.cache
def renderer_of(style: str) -> TemplateRenderer:
    return TemplateRenderer(load(CHAT.replace("CALL", STYLES[style])))


def written(renderer: TemplateRenderer, *calls: ToolCall) -> str:
    """What the template writes of an answer with these calls, up to its end of turn."""
    tokenizer: Any = renderer._template.tokenizer
    functions = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    told = [{"type": "function", "id": "c0", "function": function} for function in functions]
    messages = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "", "tool_calls": told},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return str(text).rpartition("<|im_start|>assistant\n")[2].partition("<|im_end|>")[0]


def call(name: str, **arguments: str) -> ToolCall:
    return ToolCall(name=name, arguments=arguments)


CALLS = [
    call("bash", command="ls -la"),
    call("submit"),
    call("edit", path="a.py", old="if x < 3:\n    return {'a': [1]}\n", new='\n\tx = """d"""\n\n'),
    call("bash", command='cat <<EOF\n<tool_call>{"name": "bash"}</tool_call>\nEOF\n'),
    call("bash", command="7"),
    call("bash", command=""),
]  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_calls_are_read_as_the_template_writes_them(style: str) -> None:
    """Of GLM 4.6, Qwen3-Coder, Kimi K3, DeepSeek V3.2, MiniMax M3, MiniCPM5, Solar, Apertus and
    others, whose tools were explained as fenced text, or whose values lost a line break."""
    renderer = renderer_of(style)
    assert isinstance(renderer.calls, OwnCalls) and renderer.calls.learned is not None
    assert not renderer.rewrites
    for one in CALLS:
        text = written(renderer, one)
        if style in ("pairs", "lines of their own") and "</tool_call>" in str(one.arguments):
            continue  # their own marks in a value: nobody could tell
        for said, thought in ((text, ""), (f"I look.\n{text}\n", "I look.")):
            got = renderer.calls.parse(said)
            assert isinstance(got, ToolCall), got
            assert (got.name, dict(got.arguments)) == (one.name, dict(one.arguments))
            assert got.thought.startswith(thought)


@pytest.mark.parametrize("style", STYLES)
def test_what_is_no_single_call_is_answered(style: str) -> None:
    parse = renderer_of(style).calls.parse
    text = written(renderer_of(style), CALLS[0])
    for said in (f"{text}\n{text}", "Done.", ""):
        got = parse(said)
        assert isinstance(got, BadCall) and got.problem, said
    for said in (f"{text}\nand more", *(text[:cut] for cut in range(0, len(text), 7))):
        got = parse(said)
        assert isinstance(got, BadCall) or got.arguments.items() <= CALLS[0].arguments.items()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(set(STYLES) - JSON)), st.text(max_size=30), st.text(max_size=30))
def test_every_character_of_a_value_is_kept(style: str, old: str, new: str) -> None:
    one = call("edit", old=old, new=new)
    got = renderer_of(style).calls.parse(written(renderer_of(style), one))
    assert isinstance(got, ToolCall) and dict(got.arguments) == dict(one.arguments)


def grown(renderer: TemplateRenderer, turns: int = 3) -> str:
    tokenizer: Any = renderer._template.tokenizer
    prompt = renderer.render("Be terse.", "Go.", TOOLS)
    for turn in range(turns):
        said = (*plain_ids(tokenizer, f"ls {turn}"), renderer.end_of_turn_id)
        prompt = renderer.bridge(prompt, said, f"told {turn}")
    return str(tokenizer.decode(prompt))


def test_a_reply_need_not_open_an_answer_as_the_user_does() -> None:
    """Gemma 4: the model goes on behind a tool's reply, in the same turn; the second call of an
    episode ended it."""
    same_turn = (
        "{% if tools %}{{ tools | tojson }}{% endif %}{% set last = namespace(role='') %}"
        '{% for message in messages %}{% if message.role == "tool" %}{{ message.content }}<reply|>'
        '{% else %}{% if last.role != "tool" %}<|im_start|>{{ message.role }}\n{% endif %}'
        "{{ message.content }}" + CALLS_OF + "{% if message.tool_calls %}<|reply>{% else %}"
        "<|im_end|>\n{% endif %}{% endif %}{% set last.role = message.role %}{% endfor %}"
        '{% if add_generation_prompt and last.role != "tool" %}<|im_start|>assistant\n{% endif %}'
    ).replace("CALL", STYLES["quoted by a mark"])
    renderer = TemplateRenderer(load(same_turn, ["<|reply>", "<reply|>"]))
    assert isinstance(renderer.calls, OwnCalls) and not renderer.rewrites
    text = grown(renderer)
    assert text.count("<|im_start|>assistant") == 1 and text.endswith("<|reply>told 2<reply|>")


def test_a_template_that_finds_calls_by_their_ids() -> None:
    """Solar: two calls of one id were told as two calls each time, which looked like a chat that
    is written anew."""
    finds = CHAT.replace("CALL", STYLES["JSON behind a name"]).replace(
        REPLY,
        '{% if message.role == "tool" %}{% for m in messages %}{% for c in m.tool_calls or [] %}'
        "{% if c.id == message.tool_call_id %}{{ c.function.name }}{% endif %}{% endfor %}"
        "{% endfor %}: {% endif %}" + REPLY,
    )
    renderer = TemplateRenderer(load(finds))
    assert isinstance(renderer.calls, OwnCalls) and not renderer.rewrites
    assert grown(renderer).count("told") == 3


def test_the_tokenizers_own_end_comes_before_what_opens_the_next_turn() -> None:
    """Command R7B opens an answer behind every chat, asked to or not."""
    opens = CHAT.replace("CALL", STYLES["a name as the key"]).replace(
        OPEN, "<|im_start|>assistant\n"
    )
    assert TemplateRenderer(load(opens)).end_of_turn_id == load().convert_tokens_to_ids(
        "<|im_end|>"
    )


def test_python_whose_texts_are_not_escaped() -> None:
    """LFM2.5's template writes a command with quotes and line breaks as it is."""
    python = (
        "<|tool_call_start|>[{{ f.name }}({% for key, value in f.arguments.items() %}{{ key }}="
        "'{{ value }}'{% if not loop.last %}, {% endif %}{% endfor %})]<|tool_call_end|>"
    )
    renderer = TemplateRenderer(load(CHAT.replace("CALL", python)))
    for one in CALLS:
        got = renderer.calls.parse(written(renderer, one))
        assert isinstance(got, ToolCall), one
        assert (got.name, dict(got.arguments)) == (one.name, dict(one.arguments))
    for odd in ("[bash('a\nb')]", "[a(x='\n', x='b')]"):
        assert isinstance(
            renderer.calls.parse(f"<|tool_call_start|>{odd}<|tool_call_end|>"), BadCall
        )
