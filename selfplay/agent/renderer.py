"""A Hugging Face chat template as a `ChatRenderer`: chats that grow by ids alone.

The template is asked what it writes between an answer and the next one:

    template([system, user, call, reply]) = ... probe ... <end of turn> ... reply ... <opens>
                                                                       ^---- the bridge ----^

so the next prompt is prompt + completion (+ end of turn) + bridge. That is sound where what stands
before the answer does not change when the chat goes on, and the bridge is the same later; both are
checked when a template is opened. What the template would write of the answer itself makes no
difference: thinking that it adds to the last answer, or takes out of earlier ones, stays as it was
sampled. Where a prefix does change, `bridge` raises `PolicyError` and `rewritten` has the template
write the whole chat anew, in plain messages with fenced calls; thinking that an answer holds is the
template's to keep or to leave out.

Ways in which tools are shown are tried in turn: by the template, with replies of a tool; then in
the system message, with fenced calls and replies of the user, which any template can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfplay import thinking
from selfplay.agent.calls.formats import CallFormat, FencedCalls, LlamaCalls, OwnCalls, TaggedCalls
from selfplay.agent.calls.learned import KEYS, Write, learn
from selfplay.agent.calls.learned import NAME as TOOL
from selfplay.agent.calls.styles import only_call
from selfplay.agent.encoder import TextEncoder
from selfplay.agent.template import CALL_IDS, PROBE, REPLY, ChatTemplate, Message, call_message
from selfplay.agent.template import message as message_of
from selfplay.chat import BadCall, ToolCall, ToolSpec
from selfplay.errors import PolicyError, UserError

_TOOL = ToolSpec(
    name=TOOL,
    description="probe",
    parameters={
        "type": "object",
        "properties": {key: {"type": "string"} for key in ("key", *KEYS)},
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One way to hold a chat with tools; `problem`: why it cannot grow ("": it can); `rewrites`:
    it can, but only by being written anew."""

    calls: CallFormat
    tools: tuple[ToolSpec, ...]
    answer: Message
    end_of_turn: str
    problem: str
    rewrites: bool

    def reply(self, content: str) -> Message:
        """The observation that follows the probe answer."""
        if self.tools:
            return _reply(content)
        return message_of("user", content)

    def again(self, call_id: str) -> list[Message]:
        """A second probe answer, and its observation."""
        if self.tools:
            return [call_message(TOOL, call_id=call_id), _reply(REPLY, call_id)]
        return [self.answer, self.reply(REPLY)]


class TemplateRenderer:
    """Stateless and thread-safe. `tokenizer` is a transformers tokenizer with a chat template.

    `with_tools`: false for chats of texts alone, whose replies are the user's. `end_of_turn`: the
    token's text; found in the template unless given. `encoder`: the one of whoever else encodes
    with this tokenizer. Spellings of special tokens in messages stay text.
    """

    def __init__(
        self,
        tokenizer: Any,
        end_of_turn: str | None = None,
        encoder: TextEncoder | None = None,
        *,
        with_tools: bool = True,
    ) -> None:
        self._template = ChatTemplate(tokenizer, encoder)
        self._name = self._template.name
        self._chat = self._template.chat("probe", "probe")
        self._way = self._find_way(end_of_turn, self._own_calls() if with_tools else None)
        self.calls: CallFormat = self._way.calls
        self._opens = self._template.opening(self._chat, self._way.tools)
        once = [*self._chat, self._way.answer, self._way.reply(REPLY)]
        written = _behind(self._template.text(once, self._way.tools), self._way.end_of_turn)
        told, _, reopens = written.rpartition(REPLY)
        self._names_tool = TOOL in told
        self._openings = [self._template.last_mark(text) for text in (self._opens, reopens)]
        self.rewrites = self._way.rewrites
        self._thinks = thinking.is_open(self._opens)
        self.end_of_turn_id: int = self._template.id_of(self._way.end_of_turn)

    def render(self, system: str, user: str, tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """Ids of the first prompt; tools stand where the template has them, else in `system`."""
        if tools and not self._way.tools:
            system = "\n\n".join(filter(None, (system, self.calls.instructions(tools))))
        marks: dict[str, str] = {}
        chat = self._template.chat(
            self._template.mark(system, marks), self._template.mark(user, marks)
        )
        text = self._template.text(chat, tools if self._way.tools else ())
        return self._template.ids(text, marks)

    def bridge(
        self, prompt_ids: tuple[int, ...], completion_ids: tuple[int, ...], observation: str
    ) -> tuple[int, ...]:
        """The next prompt. Raises `PolicyError` where it cannot be proven to extend this one."""
        self._check_way()
        if self.rewrites:
            raise PolicyError(f"{self._name}: its chat template rewrites earlier turns")
        if not any(self._ends(prompt_ids, text) for text in self._openings):
            raise PolicyError("the prompt does not open an answer of this chat template")
        turns = completion_ids.count(self.end_of_turn_id)
        ended = bool(turns) and completion_ids[-1] == self.end_of_turn_id
        if turns != int(ended):
            raise PolicyError("the completion goes on after its end-of-turn token")
        closing = () if ended else (self.end_of_turn_id,)
        marks: dict[str, str] = {}
        reply = self._way.reply(self._template.mark(observation, marks))
        chat = [*self._chat, self._way.answer, reply]
        behind = _behind(self._template.text(chat, self._way.tools), self._way.end_of_turn)
        if self._names_tool:
            call = self.parse(completion_ids)
            behind = behind.replace(TOOL, call.name if isinstance(call, ToolCall) else "bash", 1)
        return prompt_ids + completion_ids + closing + self._template.ids(behind, marks)

    def rewritten(
        self,
        system: str,
        user: str,
        tools: Sequence[ToolSpec],
        turns: Sequence[tuple[Sequence[int], str]],
    ) -> tuple[int, ...]:
        """See `ChatRenderer.rewritten`. Raises `PolicyError` where the template leaves out what was
        told last, or opens no answer."""
        self._check_way()
        marks: dict[str, str] = {}
        system = "\n\n".join(filter(None, (system, self.calls.instructions(tools))))
        chat = self._template.chat(
            self._template.mark(system, marks), self._template.mark(user, marks)
        )
        for completion, observation in turns:
            said = self._template.mark(self._text(completion), marks, thinking.MARKS)
            told = self._template.mark(observation, marks)
            chat += [message_of("assistant", said), message_of("user", told)]
        text = self._template.text(chat)
        if turns and told.strip() not in text:
            raise PolicyError(f"{self._name}: its chat template leaves out what was said")
        if not text.endswith(self._opens):
            raise PolicyError(f"{self._name}: its chat template opens no answer")
        return self._template.ids(text, marks)

    def parse(self, completion_ids: Sequence[int]) -> ToolCall | BadCall:
        """The tool call of a completion, in the model's native format."""
        return self.calls.parse(self._text(completion_ids), opened=self._thinks)

    def _text(self, completion_ids: Sequence[int]) -> str:
        """A completion without its end of turn."""
        ids = list(completion_ids)
        if ids and ids[-1] == self.end_of_turn_id:
            ids.pop()
        text = self._template.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def _ends(self, prompt_ids: tuple[int, ...], text: str) -> bool:
        """Whether a prompt ends with what opens an answer. Where that begins with no special token
        the ids may have grown together with those before."""
        ids = self._template.encoder.markup(text)
        end = prompt_ids[len(prompt_ids) - len(ids) :]
        if text.startswith(tuple(self._template.special)):
            return end == ids
        return self._text(prompt_ids[-2 * len(ids) - 8 :]).endswith(text)

    def _check_way(self) -> None:
        if self._way.problem:
            raise PolicyError(f"{self._name}: {self._way.problem}")

    def _find_way(self, end_of_turn: str | None, own: CallFormat | None) -> _Way:
        """The first way in which chats can grow, else the last that was tried; `own`: calls in the
        model's own format."""
        plain = message_of("assistant", PROBE)
        ways: list[tuple[CallFormat, tuple[ToolSpec, ...], Message]] = [(FencedCalls(), (), plain)]
        if own is not None:
            ways.insert(0, (own, (_TOOL,), call_message(TOOL)))
        found: list[_Way] = []
        for calls, tools, answer in ways:
            way = _Way(
                calls=calls, tools=tools, answer=answer, end_of_turn="", problem="", rewrites=False
            )
            try:
                token = end_of_turn or self._template.end_of_turn(
                    self._chat, answer, way.reply(REPLY), tools
                )
                if token is None or token not in self._template.special:
                    raise UserError(
                        f"{self._name}: its chat template ends no turn with a special token"
                    )
                way = replace(way, end_of_turn=token)
                way = replace(way, problem=self._problem(way), rewrites=self._rewrites(way))
            except UserError:
                if answer is ways[-1][2] and not found:
                    raise
                continue
            found.append(way)
            if not way.problem and not way.rewrites:
                return way
        return found[-1]

    def _own_calls(self) -> CallFormat | None:
        """The format in which the template itself writes a call; None where it shows no tools, or
        writes calls that cannot be read back."""
        try:
            if self._template.text(self._chat, (_TOOL,)) == self._template.text(self._chat):
                return None
            write = self._writer()
            written, learned = write(TOOL, {"key": PROBE}), learn(write)
        except UserError:
            return None
        if TaggedCalls.opening in written and '"arguments"' in written:
            return TaggedCalls()
        if '"parameters"' in written and "<|START_ACTION|>" not in written:
            return LlamaCalls()
        call = only_call(thinking.split(written)[1])
        reads = isinstance(call, ToolCall) and (call.name, call.arguments) == (TOOL, {"key": PROBE})
        if learned is None and not reads:
            return None
        return OwnCalls(thinking.split(written)[1].strip(), learned)

    def _writer(self) -> Write:
        """What the template writes of calls, up to the end of the turn."""
        start = len(self._template.before(self._chat, (_TOOL,)))
        end = self._template.end_of_turn(self._chat, call_message(TOOL), _reply(REPLY), (_TOOL,))

        def write(name: str, arguments: Mapping[str, str]) -> str:
            chat = [*self._chat, call_message(name, arguments)]
            text = self._template.text(chat, (_TOOL,), opens=False)[start:]
            return text.partition(end)[0] if end else text

        return write

    def _problem(self, way: _Way) -> str:
        """Why chats cannot go on ("": they can)."""
        once = [*self._chat, way.answer, way.reply(REPLY)]
        whole = self._template.text(once, way.tools)
        if PROBE not in whole or REPLY not in whole.rpartition(PROBE)[2]:
            return "its chat template leaves out what was said; chats cannot grow"
        return ""

    def _rewrites(self, way: _Way) -> bool:
        """Whether what stands before an answer, or between two, changes as the chat goes on."""
        once = [*self._chat, way.answer, way.reply(REPLY)]
        first = self._template.before(self._chat, way.tools).rstrip()
        whole = self._template.text(once, way.tools)
        behind = _behind(whole, way.end_of_turn)
        if not whole.startswith(first) or REPLY not in behind:
            return True
        for call_id in CALL_IDS:  # some number the replies, others find a call by its id
            twice = self._template.text([*once, *way.again(call_id)], way.tools)
            again = _behind(twice, way.end_of_turn).replace(call_id, CALL_IDS[0])
            if twice.startswith(first) and again == behind:
                return False
        return True


def _reply(content: str, call_id: str = CALL_IDS[0]) -> Message:
    return {"role": "tool", "content": content, "name": TOOL, "tool_call_id": call_id}


def _behind(text: str, end_of_turn: str) -> str:
    """What a template writes behind the last probe answer and its end of turn."""
    return text.rpartition(PROBE)[2].partition(end_of_turn)[2]
