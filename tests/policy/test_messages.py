"""Texts as ids and back, for servers that take messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.agent.tools import TOOLS
from selfplay.chat import ToolCall
from selfplay.errors import PolicyError
from selfplay.policy.messages import MessageTokenizer


def test_the_worked_example() -> None:
    tokenizer = MessageTokenizer()
    assert tokenizer.render("Be terse.", "Go") == (1, 4, 5, 6, 0, 2, 7, 0, 3)
    assert tokenizer.render("", "Go") == (2, 7, 0, 3)


@given(st.text(), st.text(), st.lists(st.tuples(st.text(), st.booleans(), st.text()), max_size=4))
def test_a_chat_comes_back_as_it_was(
    system: str, user: str, turns: list[tuple[str, bool, str]]
) -> None:
    tokenizer = MessageTokenizer()
    renderer = tokenizer.chat()
    prompt = renderer.render(system, user, TOOLS)
    explained = tokenizer.messages(prompt)[0]
    assert explained["role"] == "system" and explained["content"].startswith(system)
    want = [explained]
    want.append({"role": "user", "content": user})
    for answer, stopped, observation in turns:
        completion = tokenizer.encode(answer) + ((0,) if stopped else ())
        grown = renderer.bridge(prompt, completion, observation)
        assert grown[: len(prompt) + len(completion)] == prompt + completion
        assert grown[len(prompt) :].count(0) == 2
        want.append({"role": "assistant", "content": answer})
        want.append({"role": "user", "content": observation})
        prompt = grown
    assert tokenizer.messages(prompt) == want
    assert "".join(tokenizer.decode(prompt)) == "".join(m["content"] for m in want)


def test_tools_are_fenced_text() -> None:
    tokenizer = MessageTokenizer()
    renderer = tokenizer.chat()
    system = tokenizer.messages(renderer.render("s", "u", TOOLS))[0]["content"]
    assert "Run a bash command" in system and "```bash" in system
    answer = "Now.\n```bash\nls\n```"
    call = renderer.parse((*tokenizer.encode(answer), 0))
    assert call == ToolCall(name="bash", arguments={"command": "ls"}, thought="Now.")


def test_what_is_no_prompt() -> None:
    tokenizer = MessageTokenizer()
    prompt = tokenizer.render("s", "u")
    with pytest.raises(PolicyError, match="does not end"):
        tokenizer.messages(prompt[:-1])
    with pytest.raises(PolicyError, match="does not begin"):
        tokenizer.messages((9, *prompt))
