"""A deterministic policy without weights, for tests, docs and demonstrations.

It reads nothing but the prompt. Asked to plant a bug, it answers with a procedural mutation of the
function shown; asked to fix one, it tries small edits that bugs are often undone by, a different
one for each sample. Its solve rate is that of an honest guesser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from selfplay.agent.fenced import FencedRenderer
from selfplay.bug_sources.procedural import Mutation
from selfplay.bug_sources.procedural.propose import propose_python, propose_text
from selfplay.compact.edits import EditError, Listing, parse_listing, render_edit
from selfplay.repo.languages.python_source import parse, split_lines
from selfplay.sampling import SampleRequest
from selfplay.seeds import derive_seed
from selfplay.types import Completion

if TYPE_CHECKING:
    from selfplay.repo.languages.functions import FunctionInfo

_REVERSIBLE = (
    "swap_comparison",
    "swap_arithmetic",
    "negate_condition",
    "swap_and_or",
    "off_by_one",
    "swap_arguments",
    "flip_constant",
    "wrong_call",
    "swap_augmented",
    "swap_elements",
    "swap_branches",
    "swap_statements",
    "swap_loop_flow",
)
"""Operators that undo themselves: what the solver tries first."""

NUM_TRIED = 16
"""Distinct edits that the solver side tries on one prompt."""


class ByteTokenizer:
    """UTF-8 bytes as ids 0-255, and four ids for the structure of a chat."""

    end_of_turn_id = 256
    _system, _user, _answer = 257, 258, 259

    def render(self, system: str, user: str) -> tuple[int, ...]:
        """System (when not empty) and user turn, up to the answer."""
        head = (self._system, *self.encode(system), self.end_of_turn_id) if system else ()
        return (*head, self._user, *self.encode(user), self.end_of_turn_id, self._answer)

    def chat(self, *, tools: bool = True) -> FencedRenderer:
        """Plain fenced tool calls; chats without tools grow in the same way."""
        return FencedRenderer(self)

    def encode(self, text: str) -> tuple[int, ...]:
        """One id a byte."""
        return tuple(text.encode("utf-8", "surrogateescape"))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ids below 256."""
        return bytes(i for i in token_ids if i < 256).decode("utf-8", "surrogateescape")

    def user_text(self, prompt_ids: Sequence[int]) -> str:
        """The user's turn of a rendered prompt."""
        start = prompt_ids.index(self._user) if self._user in prompt_ids else 0
        return self.decode(prompt_ids[start:])

    def user_turns(self, prompt_ids: Sequence[int]) -> list[str]:
        """Every turn of the user: the task, then what followed each answer."""
        starts = [i for i, token in enumerate(prompt_ids) if token == self._user]
        ends = [prompt_ids.index(self.end_of_turn_id, start) for start in starts]
        return [self.decode(prompt_ids[i:j]) for i, j in zip(starts, ends, strict=True)]

    def answers(self, prompt_ids: Sequence[int]) -> list[str]:
        """Every answer in a chat that has ended."""
        starts = [i for i, token in enumerate(prompt_ids[:-1]) if token == self._answer]
        ends = [prompt_ids.index(self.end_of_turn_id, start) for start in starts]
        return [self.decode(prompt_ids[i:j]) for i, j in zip(starts, ends, strict=True)]


class ScriptedPolicy:
    """Answers by rule; log-probabilities are 0 (certainty). `version` counts pretended steps."""

    def __init__(self) -> None:
        self.version = 0
        self.tokenizer = ByteTokenizer()

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Sample i of a request is a function of (prompt, seed, i)."""
        return [self._answers(request) for request in requests]

    def _answers(self, request: SampleRequest) -> list[Completion]:
        text = self.tokenizer.user_text(request.prompt_ids)
        tried = set(self.tokenizer.answers(request.prompt_ids))
        candidates = candidate_answers(text)
        candidates = [c for c in candidates if c not in tried] or candidates
        start = derive_seed(request.seed, text) if asks_for_repair(text) else 0
        start = start or request.seed
        chosen = (candidates[(start + i) % len(candidates)] for i in range(request.num_samples))
        return [
            completion_of(self.tokenizer, text, request.max_new_tokens, self.version)
            for text in chosen
        ]


def completion_of(
    tokenizer: ByteTokenizer, text: str, max_new_tokens: int, version: int
) -> Completion:
    """An answer as an engine gives it, cut at `max_new_tokens`."""
    token_ids = (*tokenizer.encode(text), tokenizer.end_of_turn_id)
    cut = token_ids[:max_new_tokens]
    return Completion(
        token_ids=cut,
        logprobs=(0.0,) * len(cut),
        text=tokenizer.decode(cut),
        finish_reason="stop" if len(cut) == len(token_ids) else "length",
        policy_version=version,
    )


def asks_for_repair(prompt: str) -> bool:
    """Whether a prompt is a solver's, by its last line."""
    return prompt.rstrip().rpartition("\n")[2].startswith("Fix the bug")


def candidate_answers(prompt: str) -> list[str]:
    """The edits that the policy considers for a prompt, most plausible first; never empty."""
    try:
        listing = parse_listing(prompt)
    except EditError:
        return ["no listing"]
    fixing = asks_for_repair(prompt)
    found = [(path, m) for path in listing.sources for m in _mutations(listing, path)]
    if fixing:
        found = [(path, m) for path, m in found if m.operator in _REVERSIBLE]
        found.sort(key=lambda item: (item[0], _REVERSIBLE.index(item[1].operator)))
    else:
        found = _wanted(found, listing, prompt)
    answers = []
    for path, mutation in found:
        try:
            answers.append(render_edit(listing, {path: mutation.source}))
        except ValueError:
            continue
        if fixing and len(answers) == NUM_TRIED:
            break
    return answers or ["1-"]


def _wanted(
    found: list[tuple[str, Mutation]], listing: Listing, prompt: str
) -> list[tuple[str, Mutation]]:
    """Mutations of the kind and line that the prompt asks for, else all; reversible ones first."""
    asked = re.search(r"Plant a bug: (?:delete )?(\w+) in line (\d+)", prompt)
    removal = "Plant a bug: delete" in prompt
    matching = [
        (path, m)
        for path, m in found
        if asked
        and m.kind == asked.group(1)
        and m.removal == removal
        and listing.number(path, m.line - 1) == int(asked.group(2))
    ]
    pool = matching or [(path, m) for path, m in found if m.removal == removal] or found
    return sorted(pool, key=lambda item: item[1].operator not in _REVERSIBLE)


def _mutations(listing: Listing, path: str) -> list[Mutation]:
    """Mutations of a listed function; when cut short, of the longest beginning that parses.

    What is no Python at all is changed line by line.
    """
    source = listing.sources[path]
    lines = split_lines(source)
    for end in range(len(lines), max(0, len(lines) - 12), -1):
        if parse("".join(lines[:end])) is not None:
            function = SimpleNamespace(path=path, qualname="", start_line=1, end_line=end)
            return propose_python(source, cast("FunctionInfo", function))
    whole = SimpleNamespace(path=path, qualname="", start_line=1, end_line=len(lines))
    return propose_text(source, cast("FunctionInfo", whole))
