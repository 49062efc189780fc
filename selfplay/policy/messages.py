"""Chats for servers that take texts: ids that can be turned back into messages.

Such servers do not say how they tokenise. The harness speaks ids, so each word, run of blanks or
sign gets an id of its own when it is first seen; counts come near those of a real vocabulary.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

from selfplay.agent.fenced import FencedRenderer
from selfplay.errors import PolicyError

_PIECE = re.compile(r" ?[^\W_]{1,8}|\s{1,16}|.", re.DOTALL)
_ROLES = ("system", "user", "assistant")
_FIRST = 1 + len(_ROLES)


class MessageTokenizer:
    """Reversible on every text. Thread-safe.

    Example: the first chat ("Be terse.", "Go") is (1, 4, 5, 6, 0, 2, 7, 0, 3): the system says
    "Be", " terse", "." and ends, the user says "Go" and ends, the assistant begins.
    """

    end_of_turn_id = 0

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []
        self._lock = threading.Lock()

    def render(self, system: str, user: str) -> tuple[int, ...]:
        """System (when not empty) and user turn, up to the answer."""
        head = self.message("system", system) if system else ()
        return (*head, *self.message("user", user), self.role_id("assistant"))

    def chat(self, *, tools: bool = True) -> FencedRenderer:
        """Plain fenced tool calls; chats without tools grow in the same way."""
        return FencedRenderer(self)

    def encode(self, text: str) -> tuple[int, ...]:
        """One id a piece."""
        return tuple(map(self._id, _PIECE.findall(text)))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text; ids of roles and ends are left out."""
        return "".join(self._pieces[i - _FIRST] for i in token_ids if i >= _FIRST)

    def role_id(self, role: str) -> int:
        """The id that opens a message."""
        return 1 + _ROLES.index(role)

    def message(self, role: str, text: str) -> tuple[int, ...]:
        """A whole message."""
        return (self.role_id(role), *self.encode(text), self.end_of_turn_id)

    def messages(self, prompt_ids: Sequence[int]) -> list[dict[str, str]]:
        """The messages of a prompt, without the answer that it opens."""
        found: list[tuple[int, list[int]]] = []
        for token in prompt_ids:
            if 0 < token < _FIRST:
                found.append((token, []))
            elif found:
                found[-1][1].append(token)
            else:
                raise PolicyError("the prompt does not begin with a message")
        if not found or found[-1] != (self.role_id("assistant"), []):
            raise PolicyError("the prompt does not end where an answer begins")
        return [{"role": _ROLES[r - 1], "content": self.decode(ids)} for r, ids in found[:-1]]

    def _id(self, piece: str) -> int:
        known = self._ids.get(piece)
        if known is None:
            with self._lock:
                known = self._ids.get(piece)
                if known is None:
                    self._pieces.append(piece)
                    known = self._ids[piece] = _FIRST + len(self._pieces) - 1
        return known
