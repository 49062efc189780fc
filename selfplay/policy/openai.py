"""A policy behind OpenAI's chat completions, for evaluation: texts in, texts out.

It cannot be trained on: its log-probabilities are not a number, and its weights are not ours.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from selfplay.config import OpenAIConfig, PolicyConfig
from selfplay.errors import PolicyError, UserError
from selfplay.policy.http import JsonClient, Refused, Unreachable
from selfplay.policy.messages import MessageRenderer, MessageTokenizer
from selfplay.sampling import SampleRequest
from selfplay.seeds import derive_rng
from selfplay.types import Completion

log = logging.getLogger(__name__)

_AGAIN = {408, 409, 425, 429}
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_MAX_SEED = 2**31


class Pace:
    """At most `per_minute` starts a minute, evenly spaced (None: no limit). Thread-safe."""

    def __init__(self, per_minute: float | None) -> None:
        if per_minute is not None and per_minute <= 0:
            raise UserError(f"policy.openai.requests_per_minute={per_minute}: must be positive")
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is our turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap_s
        if turn > now:
            time.sleep(turn - now)


class OpenAIPolicy:
    """One model of a server. Raises `PolicyError` when all retries are used up."""

    def __init__(
        self, model: str, config: OpenAIConfig, *, first_wait_s: float = _FIRST_WAIT_S
    ) -> None:
        if config.max_concurrency < 1:
            raise UserError("policy.openai.max_concurrency must be at least 1")
        self.version = 0
        self.tokenizer = MessageTokenizer()
        self._model = model
        self._config = config
        key = os.environ.get(config.api_key_variable, "")
        self._client = JsonClient(
            config.url,
            num_connections=config.max_concurrency,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout_s=config.timeout_s,
        )
        self._threads = ThreadPoolExecutor(config.max_concurrency, thread_name_prefix="openai")
        self._pace = Pace(config.requests_per_minute)
        self._first_wait_s = first_wait_s
        self._lock = threading.Lock()
        self._counts = {"requests": 0, "retries": 0, "prompt_tokens": 0, "completion_tokens": 0}

    def chat(self) -> MessageRenderer:
        """For chats of several turns with tools."""
        return MessageRenderer(self.tokenizer)

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Answers in the order of `requests`, each sample by a request of its own."""
        futures = [
            [self._threads.submit(self._answer, r, i) for i in range(r.num_samples)]
            for r in requests
        ]
        try:
            return [[future.result() for future in group] for group in futures]
        finally:
            for group in futures:
                for future in group:
                    future.cancel()

    def usage(self) -> dict[str, float | None]:
        """Requests answered, retries, tokens as the server counts them, and dollars if priced."""
        with self._lock:
            counts = dict(self._counts)
        prices = (self._config.input_price, self._config.output_price)
        tokens = (counts["prompt_tokens"], counts["completion_tokens"])
        cost = None
        if any(price is not None for price in prices):
            pairs = zip(tokens, prices, strict=True)
            cost = sum(num * (price or 0.0) for num, price in pairs) / 1e6
        return {**counts, "cost_usd": cost}

    def _answer(self, request: SampleRequest, sample: int) -> Completion:
        body = {
            **self._config.body,
            "model": self._model,
            "messages": self.tokenizer.messages(request.prompt_ids),
            self._config.max_tokens_key: request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        rng = derive_rng(request.seed, sample, "openai")
        if self._config.seeds:
            body["seed"] = rng.randrange(_MAX_SEED)
        for attempt in range(self._config.max_retries + 1):
            self._pace.wait()
            try:
                document = self._client.post("/chat/completions", body)
            except PolicyError as error:
                asked_s = self._may_repeat(error, attempt)
                wait_s = min(_LONGEST_WAIT_S, self._first_wait_s * 2**attempt)
                wait_s = max(asked_s, wait_s * rng.uniform(0.5, 1.0))
                log.warning("%s; again in %.1f s", error, wait_s)
                self._count(retries=1)
                time.sleep(wait_s)
            else:
                return self._read(document)
        raise AssertionError

    def _may_repeat(self, error: PolicyError, attempt: int) -> float:
        """The wait that the server asks for. Raises where repeating is no use."""
        if isinstance(error, Refused):
            if error.status in (401, 403):
                raise UserError(
                    f"{error}; is the key in ${self._config.api_key_variable} right?"
                ) from error
            if error.status < 500 and error.status not in _AGAIN:
                raise error
        elif not isinstance(error, Unreachable):
            raise error
        if attempt == self._config.max_retries:
            raise PolicyError(f"{error} (after {attempt} retries)") from error
        asked_s = error.retry_after_s if isinstance(error, Refused) else None
        return min(_LONGEST_WAIT_S, asked_s or 0.0)

    def _read(self, document: Any) -> Completion:
        try:
            (choice, *_) = document["choices"]
            text = str(choice["message"].get("content") or "")
            reason = choice["finish_reason"]
            usage = document.get("usage") or {}
            prompt, answer = (int(usage.get(f"{k}_tokens") or 0) for k in ("prompt", "completion"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PolicyError(f"{self._client.url}: answer of another form: {error!r}") from error
        if reason not in ("stop", "length"):
            raise PolicyError(f"{self._client.url}: the answer ended with {reason!r}")
        self._count(requests=1, prompt_tokens=prompt, completion_tokens=answer)
        finish: Literal["stop", "length"] = reason
        ids = self.tokenizer.encode(text)
        ids += (self.tokenizer.end_of_turn_id,) if finish == "stop" else ()
        return Completion(
            token_ids=ids,
            logprobs=(float("nan"),) * len(ids),
            text=text,
            finish_reason=finish,
            policy_version=self.version,
        )

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number


def open_openai(config: PolicyConfig) -> OpenAIPolicy:
    """The configured server; it is not asked anything yet."""
    if config.adapter is not None:
        raise UserError("policy=openai: the server has its own weights; set policy.adapter=null")
    return OpenAIPolicy(config.model, config.openai)
