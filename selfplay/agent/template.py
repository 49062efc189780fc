"""A chat template and what it is found to do when it is tried: its system role, how turns end.

Templates are programs; nothing is assumed of a family's. What they are asked:

    template([system, user]) fails, or leaves the system's text out -> it goes before the user's
    template([..., answer]) ends with a special token               -> that is the end of a turn
    template([..., answer, reply]) has another one behind the answer -> so it is where none ends it
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selfplay.agent.encoder import TextEncoder
from selfplay.chat import ToolSpec
from selfplay.errors import UserError

Message = dict[str, Any]
PROBE = "selfplay probe answer"
REPLY = "selfplay probe reply"
CALL_IDS = ("probe0000", "probe0001")
"""Of a first and a second call. Some templates want nine letters and digits."""


class ChatTemplate:
    """Stateless and thread-safe. `tokenizer`: a transformers tokenizer with a chat template.

    Raises `UserError` for one that cannot hold a chat at all. `merges_system`: the system's text
    goes into the first message of the user.
    """

    def __init__(self, tokenizer: Any, encoder: TextEncoder | None = None) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder or TextEncoder(tokenizer)
        self.name = str(getattr(tokenizer, "name_or_path", "") or "the tokenizer")
        self.special = _special_tokens(tokenizer)
        self._marks = re.compile("|".join(map(re.escape, sorted(self.special, key=len)[::-1])))
        if not tokenizer.chat_template:
            raise UserError(f"{self.name}: has no chat template; use an instruction-tuned model")
        self.merges_system = False
        self.merges_system = not self._keeps_system()

    def chat(self, system: str, user: str) -> list[Message]:
        """The messages that open a chat."""
        if self.merges_system:
            return [message("user", "\n\n".join(filter(None, (system, user))))]
        return [message("system", system), message("user", user)]

    def text(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, opens: bool = True
    ) -> str:
        """What the template writes. Raises `UserError` where it fails."""
        shown = [_shown(tool) for tool in tools] or None
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tools=shown, add_generation_prompt=opens, tokenize=False
            )
        except Exception as error:  # jinja2 and whatever a template's own code raises
            raise UserError(f"{self.name}: its chat template fails: {error}") from error
        assert isinstance(text, str)
        return text

    def before(self, chat: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
        """A chat without what opens an answer, and what some templates write at the very end."""
        closed, opened = (self.text(chat, tools, opens=opens) for opens in (False, True))
        pairs = enumerate(zip(closed, opened, strict=False))
        shared = next((i for i, (a, b) in pairs if a != b), min(len(closed), len(opened)))
        cut = (m.start() for m in self._marks.finditer(opened) if m.start() < shared < m.end())
        return closed[: next(cut, shared)]  # never within a special token

    def opening(self, chat: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> str:
        """What opens an answer behind a chat."""
        return self.text(chat, tools)[len(self.before(chat, tools)) :]

    def end_of_answer(self, chat: Sequence[Message]) -> str | None:
        """The special token that ends the last answer of a chat."""
        answer = self.text([*chat, message("assistant", PROBE)], opens=False)
        found = self._first(answer.rpartition(PROBE)[2])
        if found is not None:
            return found
        return self.end_of_turn(chat, message("assistant", PROBE), message("user", REPLY), ())

    def end_of_turn(
        self, chat: Sequence[Message], answer: Message, reply: Message, tools: Sequence[ToolSpec]
    ) -> str | None:
        """The special token that ends an answer before its reply, else the one that begins it: the
        tokenizer's own end where the template writes that."""
        alone = self.text([*chat, answer], tools, opens=False).rpartition(PROBE)[2].rstrip()
        between = self.text([*chat, answer, reply], tools).rpartition(PROBE)[2].partition(REPLY)[0]
        own = str(self.tokenizer.eos_token)
        if own in self.special and own in alone and own in between:
            return own
        while last := [token for token in self.special if alone.endswith(token)]:
            token = max(last, key=len)
            if token in between:
                return token
            alone = alone[: -len(token)].rstrip()  # of the text, not of the turn
        return self._first(between)

    def last_mark(self, text: str) -> str:
        """A text from its last special token on; all of it where it has none."""
        starts = [match.start() for match in self._marks.finditer(text)] if self.special else []
        return text[starts[-1] :] if starts else text

    def _first(self, text: str) -> str | None:
        found = self._marks.search(text) if self.special else None
        return found.group() if found else None

    def id_of(self, token: str) -> int:
        """Of a special token."""
        number = self.tokenizer.convert_tokens_to_ids(token)
        assert isinstance(number, int)
        return number

    def mark(self, content: str, marks: dict[str, str], kept: frozenset[str] = frozenset()) -> str:
        """Put a mark, noted in `marks`, in the place of each spelling of a special token but those
        that are `kept`."""

        def replace(match: re.Match[str]) -> str:
            if match.group() in kept:
                return match.group()
            number = len(marks)
            while f"@special-{number}@" in content or f"@special-{number}@" in marks:
                number += 1000
            mark = f"@special-{number}@"
            marks[mark] = match.group()
            return mark

        return self._marks.sub(replace, content) if self.special else content

    def ids(self, text: str, marks: dict[str, str]) -> tuple[int, ...]:
        """Ids of a rendered text: the template's special tokens are tokens, marked ones text."""
        if not marks:
            return self.encoder.markup(text)
        ids: list[int] = []
        for piece in re.split("(" + "|".join(map(re.escape, marks)) + ")", text):
            if piece in marks:
                ids += self.encoder.plain(marks[piece])
            elif piece:
                ids += self.encoder.markup(piece)
        return tuple(ids)

    def _keeps_system(self) -> bool:
        """Whether the system's text stands where it stood, however the chat goes on."""
        opening = [message("system", "system probe"), message("user", "user probe")]
        try:
            first = self.text(opening, opens=False)
            later = self.text([*opening, message("assistant", PROBE), message("user", REPLY)])
        except UserError:
            return False
        return "system probe" in first and "system probe" in later.partition(PROBE)[0]


def message(role: str, content: str) -> Message:
    """One message of a chat."""
    return {"role": role, "content": content}


def call_message(
    name: str, arguments: Mapping[str, str] | None = None, *, call_id: str = CALL_IDS[0]
) -> Message:
    """An answer that is a call, with `PROBE` as its argument where none are given."""
    function = {"name": name, "arguments": {"key": PROBE} if arguments is None else arguments}
    call = {"type": "function", "id": call_id, "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _special_tokens(tokenizer: Any) -> frozenset[str]:
    """Texts that the tokenizer reads as one special token."""
    added = tokenizer.added_tokens_decoder.values()
    return frozenset(token.content for token in added if token.special) | frozenset(
        tokenizer.all_special_tokens
    )


def _shown(tool: ToolSpec) -> Message:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}
