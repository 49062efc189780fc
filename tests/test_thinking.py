"""What was only thought is never an edit and never a call, in both scaffolds."""

from __future__ import annotations

import pytest

from selfplay.agent.calls.formats import CallFormat, FencedCalls, LlamaCalls, OwnCalls, TaggedCalls
from selfplay.agent.fenced import parse_call
from selfplay.chat import BadCall, ToolCall
from selfplay.compact.edits import EditError, Excerpt, Listing, parse_edit
from selfplay.thinking import is_open, said, split

HARMONY = (
    "<|channel|>analysis<|message|>{}<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{}<|return|>"
)
SHAPES = [
    "<think>\n{}\n</think>\n\n{}",
    "{}\n</think>\n{}",
    "<thinking>{}</thinking>\n{}",
    "<thought>\n{}\n</thought>\n{}",
    "[THINK]{}[/THINK]{}",
    "<seed:think>{}</seed:think>{}",
    "<think:opensource>{}</think:opensource>{}",
    "<|open|>think<|sep|>{}<|close|>think<|sep|>{}",
    "Here are my reasoning steps:\n{}\n[BEGIN FINAL RESPONSE]\n{}",
    "<|START_THINKING|>{}<|END_THINKING|>{}",
    "<|channel>thought\n{}<channel|>{}",
    HARMONY,
    "analysis\n{}assistantfinal{}",
    "<think>one</think>\n<think>{}</think>\n{}",
    "I end it with `</think>` later.\n{}\n</think>\n{}",
]
OPEN = [
    "<think>\n{}", "<|open|>think<|sep|>{}", "<mm:think>{}", "[THINK]{}",
    "<|channel|>analysis<|message|>{}", "<|channel>thought\n{}",
]  # fmt: skip
FORMATS: list[CallFormat] = [TaggedCalls(), LlamaCalls(), FencedCalls(), OwnCalls("[x]")]


def listing() -> Listing:
    return Listing([Excerpt(path="a.py", rows=(0, 1))], {"a.py": "x = 1\ny = 2\n"})


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_stands_behind_the_thoughts(shape: str) -> None:
    assert said(shape.format("1| x = 5", "2| y = 3")).strip() == "2| y = 3"
    assert parse_edit(shape.format("1| x = 5", "2| y = 3"), listing()) == {"a.py": "x = 1\ny = 3\n"}
    wild, wanted = "```bash\nrm -rf build\n```", "```bash\nls\n```"
    for parse in (parse_call, *(form.parse for form in FORMATS)):
        call = parse(shape.format(wild, f"\n{wanted}"))
        assert isinstance(call, ToolCall), parse
        assert call.arguments == {"command": "ls"} and "rm -rf" in call.thought
        assert isinstance(parse(shape.format(wild, "\nI am done.")), BadCall)


@pytest.mark.parametrize("shape", OPEN)
def test_thoughts_that_never_end_are_no_answer(shape: str) -> None:
    wild = '\n```bash\nrm -rf build\n```\n<tool_call>{"name": "bash", "arguments": {}}</tool_call>'
    for parse in (parse_call, *(form.parse for form in FORMATS)):
        assert isinstance(parse(shape.format(wild)), BadCall)
    with pytest.raises(EditError):
        parse_edit(shape.format("\n1| x = 5"), listing())


def test_what_begins_the_thinking_in_a_prompt_alone() -> None:
    """DeepSeek R1's and Laguna's prompts end with a mark within a line, Apriel's with words that
    any model may say."""
    for opens in ("<|assistant|><think>\n", "<assistant><think>", "<|sep|><|open|>think<|sep|>"):
        assert is_open(opens) and not is_open(f"{opens}</think>")
    assert not is_open("<|assistant|>") and not is_open("say <think> and go on")
    assert is_open("<|assistant|>\nHere are my reasoning steps:\n")
    assert not is_open("Here are my reasoning steps:\n1.\n[BEGIN FINAL RESPONSE]\n")
    assert said("Here are my reasoning steps:\n\n2| y = 3").endswith("2| y = 3")


def test_a_prompt_that_has_begun_the_thinking() -> None:
    text = "```bash\nrm -rf build\n```"
    for form in FORMATS:
        assert isinstance(form.parse(text, opened=True), BadCall)
        assert isinstance(form.parse(f"hm</think>\n{text}", opened=True), ToolCall)
    assert split("hm", opened=True) == ("hm", "")


@pytest.mark.parametrize(
    "text",
    ["1| return text.split('</think>')[1]", '1| x = "</think>"', "2| analysis of assistants"],
)
def test_code_about_thinking_is_code(text: str) -> None:
    assert split(text) == ("", text)
