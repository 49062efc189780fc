"""Plays many agentic episodes: one batch for the policy, then all tool calls in parallel.

Episodes go in step; one that ends makes room for the next, so that at most `num_open` sandboxes
are open. The order of the results is that of the episodes, and with a deterministic policy what
each of them does depends on nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from selfplay.agent.loop import AgentEpisode
from selfplay.sampling import SampleRequest
from selfplay.types import Completion

T = TypeVar("T")
R = TypeVar("R")


class Pool(Protocol):
    """Runs a function over items at once; results in order (`SandboxPool`)."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]: ...


class Sampler(Protocol):
    """Answers requests as `Policy.sample` does."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]: ...


def play(policy: Sampler, episodes: Sequence[AgentEpisode], pool: Pool, num_open: int) -> None:
    """Roll out every episode to its ending. Sandboxes are closed, whatever happens.

    Raises `PolicyError` when the engine fails: what it did not answer cannot be judged.
    """
    waiting = list(reversed(episodes))
    live: list[AgentEpisode] = []
    try:
        while waiting or live:
            fresh = [waiting.pop() for _ in range(min(len(waiting), num_open - len(live)))]
            pool.map(AgentEpisode.open, fresh)
            live = _still_open([*live, *fresh], pool)
            if not live:
                continue
            answers = policy.sample([episode.request() for episode in live])
            pool.map(_take, [(e, group[0]) for e, group in zip(live, answers, strict=True)])
            live = _still_open(live, pool)
    finally:
        for episode in episodes:
            episode.close()


def _take(pair: tuple[AgentEpisode, Completion]) -> None:
    pair[0].take(pair[1])


def _still_open(episodes: Sequence[AgentEpisode], pool: Pool) -> list[AgentEpisode]:
    pool.map(AgentEpisode.close, [e for e in episodes if e.ending is not None])
    return [e for e in episodes if e.ending is None]
