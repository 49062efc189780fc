"""Inference on vLLM servers: token ids in, token ids out, weights changed while they run.

    requests -> the server with the least to do -> /inference/v1/generate -> completions
    directory -> on every server: pause, load, label, resume -> version + 1
    adapter   -> on every server: load under a new name -> requests ask for it -> version + 1

Log-probabilities are those of the distribution that was sampled from: at the request's temperature
and, where `top_p < 1` (evaluation), after the cut. vLLM itself runs in other processes and in an
environment of its own (`Launch.python`); nothing of it is imported here.

Answers are not reproducible: what a draw sees depends on what else is in the batch. Requests carry
their seeds only if `policy.vllm.seeds` says so: vLLM 0.32 on a CPU dies of a seeded request whose
prompt it reads in pieces, and on GPUs seeds are slow.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from selfplay.config import VLLMConfig
from selfplay.errors import PolicyError, SelfplayError, UserError
from selfplay.policy.http import Refused
from selfplay.policy.vllm.adapters import AdapterBackend
from selfplay.policy.vllm.backend import Backend, Lost
from selfplay.policy.vllm.client import Answer
from selfplay.policy.vllm.interpreter import find_python
from selfplay.policy.vllm.server import Launch, ServerProcess
from selfplay.sampling import SampleRequest, ScoreRequest, Tokenizer, end_of
from selfplay.types import Completion

log = logging.getLogger(__name__)
T = TypeVar("T")
_LOST_S = 0.2


class VLLMPolicy:
    """One set of weights on one or several servers. Thread-safe.

    Requests run concurrently, `max_concurrency` at a time; a server that dies is brought back
    with the current weights and its requests are repeated, at another where it is at a URL and
    does not answer. Raises `PolicyError` when servers keep
    failing, `UserError` when one cannot be used at all.
    """

    def __init__(
        self, backends: Sequence[Backend], tokenizer: Tokenizer, *, max_concurrency: int = 256
    ) -> None:
        assert backends
        self._backends = tuple(backends)
        self._tokenizer = tokenizer
        self.max_concurrency = max_concurrency
        self._threads = ThreadPoolExecutor(max_concurrency, thread_name_prefix="vllm")
        self._choosing = threading.Lock()
        self._updating = threading.Lock()
        self.version = 0
        try:
            self._everywhere(lambda backend: backend.open(tokenizer.end_of_turn_id))
        except BaseException:
            self.close()
            raise
        self.max_model_len = min(backend.max_model_len for backend in self._backends)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def urls(self) -> list[str]:
        """Where the servers are now; one of ours gets another port when it is started again."""
        return [backend.client.url for backend in self._backends]

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Answers in the order of `requests`."""
        for request in requests:
            self._check(len(request.prompt_ids), request.max_new_tokens)
        if len(requests) < 2:
            return [self._answer(request) for request in requests]
        futures = [self._threads.submit(self._answer, request) for request in requests]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def try_sample(
        self, requests: Sequence[SampleRequest]
    ) -> tuple[list[list[Completion]], SelfplayError | None]:
        """As `ServedPolicy.try_sample`."""
        futures = [self._threads.submit(self._try_answer, request) for request in requests]
        groups: list[list[Completion]] = []
        error: SelfplayError | None = None
        for future in futures:
            try:
                groups.append(future.result())
            except SelfplayError as fault:
                groups.append([])
                error = error or fault
        return groups, error

    def update_weights(self, directory: Path, version: int | None = None) -> int:
        """Load the directory on every server while requests go on; the new version.

        It holds a model: requests in flight are frozen, go on under the new weights, and say so in
        their spans. Or an adapter: requests in flight end with the one that they began with. The
        version is `version`, else one more than now. A load that fails raises `PolicyError`; the
        servers then go back to the weights before, and the version stays.
        """
        with self._updating:
            version = self.version + 1 if version is None else version
            try:
                self._everywhere(lambda backend: backend.load(directory, version))
            except BaseException:
                for backend in self._backends:
                    backend.taint()
                raise
            for backend in self._backends:
                backend.commit(directory, version)
            self.version = version
            return version

    def directories_in_use(self) -> set[Path]:
        """Of weights that a server may yet read."""
        return set().union(*(backend.in_use for backend in self._backends))

    def close(self) -> None:
        """End the servers that are ours. Idempotent."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for backend in self._backends:
            backend.close()

    def _check(self, num: int, max_new_tokens: int) -> None:
        """Of a prompt of `num` tokens."""
        if not num or max_new_tokens < 1:
            raise PolicyError("a request needs a prompt and max_new_tokens >= 1")
        if num >= self.max_model_len:
            raise PolicyError(
                f"the prompt has {num} tokens, the engine's context {self.max_model_len}; "
                "lower the scaffold's limits or raise policy.vllm.max_model_len"
            )

    def _answer(self, request: SampleRequest) -> list[Completion]:
        """The completions of one request, from the server with the fewest answers under way, or
        from another where that one is lost."""
        room = self.max_model_len - len(request.prompt_ids)
        answers = self._asked(
            lambda backend: backend.generate(
                request,
                max_tokens=min(request.max_new_tokens, room),
                end_of_turn_id=end_of(request, self._tokenizer.end_of_turn_id),
            ),
            request.num_samples,
        )
        return [self._completion(answer) for answer in answers]

    def _asked(self, ask: Callable[[Backend], T], num_samples: int) -> T:
        for num_lost in itertools.count(1):
            backend = self._choose(num_samples)
            try:
                return ask(backend)
            except Lost as error:
                if num_lost > backend.max_failures:
                    raise PolicyError(f"{num_lost} servers were lost over a request") from error
            finally:
                with self._choosing:
                    backend.num_running -= num_samples
        raise AssertionError

    def _choose(self, num_samples: int) -> Backend:
        """The server to ask next, counted as asked. Waits while all are lost; raises `PolicyError`
        when the last of them has been for `start_timeout_s`."""
        while True:
            with self._choosing:
                there = [backend for backend in self._backends if not backend.is_lost]
                if there:
                    backend = min(there, key=lambda b: b.num_running)
                    backend.num_running += num_samples
                    return backend
            last = max(self._backends, key=lambda b: b.lost_since)
            if last.is_lost and time.monotonic() - last.lost_since > last.start_timeout_s:
                raise PolicyError(
                    f"no vLLM server has answered for {last.start_timeout_s:g} s "
                    f"(policy.vllm.start_timeout_s): {', '.join(self.urls)}; start them again at "
                    "the same addresses, and the run by the same command: it goes on"
                )
            time.sleep(_LOST_S)

    def _try_answer(self, request: SampleRequest) -> list[Completion]:
        """The completions of a request, or why there are none for it alone."""
        try:
            if len(request.prompt_ids) >= self.max_model_len:
                return [self._none("context_length", errored=False)] * request.num_samples
            return self._answer(request)
        except Refused as error:
            return [self._none(f"infrastructure: {error}", errored=True)] * request.num_samples

    def _none(self, problem: str, *, errored: bool) -> Completion:
        log.warning("no answer: %s", problem)
        return Completion(
            token_ids=(), logprobs=(), text="", finish_reason="stop",
            policy_version=self.version, problem=problem, errored=errored,
        )  # fmt: skip

    def _completion(self, answer: Answer) -> Completion:
        stopped = answer.finish_reason == "stop"
        ids = answer.token_ids
        versions = [span.version for span in answer.spans if span.version is not None]
        return Completion(
            token_ids=ids,
            logprobs=answer.logprobs,
            text=self._tokenizer.decode(ids[:-1] if stopped else ids),
            finish_reason=answer.finish_reason,
            policy_version=min(versions, default=self.version),
            spans=answer.spans if len(answer.spans) > 1 else (),
        )

    def _everywhere(self, act: Callable[[Backend], None]) -> None:
        """Act on all servers at once; the first error is raised after all have ended."""
        if len(self._backends) == 1:
            act(self._backends[0])
            return
        with ThreadPoolExecutor(len(self._backends)) as threads:
            futures = [threads.submit(act, backend) for backend in self._backends]
        for future in futures:
            future.result()


class ScoringVLLMPolicy(VLLMPolicy):
    """Servers of whole weights, which tell how likely an answer is. Asked that with an adapter,
    vLLM 0.32 ends on a CPU: its head takes a prompt's tokens for requests (issues 16668, 29955)."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        """See `ScoringPolicy.score`. `UserError` at another temperature than 1, which is that of
        what vLLM tells of a prompt's tokens."""
        for request in requests:
            self._check(len(request.prompt_ids) + len(request.answer_ids), 1)
            if request.temperature != 1.0:
                raise UserError(
                    f"policy.temperature={request.temperature:g}: vLLM tells how likely an answer "
                    "is at 1 alone; set it to 1, or curriculum.max_fresh_groups to null"
                )
        return list(
            self._threads.map(
                lambda request: self._asked(lambda backend: backend.score(request), 1), requests
            )
        )


def open_vllm(
    config: VLLMConfig, model: Path | None, tokenizer: Tokenizer, *, lora_rank: int = 0
) -> VLLMPolicy:
    """Start or reach the configured servers, all with the weights of `model`.

    `model` None leaves servers at URLs the weights that they have. `lora_rank` > 0: the model
    stays, and `update_weights` takes adapters of that rank; the first one before any request.
    Without, it is a `ScoringVLLMPolicy`.
    """
    num = len(config.urls) or config.num_servers
    if num < 1 or config.max_concurrency < 1:
        raise UserError("policy.vllm: num_servers and max_concurrency must be at least 1")
    processes: list[ServerProcess | None] = [None] * num
    if not config.urls:
        eager = config.enforce_eager
        launch = Launch(
            python=find_python(config.python),
            max_model_len=config.max_model_len,
            dtype=config.dtype,
            enforce_eager=not config.gpus if eager is None else eager,
            kv_cache_gib=config.kv_cache_gib,
            start_timeout_s=config.start_timeout_s,
            request_timeout_s=config.request_timeout_s,
            lora_rank=lora_rank,
            args=tuple(config.args),
        )
        gpus = config.gpus or [""] * num
        if len(gpus) != num:
            raise UserError(
                f"policy.vllm.gpus: names the GPUs of {len(gpus)} servers, but {num} are started; "
                f"set policy.vllm.num_servers={len(gpus)}"
            )
        processes = [ServerProcess(launch, number, gpus[number]) for number in range(num)]
    kind = AdapterBackend if lora_rank else Backend
    whole = VLLMPolicy if lora_rank else ScoringVLLMPolicy
    backends = [
        kind(
            model=model,
            url=url,
            process=process,
            num_connections=config.max_concurrency,
            seeds=config.seeds,
            request_timeout_s=config.request_timeout_s,
            start_timeout_s=config.start_timeout_s,
            max_failures=config.max_failures,
        )
        for url, process in zip(config.urls or [""] * num, processes, strict=True)
    ]
    return whole(backends, tokenizer, max_concurrency=config.max_concurrency)
