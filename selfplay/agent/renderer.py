"""A Hugging Face chat template as a `ChatRenderer`: chats that grow by ids alone.

The template is asked what it writes between an answer and the next one:

    template([system, user, "x", reply]) = ... x <end of turn> ... reply ... <opens an answer>
                                                               ^------ the bridge ------^

so the next prompt is prompt + completion (+ end of turn) + bridge. That is sound only where the
template writes earlier turns the same way whatever follows, which is checked when it is opened;
where it does not hold, `bridge` raises `PolicyError` and the caller starts another sample.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from selfplay.agent.call_formats import CallFormat, FencedCalls, LlamaCalls, TaggedCalls
from selfplay.agent.encoder import TextEncoder
from selfplay.chat import BadCall, ToolCall, ToolSpec
from selfplay.errors import PolicyError, UserError

Message = dict[str, Any]
_PROBE = "selfplay probe answer"
_TOOL = ToolSpec(name="probe", description="probe", parameters={"type": "object"})


class TemplateRenderer:
    """Stateless and thread-safe. `tokenizer` is a transformers tokenizer with a chat template.

    `end_of_turn`: the token's text; found in the template unless given. `encoder`: the one of
    whoever else encodes with this tokenizer. Spellings of special tokens in messages stay text.
    """

    def __init__(
        self, tokenizer: Any, end_of_turn: str | None = None, encoder: TextEncoder | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder or TextEncoder(tokenizer)
        self._name = str(getattr(tokenizer, "name_or_path", "") or "the tokenizer")
        self._special = _special_tokens(tokenizer)
        self._marks = re.compile("|".join(map(re.escape, sorted(self._special, key=len)[::-1])))
        if not tokenizer.chat_template:
            raise UserError(f"{self._name}: has no chat template; use an instruction-tuned model")
        opening = [_message("system", "probe"), _message("user", "probe")]
        plain = self._template(opening, ())
        self._takes_tools = self._template(opening, (_TOOL,)) != plain
        self.calls: CallFormat = self._find_calls(opening)
        self._role = "tool" if self._takes_tools else "user"
        self._opens = plain[len(self._template(opening, (), opens=False)) :]
        self._end_of_turn, self._problem = self._check_growth(opening, plain, end_of_turn)
        self.end_of_turn_id: int = self._id_of(self._end_of_turn)

    def render(self, system: str, user: str, tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """Ids of the first prompt; tools stand where the template has them, else in `system`."""
        if tools and not self._takes_tools:
            system = "\n\n".join(filter(None, (system, self.calls.instructions(tools))))
        return self._encode_chat([system, user], ["system", "user"], tuple(tools))[0]

    def bridge(
        self, prompt_ids: tuple[int, ...], completion_ids: tuple[int, ...], observation: str
    ) -> tuple[int, ...]:
        """The next prompt. Raises `PolicyError` where it cannot be proven to extend this one."""
        if self._problem:
            raise PolicyError(f"{self._name}: {self._problem}")
        opens = self._encoder.markup(self._opens)
        if prompt_ids[len(prompt_ids) - len(opens) :] != opens:
            raise PolicyError("the prompt does not open an answer of this chat template")
        turns = completion_ids.count(self.end_of_turn_id)
        ended = bool(turns) and completion_ids[-1] == self.end_of_turn_id
        if turns != int(ended):
            raise PolicyError("the completion goes on after its end-of-turn token")
        closing = () if ended else (self.end_of_turn_id,)
        _, rest = self._encode_chat([observation], [self._role], ())
        return prompt_ids + completion_ids + closing + rest

    def parse(self, completion_ids: Sequence[int]) -> ToolCall | BadCall:
        """The tool call of a completion, in the model's native format."""
        ids = list(completion_ids)
        if ids and ids[-1] == self.end_of_turn_id:
            ids.pop()
        text = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return self.calls.parse(text)

    def _encode_chat(
        self, contents: list[str], roles: list[str], tools: tuple[ToolSpec, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of a chat, and those behind the probe answer's end of turn.

        A chat of one message stands behind the probe answer, to which it is the reply.
        """
        marks: dict[str, str] = {}
        contents = [self._mark(content, contents, marks) for content in contents]
        messages = [_message(*pair) for pair in zip(roles, contents, strict=True)]
        if len(messages) > 1:
            return self._ids(self._template(messages, tools), marks), ()
        opening = [_message("system", "probe"), _message("user", "probe")]
        text = self._template([*opening, _message("assistant", _PROBE), *messages], tools)
        behind = text.partition(_PROBE)[2].removeprefix(self._end_of_turn)
        return (), self._ids(behind, marks)

    def _mark(self, content: str, all_contents: list[str], marks: dict[str, str]) -> str:
        """Put a mark in the place of each spelling of a special token."""

        def replace(match: re.Match[str]) -> str:
            number = len(marks)
            while any(f"@special-{number}@" in text for text in all_contents):
                number += 1000
            mark = f"@special-{number}@"
            marks[mark] = match.group()
            return mark

        return self._marks.sub(replace, content) if self._special else content

    def _ids(self, text: str, marks: dict[str, str]) -> tuple[int, ...]:
        """Ids of a rendered text: the template's special tokens are tokens, marked ones text."""
        if not marks:
            return self._encoder.markup(text)
        ids: list[int] = []
        for piece in re.split("(" + "|".join(map(re.escape, marks)) + ")", text):
            if piece in marks:
                ids += self._encoder.plain(marks[piece])
            elif piece:
                ids += self._encoder.markup(piece)
        return tuple(ids)

    def _template(
        self, messages: list[Message], tools: tuple[ToolSpec, ...], *, opens: bool = True
    ) -> str:
        shown = [_shown(tool) for tool in tools] or None
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tools=shown, add_generation_prompt=opens, tokenize=False
            )
        except Exception as error:  # jinja2 and whatever a template's own code raises
            raise UserError(f"{self._name}: its chat template fails: {error}") from error
        assert isinstance(text, str)
        return text

    def _find_calls(self, opening: list[Message]) -> CallFormat:
        """The format in which the template itself writes a call."""
        if not self._takes_tools:
            return FencedCalls()
        call = {"type": "function", "function": {"name": "probe", "arguments": {"key": "value"}}}
        calls = {"role": "assistant", "content": "", "tool_calls": [call]}
        text = self._template([*opening, calls], (_TOOL,), opens=False)
        behind = text[len(self._template(opening, (_TOOL,), opens=False)) :]
        if TaggedCalls.opening in behind and '"arguments"' in behind:
            return TaggedCalls()
        if '"parameters"' in behind:
            return LlamaCalls()
        raise UserError(
            f"{self._name}: its chat template writes tool calls in a format that is not known "
            f"here ({json.dumps(behind[:200])}); use a Hermes, Qwen or Llama-3 template"
        )

    def _check_growth(
        self, opening: list[Message], plain: str, end_of_turn: str | None
    ) -> tuple[str, str]:
        """The end-of-turn token, and why chats cannot be extended ("": they can)."""
        told = [*opening, _message("assistant", _PROBE)]
        so_far = self._template(told, (), opens=False)
        whole = self._template([*told, _message(self._role, "probe reply")], ())
        head, found, tail = whole.partition(_PROBE)
        behind = next((t for t in self._special_by_length() if tail.startswith(t)), None)
        token = end_of_turn or behind
        if token is None or token not in self._special:
            raise UserError(f"{self._name}: its chat template ends no turn with a special token")
        if not found or not tail.startswith(token) or "probe reply" not in tail:
            return token, "its chat template leaves out what was said; chats cannot grow"
        if not whole.startswith(so_far.rstrip()) or not plain.startswith(head):
            return token, "its chat template rewrites earlier turns; chats cannot grow"
        return token, ""

    def _special_by_length(self) -> list[str]:
        return sorted(self._special, key=len, reverse=True)

    def _id_of(self, token: str) -> int:
        number = self._tokenizer.convert_tokens_to_ids(token)
        assert isinstance(number, int)
        return number


def _special_tokens(tokenizer: Any) -> frozenset[str]:
    """Texts that the tokenizer reads as one special token."""
    added = tokenizer.added_tokens_decoder.values()
    return frozenset(token.content for token in added if token.special) | frozenset(
        tokenizer.all_special_tokens
    )


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _shown(tool: ToolSpec) -> Message:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}
