"""One server of a `VLLMPolicy` and its life: opened, asked, changed, lost, brought back.

ours, died             -> started again at once, on the weights of now; requests wait
at a URL, no answer    -> lost: requests go to the others, updates pass it by, a thread asks
                          each second; back: given the weights of now before any request
at a URL, other weights -> given those of now, and asked again
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from selfplay.errors import PolicyError, UserError
from selfplay.policy.http import Garbled, Refused, Unreachable
from selfplay.policy.vllm.client import Answer, VLLMClient
from selfplay.policy.vllm.server import TOKEN_VARIABLE, ServerProcess
from selfplay.sampling import SampleRequest, ScoreRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

_HEALTH_S = 10.0
_BACK_OFF_S = 0.5
_PROBE_S = 60.0
_ASK_S = 1.0
"""Between two looks for a server at a URL that does not answer."""


class Stale(Unreachable):
    """The server answered with weights that we did not give it: it was started anew."""


class Lost(Unreachable):
    """The server at a URL does not answer; another may, or this one later."""


class Backend:
    """A server of ours (`process`) or at `url`, holding the weights of a model directory.

    `model` None: a server at a URL that keeps the weights it has. `max_failures` in a row, with no
    answer in between, are too many. One at a URL may take `start_timeout_s` to be there. `is_lost`:
    it is not, since `lost_since` (monotonic clock). Thread-safe.
    """

    def __init__(
        self,
        *,
        model: Path | None,
        url: str = "",
        process: ServerProcess | None = None,
        num_connections: int = 256,
        request_timeout_s: float = 600.0,
        start_timeout_s: float = 600.0,
        max_failures: int = 5,
        seeds: bool = False,
    ) -> None:
        assert (process is not None) == (not url) and (url or model)
        self.num_running = 0
        self.max_model_len = 0
        self._process = process
        self._connect: Callable[[str], VLLMClient] = lambda target: VLLMClient(
            target,
            num_connections=num_connections,
            timeout_s=request_timeout_s,
            seeds=seeds,
            token=os.environ.get(TOKEN_VARIABLE, "") if url else "",
        )
        self._client = self._connect(url) if url else None
        self.max_failures = max_failures
        self.start_timeout_s = start_timeout_s
        self.is_lost, self.lost_since = False, 0.0
        self._behind = False
        self._closed = threading.Event()
        self._probe_s = min(_PROBE_S, request_timeout_s)
        self._end_of_turn_id = 0
        self._lock = threading.RLock()
        self._generation = 0
        self._failures = 0
        self._tainted = False
        self._labelled = False
        self._weights: tuple[Path | None, int] = (model, 0)

    @property
    def in_use(self) -> set[Path]:
        """Directories that the server may yet read."""
        directory, _ = self._weights
        return {directory} if directory is not None else set()

    @property
    def client(self) -> VLLMClient:
        """Calls of the server as it is now."""
        if self._client is None:
            raise PolicyError("the vLLM server was not opened")
        return self._client

    def open(self, end_of_turn_id: int) -> None:
        """Start or reach the server, and refuse one that cannot be used."""
        if self._process is not None:
            self._start(*self._weights)
        else:
            self._wait_for_url()
        self.client.check_version()
        if self._process is None:
            self._labelled = self.client.weight_version() is not None
            if self._labelled:
                self.client.resume()  # whoever used it before may have died in an update
        self._end_of_turn_id = end_of_turn_id
        self.client.check_logprobs(end_of_turn_id)
        self.max_model_len = self.client.max_model_len()
        if self._process is None:
            model, version = self._weights
            if model is not None:
                self._load(model, version)
            elif self._labelled:
                self.client.set_weight_version(version)

    def generate(
        self, request: SampleRequest, *, max_tokens: int, end_of_turn_id: int
    ) -> list[Answer]:
        """Answers by the current weights; repeated when the server died meanwhile.

        Raises `Lost` where a server at a URL does not answer any more.
        """
        return self._repeated(lambda: self._ask(request, max_tokens, end_of_turn_id))

    def score(self, request: ScoreRequest) -> tuple[float, ...]:
        """As `VLLMClient.score`, by the current weights; repeated and lost as in `generate`."""
        return self._repeated(lambda: self.client.score(request))

    def _repeated(self, ask: Callable[[], T]) -> T:
        for num_tries in itertools.count(1):
            generation = self._generation
            try:
                if self._tainted:
                    raise Unreachable(f"{self.client.url}: its last weight update failed")
                answer = ask()
            except (Unreachable, Refused) as error:
                if isinstance(error, Refused) and error.status < 500:
                    raise
                if num_tries > self.max_failures:
                    raise PolicyError(f"a request failed {num_tries} times: {error}") from error
                self._recover(generation, error)
                continue
            self._failures = 0
            return answer
        raise AssertionError

    def load(self, directory: Path, version: int) -> None:
        """Change the weights while requests wait. A server of ours that died is started on them;
        one at a URL that is lost gets them when it is back."""
        with self._lock:
            if self.is_lost:
                self._behind = True
                return
            try:
                self._change(directory, version)
            except Unreachable as error:
                if self._process is None:
                    self._lose(error)
                    self._behind = True
                    return
                log.warning("vLLM server lost (%s); starting it on the new weights", error)
                self._start_with(directory, version)
                self._generation += 1
            self._tainted = False

    def commit(self, directory: Path, version: int) -> None:
        """From now on these are the weights that a lost server is brought back with."""
        with self._lock:
            self._settle(directory, version)
            self._behind = False

    def taint(self) -> None:
        """A load failed, here or elsewhere: what was loaded last must not be used."""
        with self._lock:
            self._behind = False
            self._take_back()

    def close(self) -> None:
        """End the server if it is ours."""
        self._closed.set()
        if self._process is not None:
            self._process.stop()
        if self._client is not None:
            self._client.http.close()

    def _ask(self, request: SampleRequest, max_tokens: int, end_of_turn_id: int) -> list[Answer]:
        answers = self.client.generate(
            request, max_tokens=max_tokens, end_of_turn_id=end_of_turn_id
        )
        self._check_spans(answers)
        return answers

    def _change(self, directory: Path, version: int) -> None:
        self._load(directory, version)

    def _start_with(self, directory: Path, version: int) -> None:
        """Start a server of ours that died, with what it was about to get."""
        self._start(directory, version)

    def _settle(self, directory: Path, version: int) -> None:
        self._weights = (directory, version)

    def _take_back(self) -> None:
        """Its weights are not to be trusted: nothing more may come from them."""
        self._tainted = True
        if self._process is not None:
            self._process.stop()
            return
        with contextlib.suppress(PolicyError, UserError):
            self.client.abort()

    def _load(self, directory: Path, version: int) -> None:
        """Pause, load, label, resume."""
        self.client.pause()
        try:
            self.client.load_weights(directory)
            self.client.set_weight_version(version)
            self._labelled = True
        except Unreachable:
            raise
        except PolicyError as error:
            self._take_back()
            raise PolicyError(f"loading weights {version} failed: {error}") from error
        finally:
            with contextlib.suppress(Unreachable):
                self.client.resume()

    def _wait_for_url(self) -> None:
        """Until the server is there: it may be started by the same job as the run."""
        deadline, told = time.monotonic() + self.start_timeout_s, False
        while True:
            try:
                self.client.http.get("/health", timeout_s=_HEALTH_S)
            except (Unreachable, Refused) as error:
                if isinstance(error, Refused) and error.status < 500:
                    return  # a server of another kind, which what is asked next will tell
                if time.monotonic() > deadline:
                    raise PolicyError(
                        f"{self.client.url}: no vLLM server answered within "
                        f"{self.start_timeout_s:g} s (policy.vllm.start_timeout_s): {error}"
                    ) from error
                if not told:
                    log.warning(
                        "%s: does not answer yet; waiting up to %g s for it (%s)",
                        self.client.url, self.start_timeout_s, error,
                    )  # fmt: skip
                told = True
                time.sleep(min(_ASK_S, self.start_timeout_s / 10))
            else:
                return

    def _start(self, model: Path | None, version: int) -> None:
        assert self._process is not None and model is not None
        self._client = self._connect(self._process.launch(model))
        self._process.wait(self._client.http)
        self._client.set_weight_version(version)
        self._labelled = True

    def _check_spans(self, answers: list[Answer]) -> None:
        if self._labelled and any(s.version is None for a in answers for s in a.spans):
            raise Stale(f"{self.client.url}: was started anew and has lost its weights")

    def _recover(self, generation: int, error: PolicyError) -> None:
        """Bring the server back with the current weights; whoever comes second finds it done."""
        with self._lock:
            if generation != self._generation:
                return
            if self.is_lost:
                raise Lost(f"{self.client.url}: is lost") from error
            self._failures += 1
            if self._failures > self.max_failures:
                detail = f"\n{self._process.tail()}" if self._process is not None else ""
                raise PolicyError(
                    f"a vLLM server failed {self._failures} times in a row: {error}{detail}"
                ) from error
            log.warning("vLLM server lost (%s); bringing it back", error)
            time.sleep(_BACK_OFF_S * 2 ** (self._failures - 1))
            try:
                self._bring_back()
            except PolicyError as again:
                away = isinstance(again, (Unreachable, Refused)) and not isinstance(again, Garbled)
                if self._process is None and away:
                    self._lose(again)
                    raise Lost(f"{self.client.url}: is lost") from again
                log.warning("vLLM server still lost (%s)", again)
            else:
                self._generation += 1
                self._tainted = False

    def _lose(self, error: PolicyError) -> None:
        log.warning("%s: the vLLM server is lost (%s); looking for it", self.client.url, error)
        self.is_lost, self.lost_since = True, time.monotonic()
        threading.Thread(target=self._look, name="vllm-lost", daemon=True).start()

    def _look(self) -> None:
        """Until the server is back, with the weights of now."""
        while not self._closed.wait(_ASK_S):
            with self._lock:
                try:
                    self._bring_back()
                except (PolicyError, UserError) as error:
                    log.debug("%s: still lost (%s)", self.client.url, error)
                    continue
                if self._behind:
                    continue  # an update is under way: it may go on with these, or with the next
                self.is_lost = self._tainted = False
                self._failures = 0
                self._generation += 1
                log.warning("%s: the vLLM server is back", self.client.url)
                return

    def _bring_back(self) -> None:
        if self._process is not None:
            if self._tainted or not self._process.is_alive() or not self._is_healthy():
                self._start(*self._weights)
            return
        self.client.http.get("/health", timeout_s=_HEALTH_S)
        if not self._tainted:  # after a load that failed it answers nothing before another
            self.client.check_logprobs(self._end_of_turn_id, self._probe_s)
        model, version = self._weights
        if not self._labelled:
            return
        if self._tainted or self.client.weight_version() != str(version):
            if model is None:
                self.client.set_weight_version(version)
            else:
                self._load(model, version)

    def _is_healthy(self) -> bool:
        try:
            self.client.http.get("/health", timeout_s=_HEALTH_S)
        except PolicyError:
            return False
        return True
