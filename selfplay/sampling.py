"""The seam to inference engines: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from selfplay.errors import PolicyError, SelfplayError
from selfplay.types import Completion

if TYPE_CHECKING:
    from selfplay.chat import ChatRenderer


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """One prompt to be continued `num_samples` times, independently.

    `seed` makes the answer reproducible for a given policy version and engine. `end_of_turn_id`
    ends an answer where calls end with another token than texts (None: the tokenizer's).
    """

    prompt_ids: tuple[int, ...]
    num_samples: int = 1
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    end_of_turn_id: int | None = None


def end_of(request: SampleRequest, usual: int) -> int:
    """The token that ends an answer to a request; `usual`: the tokenizer's."""
    return usual if request.end_of_turn_id is None else request.end_of_turn_id


def logprob_temperature(temperature: float) -> float:
    """Of the distribution whose log-probabilities are told: greedy answers have those at 1."""
    return temperature or 1.0


class Tokenizer(Protocol):
    """Text to ids and back; `render` applies the model's chat template up to the answer."""

    end_of_turn_id: int

    def render(self, system: str, user: str) -> tuple[int, ...]: ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of an answer's text, without template tokens."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of sampled ids; special tokens are left out."""
        ...

    def chat(self, *, tools: bool = True) -> ChatRenderer:
        """The same template for chats of several turns, with tools or of texts alone."""
        ...


class Policy(Protocol):
    """One set of weights that answers prompts. Raises `PolicyError` when the engine fails.

    `version` is 0 for the base weights and grows by one with each published optimizer step;
    every completion carries the version that made it. Logprobs are those of the sampling
    distribution at the request's temperature (before top-p).
    """

    version: int

    @property
    def tokenizer(self) -> Tokenizer: ...

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Answers in the order of `requests`; `len(result[i]) == requests[i].num_samples`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """An answer to a prompt whose probability is asked for, its end of turn included."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    temperature: float = 1.0


@runtime_checkable
class ScoringPolicy(Policy, Protocol):
    """A policy that tells how likely it is to give an answer, without giving it."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        """Log-probability of each token of the answers, before top-p."""
        ...


@runtime_checkable
class ServedPolicy(Policy, Protocol):
    """A policy behind servers. May be asked by several threads at once; `max_concurrency` requests
    keep it busy."""

    max_concurrency: int

    def try_sample(
        self, requests: Sequence[SampleRequest]
    ) -> tuple[list[list[Completion]], SelfplayError | None]:
        """As `sample`, but what is there is never lost.

        A request that cannot be answered has a completion with a `problem`. Where the server will
        answer nothing more, groups are shorter and the error is told.
        """
        ...


def sample_what_can_be(
    policy: Policy, requests: Sequence[SampleRequest]
) -> tuple[list[list[Completion]], SelfplayError | None]:
    """As `ServedPolicy.try_sample`, of any policy: what it answered, and why there is no more."""
    try:
        if isinstance(policy, ServedPolicy):
            return policy.try_sample(requests)
        return policy.sample(requests), None
    except PolicyError as fault:
        return [[] for _ in requests], fault
