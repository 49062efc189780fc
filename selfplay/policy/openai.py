"""A policy behind OpenAI's chat completions, for evaluation: texts in, texts out.

It cannot be trained on: its log-probabilities are not a number, and its weights are not ours.
What odd answers mean is told in `endpoint_answers.py`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any

from selfplay.config.policy import OpenAIConfig, PolicyConfig
from selfplay.errors import PolicyError, SelfplayError, UserError
from selfplay.policy.endpoint_answers import ChatAnswer, SampleRefused, judge, read_answer
from selfplay.policy.http import Garbled, JsonClient, Refused, Unreachable
from selfplay.policy.messages import MessageTokenizer
from selfplay.sampling import SampleRequest
from selfplay.seeds import derive_rng
from selfplay.types import Completion

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_MAX_SEED = 2**31
_MAX_LOST = 4
"""Requests that may fail in a row, all retries used up, before the server counts as gone."""
_MAX_REFUSED = 8
"""Requests that may be refused in a row before the fault is taken to be ours."""
NO_ANSWER = "(no answer)"
"""Stands in a history for an empty answer, which many servers refuse."""


class Pace:
    """At most `per_minute` starts a minute, evenly spaced (None: no limit). Thread-safe."""

    def __init__(self, per_minute: float | None) -> None:
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


class _Stopped(PolicyError):
    """Another request met a fault that ends them all; this one was not asked."""


class OpenAIPolicy:
    """One model of a server (a `ServedPolicy`). Raises `PolicyError` when all retries are used up,
    `UserError` for a key, a credit or a parameter that the user can mend."""

    def __init__(
        self, model: str, config: OpenAIConfig, *, first_wait_s: float = _FIRST_WAIT_S
    ) -> None:
        if config.max_concurrency < 1:
            raise UserError("policy.openai.max_concurrency must be at least 1")
        self.version = 0
        self.max_concurrency = config.max_concurrency
        self.tokenizer = MessageTokenizer()
        self._model = model
        self._config = config
        key = os.environ.get(config.api_key_variable, "")
        self._client = JsonClient(
            config.url,
            num_connections=config.max_concurrency,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout_s=config.timeout_s,
            proxied=True,
        )
        self._threads = ThreadPoolExecutor(config.max_concurrency, thread_name_prefix="openai")
        self._pace = Pace(config.requests_per_minute)
        self._first_wait_s = first_wait_s
        self._lock = threading.Lock()
        self._num_lost = self._num_refused = 0
        self._counts = {"requests": 0, "retries": 0, "prompt_tokens": 0, "completion_tokens": 0}

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Answers in the order of `requests`, each sample by a request of its own.

        A completion has a `problem` where the model was kept from answering; a request that failed
        otherwise raises.
        """
        groups, error = self.try_sample(requests)
        lost = next((c for group in groups for c in group if c.errored), None)
        if error is not None or lost is not None:
            raise error or PolicyError(lost.problem if lost else "")
        return groups

    def try_sample(
        self, requests: Sequence[SampleRequest]
    ) -> tuple[list[list[Completion]], SelfplayError | None]:
        """As `ServedPolicy.try_sample`."""
        stop = threading.Event()
        futures = [
            [self._threads.submit(self._answer, r, i, stop) for i in range(r.num_samples)]
            for r in requests
        ]
        groups: list[list[Completion]] = []
        error: SelfplayError | None = None
        try:
            for group in futures:
                groups.append([])
                for future in group:
                    try:
                        groups[-1].append(future.result())
                    except SelfplayError as fault:
                        error = error if error and not isinstance(error, _Stopped) else fault
        finally:
            stop.set()
        return groups, error

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

    def _answer(self, request: SampleRequest, sample: int, stop: threading.Event) -> Completion:
        """One sample. Raises what will be the same for all others, which are then not asked."""
        try:
            return self._tried(request, sample, stop)
        except BaseException:
            stop.set()
            raise

    def _tried(self, request: SampleRequest, sample: int, stop: threading.Event) -> Completion:
        rng = derive_rng(request.seed, sample, "openai")
        body = self._body(request, rng.randrange(_MAX_SEED))
        for attempt in range(self._config.max_retries + 1):
            if stop.is_set():
                raise _Stopped("not asked: the server answers nothing more")
            self._pace.wait()
            try:
                answer = self._ask(body, is_last=attempt == self._config.max_retries)
            except PolicyError as fault:
                meant = judge(fault, self._config.api_key_variable)
                if isinstance(meant, SampleRefused):
                    return self._refused(meant)
                if not isinstance(meant, Unreachable):
                    raise meant from fault
                if attempt == self._config.max_retries:
                    return self._given_up(fault, attempt)
                stop.wait(self._wait_s(fault, attempt, rng))
            else:
                return self._completion(answer)
        raise AssertionError

    def _body(self, request: SampleRequest, seed: int) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": self._model,
            "messages": self._messages(request.prompt_ids),
            config.max_tokens_key: request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if config.seeds:
            body["seed"] = seed
        kept = {key: value for key, value in body.items() if key not in config.omit}
        return {config.rename.get(key, key): v for key, v in kept.items()} | config.body

    def _messages(self, prompt_ids: Sequence[int]) -> list[dict[str, str]]:
        """The chat in the roles that the server knows, without an empty message."""
        messages = self.tokenizer.messages(prompt_ids)
        if self._config.system_role == "user" and messages[0]["role"] == "system":
            system, first, *rest = messages
            text = f"{system['content']}\n\n{first['content']}"
            messages = [{"role": "user", "content": text}, *rest]
        roles = {"system": self._config.system_role}
        return [
            {
                "role": roles.get(m["role"], m["role"]),
                "content": m["content"] if m["content"].strip() else NO_ANSWER,
            }
            for m in messages
        ]

    def _ask(self, body: dict[str, Any], *, is_last: bool) -> ChatAnswer:
        answer = read_answer(self._client.post("/chat/completions", body), self._client.url)
        if answer.is_empty and not is_last:
            raise Garbled(f"{self._client.url}: an answer without a word or a token")
        self._count(
            requests=1, prompt_tokens=answer.num_prompt, completion_tokens=answer.num_answer
        )
        return answer

    def _wait_s(self, error: PolicyError, attempt: int, rng: Random) -> float:
        """Seconds until the next try; as the server asks for, unless it asks for ages."""
        wait_s = min(_LONGEST_WAIT_S, self._first_wait_s * 2**attempt) * rng.uniform(0.5, 1.0)
        asked_s = (error.retry_after_s or 0.0) if isinstance(error, Refused) else 0.0
        wait_s = max(wait_s, asked_s if asked_s <= _LONGEST_WAIT_S else 0.0)
        log.warning("%s; again in %.1f s", error, wait_s)
        self._count(retries=1)
        return float(wait_s)

    def _refused(self, refused: SampleRefused) -> Completion:
        """No answer to this sample; too many in a row by no fault of the model are ours."""
        with self._lock:
            self._num_refused = self._num_refused + 1 if refused.errored else 0
            num = self._num_refused
        if num >= _MAX_REFUSED:
            raise PolicyError(f"the server refused {num} requests in a row: {refused.reason}")
        return self._none(refused.reason, errored=refused.errored)

    def _given_up(self, error: PolicyError, num_retries: int) -> Completion:
        """A server that has answered before loses this sample; else, or at last, it is gone."""
        text = f"{error} (after {num_retries} retries)"
        with self._lock:
            self._num_lost += 1
            if not self._counts["requests"] or self._num_lost >= _MAX_LOST:
                raise PolicyError(text) from error
        return self._none(f"infrastructure: {text}", errored=True)

    def _none(self, problem: str, *, errored: bool) -> Completion:
        log.warning("%s: no answer: %s", self._client.url, problem)
        return replace(
            self._completion(ChatAnswer(text="", finish="stop"), answered=False),
            problem=problem,
            errored=errored,
        )

    def _completion(self, answer: ChatAnswer, *, answered: bool = True) -> Completion:
        if answered:
            with self._lock:
                self._num_lost = self._num_refused = 0
        ids = self.tokenizer.encode(answer.text)
        ids += (self.tokenizer.end_of_turn_id,) if answer.finish == "stop" else ()
        return Completion(
            token_ids=ids,
            logprobs=(float("nan"),) * len(ids),
            text=answer.text,
            finish_reason=answer.finish,
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
