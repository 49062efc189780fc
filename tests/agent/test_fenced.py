"""Plain fenced calls: written, read back, and what is no call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.agent.fenced import FencedRenderer, parse_call, write_call
from selfplay.agent.tools import TOOLS
from selfplay.chat import BadCall, ToolCall
from selfplay.errors import UserError
from selfplay.scripted.compact import ByteTokenizer

RENDERER = FencedRenderer(ByteTokenizer())
END = ByteTokenizer.end_of_turn_id
plain = st.text(alphabet="a =`\n\téß~#", max_size=60)
words = st.from_regex(r"[a-z./_]{1,20}", fullmatch=True)


def test_the_example_of_the_module() -> None:
    text = "I see.\n```edit src/shop.py\nreturn price\n=======\nreturn price * number\n```"
    arguments = {"path": "src/shop.py", "search": "return price\n",
                 "replace": "return price * number\n"}  # fmt: skip
    assert parse_call(text) == ToolCall(name="edit", arguments=arguments, thought="I see.")


@given(path=words, content=plain)
def test_what_is_written_is_read_back(path: str, content: str) -> None:
    whole = content + "\n" * (bool(content) and not content.endswith("\n"))
    call = ToolCall(name="create", arguments={"path": path, "content": whole}, thought="So.")
    assert parse_call(write_call(call)) == call


@given(search=plain, replace=plain)
def test_edits_too(search: str, replace: str) -> None:
    lines = [t + "\n" * (bool(t) and not t.endswith("\n")) for t in (search, replace)]
    arguments = {"path": "a", "search": lines[0], "replace": lines[1]}
    call = ToolCall(name="edit", arguments=arguments)
    if not any(line.rstrip() == "=======" for text in lines for line in text.split("\n")):
        assert parse_call(write_call(call)) == call


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("I am done.", "no tool call"),
        ("```python\nprint()\n```", "no tool call"),
        ("```bash\nls\n```\n```bash\nls\n```", "more than one"),
        ("```bash\nls", "not closed"),
        ("```bash ls\n```", "on its line"),
        ("```edit a\nb\n```", "2 parts"),
        ("```submit\nnow\n```", "no lines"),
    ],
)
def test_what_is_no_call(text: str, says: str) -> None:
    call = parse_call(text)
    assert isinstance(call, BadCall) and says in call.problem


def test_other_blocks_are_thoughts() -> None:
    call = parse_call("```python\nx\n```\nso\n```submit\n```")
    assert call == ToolCall(name="submit", arguments={}, thought="```python\nx\n```\nso")
    nested = parse_call("````bash\ncat <<E\n```\nE\n````")
    assert nested == ToolCall(name="bash", arguments={"command": "cat <<E\n```\nE"})


@given(text=st.text(alphabet="`=\nabsubmitedh \t~", max_size=120))
def test_any_text_is_a_call_or_a_problem(text: str) -> None:
    call = parse_call(text)
    assert isinstance(call, ToolCall) or call.problem


@given(observation=plain, cut=st.booleans())
def test_a_bridge_extends_and_closes_once(observation: str, cut: bool) -> None:
    prompt = RENDERER.render("system", "user", TOOLS)
    completion = (65, 66) if cut else (65, 66, END)
    following = RENDERER.bridge(prompt, completion, observation)
    assert following[: len(prompt) + len(completion)] == prompt + completion
    assert following[len(prompt) :].count(END) == 2  # the turn's, and the observation's


def test_a_template_without_ends_is_refused() -> None:
    class Odd(ByteTokenizer):
        def render(self, system: str, user: str) -> tuple[int, ...]:
            return self.encode(system + user)

    with pytest.raises(UserError, match="fenced"):
        FencedRenderer(Odd())
