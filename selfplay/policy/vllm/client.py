"""One vLLM server over HTTP: token ids in, token ids out, and the administration of its weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from selfplay.errors import PolicyError, UserError
from selfplay.policy.http import Garbled, JsonClient, Refused, Unreachable
from selfplay.sampling import SampleRequest, ScoreRequest
from selfplay.types import VersionSpan

SUPPORTED = SpecifierSet(">=0.32,<0.33", prereleases=True)
"""vLLM releases whose generate endpoint and weight administration are known to be as used here."""

_ADMIN_S = 600.0
_QUICK_S = 60.0
_MAX_SEED = 2**31
_SPREAD = 0x9E3779B1
"""vLLM gives sample i the seed `seed + i`: seeds that follow each other must not share samples."""


class Interrupted(Unreachable):
    """The server cut an answer short (an abort); to be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One sampled continuation. `spans` say which weights made which tokens."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    spans: tuple[VersionSpan, ...]


class VLLMClient:
    """Calls of one server. Thread-safe. Raises `Unreachable`, `Refused`, `PolicyError`."""

    def __init__(
        self,
        url: str,
        *,
        num_connections: int,
        timeout_s: float,
        seeds: bool = False,
        token: str = "",
    ) -> None:
        self._seeds = seeds
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = JsonClient(
            url, num_connections=num_connections, timeout_s=timeout_s, headers=headers
        )
        self.url = self.http.url

    def check_version(self) -> str:
        """The server's version. `UserError` when it is not a supported vLLM."""
        try:
            text = str(self.http.get("/version", timeout_s=_QUICK_S)["version"])
            version = Version(text)
        except Unreachable:
            raise
        except (Refused, KeyError, TypeError, InvalidVersion) as error:
            if isinstance(error, Refused) and error.status == 401:
                raise UserError(
                    f"{self.url}: wants a token; set SELFPLAY_VLLM_TOKEN to the server's own"
                ) from error
            raise UserError(f"{self.url}: not a vLLM server ({error}); mend policy.vllm") from error
        if version not in SUPPORTED:
            raise UserError(
                f"{self.url}: vLLM {text} is not supported; install a version {SUPPORTED}"
            )
        return text

    def max_model_len(self) -> int:
        """Longest prompt plus answer, in tokens."""
        (model, *_) = self.http.get("/v1/models", timeout_s=_QUICK_S)["data"]
        return int(model["max_model_len"])

    def check_logprobs(self, token_id: int, timeout_s: float | None = None) -> None:
        """`UserError` unless log-probabilities are those of the sampling distribution.

        A token that is the only one allowed has log-probability 0 there. `Unreachable` from an
        engine that does not answer, whatever `/health` says (vllm-project/vllm#16259).
        """
        probe = SampleRequest(prompt_ids=(token_id,))
        body = request_body(probe, max_tokens=1, end_of_turn_id=token_id)
        body["sampling_params"]["allowed_token_ids"] = [token_id]
        try:
            document = self.http.post("/inference/v1/generate", body, timeout_s=timeout_s)
        except Refused as error:
            if error.status in (403, 404):
                raise UserError(
                    f"{self.url}: does not take token ids; start it with --enable-scale-out"
                ) from error
            raise
        (answer,) = _read(document, 1)
        if abs(answer.logprobs[0]) > 1e-3:
            raise UserError(
                f"{self.url}: reports log-probabilities of another distribution than it samples "
                "from; start it with --logprobs-mode processed_logprobs"
            )

    def generate(
        self,
        request: SampleRequest,
        *,
        max_tokens: int,
        end_of_turn_id: int,
        adapter: str | None = None,
    ) -> list[Answer]:
        """`request.num_samples` answers; a sampled end-of-turn token is part of the answer.

        `adapter`: the name that it was loaded under; None: the model itself.
        """
        body = request_body(request, max_tokens=max_tokens, end_of_turn_id=end_of_turn_id)
        if adapter is not None:
            body["model"] = adapter
        if self._seeds:
            body["sampling_params"]["seed"] = request.seed * _SPREAD % _MAX_SEED
        return _read(self.http.post("/inference/v1/generate", body), request.num_samples)

    def score(self, request: ScoreRequest) -> tuple[float, ...]:
        """Log-probabilities of the answer's tokens at temperature 1: those of a prompt's end.

        vLLM samples at least one token after a prompt, which is thrown away.
        """
        ids = (*request.prompt_ids, *request.answer_ids)
        whole = SampleRequest(prompt_ids=ids)
        body = request_body(whole, max_tokens=1, end_of_turn_id=ids[-1])
        body["sampling_params"]["prompt_logprobs"] = 0
        document = self.http.post("/inference/v1/generate", body)
        return _scores(document, request.answer_ids)

    def weight_version(self) -> str | None:
        """The label of the weights; None where the administration routes are closed."""
        try:
            return str(self.http.get("/weight_info", timeout_s=_QUICK_S)["weight_version"])
        except Refused as error:
            if error.status in (401, 403, 404):
                return None
            raise

    def set_weight_version(self, version: int) -> None:
        """Label the weights that the server has; answers carry it from now on."""
        self._admin("/update_weight_version", {"new_version": str(version)})

    def pause(self) -> None:
        """Freeze all requests where they are."""
        self._admin("/pause?mode=keep")

    def resume(self) -> None:
        """Let frozen requests go on."""
        self._admin("/resume")

    def abort(self) -> None:
        """Cut off every request; whoever waits for one is told so (`Interrupted`)."""
        self._admin("/abort_requests", {"request_ids": []})

    def load_weights(self, directory: Path) -> None:
        """Load a model directory into the running engine (paused), and forget what was cached.

        Frozen requests are computed anew from their tokens, so that everything that follows is
        the new weights' alone.
        """
        kwargs = {"weights_path": str(directory)}
        self._admin("/collective_rpc", {"method": "reload_weights", "kwargs": kwargs})
        done = self._admin("/reset_prefix_cache?reset_running_requests=true")
        if not (isinstance(done, dict) and done.get("success")):
            raise PolicyError(f"{self.url}: the prefix cache could not be reset")

    def served(self) -> dict[str, str]:
        """What a request can ask for by name: the model and loaded adapters, with their paths."""
        cards = self.http.get("/v1/models", timeout_s=_QUICK_S)["data"]
        return {str(card["id"]): str(card.get("root") or "") for card in cards}

    def load_adapter(self, name: str, directory: Path) -> None:
        """Load a peft directory beside the model, under a name that was never used there.

        Never in place: vLLM keeps a request's adapter by name and path, so that what is loaded
        anew under an old name meets what was cached for the old one (vLLM issue 42125), and
        requests under way change their weights without saying so.
        """
        body = {"lora_name": name, "lora_path": str(directory)}
        try:
            with contextlib.suppress(Garbled):  # it answers in words
                self.http.post("/v1/load_lora_adapter", body, timeout_s=_ADMIN_S)
        except Refused as error:
            if error.status in (401, 403) or (error.status == 404 and error.said == "Not Found"):
                raise UserError(
                    f"{self.url}: takes no adapters; start it with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or set policy.vllm.publish=weights"
                ) from error
            raise
        if name not in self.served():
            raise PolicyError(f"{self.url}: does not list the adapter {name} that it loaded")

    def unload_adapter(self, name: str) -> None:
        """Forget a name. Requests under way keep their adapter to their end."""
        with contextlib.suppress(Garbled):
            self.http.post("/v1/unload_lora_adapter", {"lora_name": name}, timeout_s=_QUICK_S)

    def _admin(self, path: str, body: Any = None) -> Any:
        try:
            return self.http.post(path, body, timeout_s=_ADMIN_S)
        except Refused as error:
            if error.status in (401, 403, 404):
                raise UserError(
                    f"{self.url}: weights cannot be changed; start it with VLLM_SERVER_DEV_MODE=1 "
                    "(scripts/launch_vllm.py does, behind a token)"
                ) from error
            raise


def request_body(request: SampleRequest, *, max_tokens: int, end_of_turn_id: int) -> dict[str, Any]:
    """The request without its seed; nothing is left to the server's own defaults."""
    return {
        "token_ids": list(request.prompt_ids),
        "sampling_params": {
            "n": request.num_samples,
            "max_tokens": max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "logprobs": 0,
            "ignore_eos": True,
            "stop_token_ids": [end_of_turn_id],
            "detokenize": False,
        },
    }


def _read(document: Any, num_samples: int) -> list[Answer]:
    """The answers of a document, in order.

    Raises `Garbled` where it is none, `PolicyError` when it is not as it should be.
    """
    try:
        choices = sorted(document["choices"], key=lambda choice: int(choice["index"]))
        answers = [_answer(choice) for choice in choices]
    except (KeyError, TypeError) as error:
        raise Garbled(f"vLLM gave an answer of another form: {error!r}") from error
    except ValueError as error:
        raise PolicyError(f"vLLM gave an answer of another form: {error!r}") from error
    if len(answers) != num_samples:
        raise PolicyError(f"vLLM gave {len(answers)} answers instead of {num_samples}")
    return answers


def _scores(document: Any, answer_ids: Sequence[int]) -> tuple[float, ...]:
    """Log-probabilities of a prompt's last tokens; errors as `_read`."""
    try:
        told = document["prompt_logprobs"][-len(answer_ids) :]
        scores = tuple(
            float(entry[str(token)]["logprob"])
            for entry, token in zip(told, answer_ids, strict=True)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"vLLM gave an answer of another form: {error!r}") from error
    if not all(map(math.isfinite, scores)):
        raise PolicyError("vLLM's log-probabilities are not finite; are the weights sound?")
    return scores


def _answer(choice: Any) -> Answer:
    reason = choice["finish_reason"]
    if reason not in ("stop", "length"):
        raise Interrupted(f"vLLM ended an answer with {reason!r}")
    token_ids = tuple(int(token) for token in choice["token_ids"])
    content = choice["logprobs"]["content"]
    if tuple(int(entry["token_id"]) for entry in content) != token_ids:
        raise ValueError("log-probabilities of other tokens")
    logprobs = tuple(float(entry["logprob"]) for entry in content)
    if not all(map(math.isfinite, logprobs)):
        raise ValueError("log-probabilities are not finite; are the weights sound?")
    spans = tuple(
        VersionSpan(version=_version(span["version"]), start=span["start"], end=span["end"])
        for span in choice.get("weight_versions") or ()
    )
    return Answer(token_ids=token_ids, logprobs=logprobs, finish_reason=reason, spans=spans)


def _version(label: str) -> int | None:
    """The number that we gave the weights; None for a label that is not ours."""
    return int(label) if label.isdecimal() else None
