"""What answers: `policy`, and inference servers in `policy.vllm` and `policy.openai`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selfplay.config.checks import above, at_least, one_of
from selfplay.errors import UserError


@dataclass(frozen=True, kw_only=True)
class VLLMConfig:
    """vLLM servers: at `urls`, else started here."""

    urls: list[str] = field(default_factory=list)
    """Servers that run already, or soon will; empty: they are started and stopped with the run."""
    num_servers: int = 1
    """Servers that are started."""
    python: str | None = None
    """Interpreter of the environment that has vLLM; null: $SELFPLAY_VLLM_PYTHON, or ours."""
    gpus: list[str] = field(default_factory=list)
    """CUDA_VISIBLE_DEVICES of each server that is started, such as "2,3"; empty: by `split`."""
    args: list[str] = field(default_factory=list)
    """Further arguments of the servers that are started, as they are."""
    max_model_len: int | None = 4096
    """Longest sequence, in tokens; null: the model's."""
    dtype: str = "bfloat16"
    """Type of the weights."""
    enforce_eager: bool | None = None
    """Start at once, without compiled graphs, which answer faster; null: on a CPU alone."""
    kv_cache_gib: int = 2
    """Memory for keys and values on a CPU, in GiB."""
    publish: str = "auto"
    """How new weights reach the servers: adapter (the LoRA adapter alone), weights (a whole model
    over the disk), or auto: adapter where one is trained, the servers are started here on GPUs, and
    curriculum.max_fresh_groups is null: with an adapter vLLM cannot tell how likely an answer is,
    and on a CPU it samples ten times slower."""
    seeds: bool = False
    """Send a seed with each request: repeatable, but slower."""
    max_concurrency: int = 256
    """Requests under way at each server."""
    max_failures: int = 5
    """Failures on end of one server that end the run."""
    start_timeout_s: float = 600.0
    """Seconds until a server must answer, at first and where all are lost."""
    request_timeout_s: float = 600.0
    """Seconds of one request, and of one step of the engines that are started."""

    def __post_init__(self) -> None:
        at_least(self, "policy.vllm.", 1, "num_servers", "max_concurrency")
        one_of(self, "policy.vllm.", "publish", ("auto", "adapter", "weights"))


@dataclass(frozen=True, kw_only=True)
class OpenAIConfig:
    """A server that speaks OpenAI's chat completions."""

    url: str = "http://127.0.0.1:8000/v1"
    """Its base URL; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY hold for it."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key; it may be unset."""
    max_concurrency: int = 16
    """Requests under way."""
    requests_per_minute: float | None = None
    """Bound on requests; null: none."""
    max_retries: int = 6
    """Tries again after a refusal for the moment or a lost connection."""
    timeout_s: float = 300.0
    """Seconds of one request."""
    max_tokens_key: str = "max_tokens"
    """Name of the bound on an answer's tokens in the request."""
    seeds: bool = True
    """Send a seed with each request."""
    omit: list[str] = field(default_factory=list)
    """Keys that no request has: temperature, top_p, seed, the one of `max_tokens_key`."""
    rename: dict[str, str] = field(default_factory=dict)
    """{our key: the server's}."""
    system_role: str = "system"
    """system, developer, or user: put before the first message of the user."""
    body: dict[str, Any] = field(default_factory=dict)
    """Added to each request, over what we send: {reasoning_effort: low}."""
    input_price: float | None = None
    """Dollars for a million tokens of prompts; null: not known."""
    output_price: float | None = None
    """Dollars for a million tokens of answers; null: not known."""

    def __post_init__(self) -> None:
        at_least(self, "policy.openai.", 1, "max_concurrency")
        above(self, "policy.openai.", 0, "requests_per_minute")
        known = {"model", "messages", self.max_tokens_key, "temperature", "top_p", "seed"}
        for name, keys in (("omit", self.omit), ("rename", self.rename)):
            for key in sorted({*keys} - known):
                raise UserError(
                    f"policy.openai.{name}: no request has a key {key!r}; one of {sorted(known)}"
                )
        one_of(self, "policy.openai.", "system_role", ("system", "developer", "user"))


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Which weights answer, and how they are sampled (temperature 1, top-p 1 while training)."""

    engine: str = "transformers"
    """transformers, vllm, openai or scripted."""
    device: str = "auto"
    """Where the engine transformers runs: auto (a GPU where there is one), cpu or cuda."""
    model: str = "smollm2-135m"
    """A name that is known, a model directory, or the name that a server knows."""
    adapter: str | None = "default"
    """LoRA adapter: default (ships with the package), a directory, or null for none."""
    temperature: float = 1.0
    """Of the samples."""
    top_p: float = 1.0
    """Part of the probability that is sampled from."""
    max_new_tokens: int = 80
    """Longest answer of the compact scaffold."""
    batch_tokens: int | None = None
    """Columns of keys and values that the engine transformers holds; null: by the device."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    """vLLM servers."""
    openai: OpenAIConfig = field(default_factory=OpenAIConfig)
    """A server with OpenAI's chat completions."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How GPUs are shared between learner and vLLM servers; null: derived from what is there."""

    learner: int | None = None
    """GPUs of the learner, one process each."""
    servers: int | None = None
    """vLLM servers that are started, where there are GPUs."""
    gpus_per_server: int = 1
    """GPUs of each server (tensor parallel)."""
    min_gpus: int = 0
    """Refuse to start on a machine with fewer."""

    def __post_init__(self) -> None:
        at_least(self, "split.", 1, "learner", "servers", "gpus_per_server")
        at_least(self, "split.", 0, "min_gpus")
