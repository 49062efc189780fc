"""Plays many agentic episodes: one batch for the policy, then all tool calls in parallel.

Episodes go in step; one that ends makes room for the next, so that no more sandboxes are open than
there are places, whoever plays at once. The order of the results is that of the episodes, and with
a deterministic policy what each of them does depends on nothing but itself.
"""

from __future__ import annotations

import threading
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


class Places:
    """So many sandboxes may be open at once, over all calls of `play` that share these places.

    Who has none waits for one, and comes before who has some: no call waits while it holds a place,
    so each that plays comes to its end and gives them back.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._num_waiting = 0
        self._changed = threading.Condition()

    def take(self, wanted: int, *, wait: bool) -> int:
        """Places that are yours now, at most `wanted`; with `wait` at least one."""
        with self._changed:
            if wait:
                self._num_waiting += 1
                try:
                    self._changed.wait_for(lambda: self._free)
                finally:
                    self._num_waiting -= 1
            elif self._num_waiting:
                return 0
            taken = min(wanted, self._free)
            self._free -= taken
            return taken

    def give_back(self, number: int) -> None:
        """Let others have them."""
        with self._changed:
            self._free += number
            self._changed.notify_all()


def play(policy: Sampler, episodes: Sequence[AgentEpisode], pool: Pool, places: Places) -> None:
    """Roll out every episode to its ending. Sandboxes are closed, whatever happens.

    Raises `PolicyError` when the engine fails: what it did not answer cannot be judged.
    """
    waiting = list(reversed(episodes))
    live: list[AgentEpisode] = []
    held = 0
    try:
        while waiting or live:
            fresh: list[AgentEpisode] = []
            if waiting:
                number = places.take(len(waiting), wait=not live)
                held += number
                fresh = [waiting.pop() for _ in range(number)]
                pool.map(AgentEpisode.open, fresh)
            live = _still_open([*live, *fresh], pool)
            if live:
                answers = policy.sample([episode.request() for episode in live])
                pool.map(_take, [(e, group[0]) for e, group in zip(live, answers, strict=True)])
                live = _still_open(live, pool)
            places.give_back(held - len(live))
            held = len(live)
    finally:
        for episode in episodes:
            episode.close()
        places.give_back(held)


def _take(pair: tuple[AgentEpisode, Completion]) -> None:
    pair[0].take(pair[1])


def _still_open(episodes: Sequence[AgentEpisode], pool: Pool) -> list[AgentEpisode]:
    pool.map(AgentEpisode.close, [e for e in episodes if e.ending is not None])
    return [e for e in episodes if e.ending is None]
