"""The policy of many rounds at once: an awaitable `sample`, and weights that change in between.

An engine in this process computes one thing at a time, in a thread of its own: a call, or the
learner's step, since both use the same weights. What waits for it when a call ends is answered
together by the next one, as a server would. Servers take requests from any thread, batch them by
themselves and change their weights under them: there nothing waits for anything.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from selfplay.sampling import (
    Policy,
    SampleRequest,
    ScoreRequest,
    ScoringPolicy,
    ServedPolicy,
    Tokenizer,
)
from selfplay.types import Completion

T = TypeVar("T")


class Engine:
    """Puts the calls of all rounds to one policy; `policy` is what a round's thread may ask."""

    def __init__(self, policy: Policy) -> None:
        self._inner = policy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, Sequence[Any], Future[list[Any]]]] = []
        self._closed = False
        self.policy: Policy = policy
        if not isinstance(policy, ServedPolicy):
            shared = _SharedScoringPolicy if isinstance(policy, ScoringPolicy) else _SharedPolicy
            self.policy = cast(Policy, shared(self))  # whose version the learner alone sets

    async def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """See `Policy.sample`."""
        if isinstance(self._inner, ServedPolicy):
            return await asyncio.to_thread(self._inner.sample, requests)
        return await asyncio.wrap_future(self.ask("sample", requests))

    async def between_calls(self, work: Callable[[], T]) -> T:
        """Do something with the weights, as the learner does; of servers, while they answer."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def ask(self, method: str, requests: Sequence[Any]) -> Future[list[Any]]:
        """`policy.sample` or `policy.score`, together with whatever else waits for it then."""
        future: Future[list[Any]] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
                return future
            self._waiting.append((method, requests, future))
            self._thread.submit(self._answer, method)
        return future

    def close(self) -> None:
        """Cancel what waits and answer nothing more, after the call that runs. Idempotent."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for _, _, future in waiting:
            future.cancel()
        self._thread.shutdown(cancel_futures=True)

    def _answer(self, method: str) -> None:
        """All that waits for a method, in one call; nothing where an earlier call took it along."""
        with self._lock:
            taken = [(asked, future) for name, asked, future in self._waiting if name == method]
            self._waiting = [entry for entry in self._waiting if entry[0] != method]
        if not taken:
            return
        try:
            call: Callable[[Sequence[Any]], list[Any]] = getattr(self._inner, method)
            answers = call([request for asked, _ in taken for request in asked])
        except BaseException as error:
            for _, future in taken:
                future.set_exception(error)
            return
        for asked, future in taken:
            future.set_result(answers[: len(asked)])
            answers = answers[len(asked) :]

    @property
    def inner(self) -> Policy:
        """The policy itself."""
        return self._inner


class _SharedPolicy:
    """The policy as a round's thread sees it, which waits for its answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def version(self) -> int:
        return self._engine.inner.version

    @property
    def tokenizer(self) -> Tokenizer:
        return self._engine.inner.tokenizer

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        return self._engine.ask("sample", requests).result()


class _SharedScoringPolicy(_SharedPolicy):
    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        return self._engine.ask("score", requests).result()
