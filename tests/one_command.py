"""An agent without a model that runs one command and hands in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from selfplay.agent.fenced import write_call
from selfplay.sampling import SampleRequest
from selfplay.scripted.agents import bash
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import Completion


@dataclass
class OneCommand:
    """The policy: `command` in its first turn, `submit` in its second."""

    command: str
    version: int = 0
    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """The same answer for each sample."""
        return [[self._answer(request)] * request.num_samples for request in requests]

    def _answer(self, request: SampleRequest) -> Completion:
        first = len(self.tokenizer.user_turns(request.prompt_ids)) == 1
        call = bash(self.command)
        text = write_call(call if first else replace(call, name="submit", arguments={}))
        ids = (*self.tokenizer.encode(text), self.tokenizer.end_of_turn_id)
        return Completion(
            token_ids=ids, logprobs=(0.0,) * len(ids), text=text, finish_reason="stop",
            policy_version=0,
        )  # fmt: skip
