"""A policy without weights that is asked what a call gives: it guesses, and runs nothing.

Sample i tries the arguments of the call first, then values that functions often give. Its score is
what whoever does not read the code gets.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from selfplay.sampling import SampleRequest
from selfplay.scripted.compact import ByteTokenizer, completion_of
from selfplay.types import Completion

COMMON = ("True", "False", "[]", "''", "0", "{}", "()", "1")


class ScriptedGuesser:
    """Answers by rule; log-probabilities are 0 (certainty)."""

    def __init__(self) -> None:
        self.version = 0
        self.tokenizer = ByteTokenizer()

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Sample i of a prompt is the same whatever the seed."""
        return [self._guesses(request) for request in requests]

    def _guesses(self, request: SampleRequest) -> list[Completion]:
        found = guesses(self.tokenizer.user_text(request.prompt_ids))
        chosen = (found[i % len(found)] for i in range(request.num_samples))
        return [
            completion_of(self.tokenizer, text, request.max_new_tokens, self.version)
            for text in chosen
        ]


def guesses(prompt: str) -> list[str]:
    """Values to try, the likeliest first."""
    last = prompt.rstrip().rpartition("\n")[2]
    try:
        call = ast.parse(last.removeprefix("assert ").removesuffix("== ??")).body[0]
    except (SyntaxError, ValueError):
        return list(COMMON)
    values = call.value if isinstance(call, ast.Expr) else None
    arguments = values.args if isinstance(values, ast.Call) else []
    return list(dict.fromkeys([*map(ast.unparse, arguments), *COMMON]))
