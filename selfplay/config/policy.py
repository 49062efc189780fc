"""What answers: `policy`, and inference servers in `policy.vllm` and `policy.openai`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class VLLMConfig:
    """vLLM servers: at `urls`, else `num_servers` started here by `python` (None: see the docs).

    `args` goes to our servers as it is. A server that failed `max_failures` times in a row ends
    the run.
    """

    urls: list[str] = field(default_factory=list)
    num_servers: int = 1
    python: str | None = None
    args: list[str] = field(default_factory=list)
    max_model_len: int | None = 4096
    dtype: str = "bfloat16"
    enforce_eager: bool = True
    kv_cache_gib: int = 2
    seeds: bool = False
    max_concurrency: int = 256
    max_failures: int = 5
    start_timeout_s: float = 600.0
    request_timeout_s: float = 600.0


@dataclass(kw_only=True)
class OpenAIConfig:
    """A server that speaks OpenAI's chat completions. The key is read from `$api_key_variable`.

    omit         keys that no request has: temperature, top_p, seed, the one of `max_tokens_key`
    rename       {our key: the server's}
    body         added to each request, over what we send: {reasoning_effort: low}
    system_role  system, developer, or user: put before the first message of the user
    prices       dollars for a million tokens (None: not known)
    """

    url: str = "http://127.0.0.1:8000/v1"
    api_key_variable: str = "OPENAI_API_KEY"
    max_concurrency: int = 16
    requests_per_minute: float | None = None
    max_retries: int = 6
    timeout_s: float = 300.0
    max_tokens_key: str = "max_tokens"
    seeds: bool = True
    omit: list[str] = field(default_factory=list)
    rename: dict[str, str] = field(default_factory=dict)
    system_role: str = "system"
    body: dict[str, Any] = field(default_factory=dict)
    input_price: float | None = None
    output_price: float | None = None


@dataclass(kw_only=True)
class PolicyConfig:
    """Which weights answer, and how they are sampled (temperature 1, top-p 1 while training).

    `engine`: transformers, vllm, openai or scripted. `device`: where the engine transformers runs
    (auto: on a GPU where there is one, cpu, cuda).
    """

    engine: str = "transformers"
    device: str = "auto"
    model: str = "smollm2-135m"
    adapter: str | None = "default"
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 80
    batch_tokens: int = 24_000
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    openai: OpenAIConfig = field(default_factory=OpenAIConfig)
