"""Program: one part of `gpu_check.py`, in a process of its own.

    python gpu_check_parts.py NAME ANSWER.json [WORDS]

writes what it finds to ANSWER.json after each figure, so that a part that is cut off, or breaks
half-way, leaves what it had.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
SHAPES: dict[str, Json] = {
    "1.5b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 22,
             "num_attention_heads": 16, "num_key_value_heads": 8},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
           "num_attention_heads": 24, "num_key_value_heads": 8},
    "7b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 30,
           "num_attention_heads": 32, "num_key_value_heads": 8},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
}  # fmt: skip
"""Llama-like models with random weights, for speed alone; the tiny one is for rehearsals."""
VOCABULARY = 49152


class Answer:
    """The file that a part leaves; every `add` puts the whole of it on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: Json = {}

    def add(self, name: str, make: Callable[[], Any]) -> Any:
        """Measure one figure; what it raises is its result, and None is returned."""
        began = time.monotonic()
        value: Any = None
        try:
            value = make()
            self.found[name] = value
        except Exception as error:  # one figure's failure never costs the next one
            self.found[name] = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
        free_memory()
        sys.stderr.write(f"{name}: {time.monotonic() - began:.1f} s: {self.found[name]}\n")
        self.write()
        return value

    def write(self) -> None:
        partial = self.path.with_suffix(".tmp")
        partial.write_text(json.dumps(self.found, default=str), encoding="utf-8")
        partial.replace(self.path)


def free_memory() -> None:
    """Give back what the last figure left on the GPU, its models most of all."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def sandbox(answer: Answer) -> None:
    """The first backend that works here, and why others do not. A package that is missing ends the
    check here, before it has taken any of the GPU's time."""
    import selfplay.commands.train
    from selfplay.sandbox.select import sandbox_report

    assert selfplay.commands.train.HELP

    answer.found = {"sandbox": "", "sandboxes": {}}
    for name, works, detail in sandbox_report():
        answer.found["sandboxes"][name] = detail[:300]
        if works:
            answer.found["sandbox"] = name
            break
    answer.write()


def model(answer: Answer, name: str) -> None:
    """Unpacks the model, and tells which torch will compute with it."""
    import torch
    import transformers

    from selfplay.cache import cache_root
    from selfplay.modeling.model_files import resolve_model

    answer.found = {"torch": torch.__version__, "transformers": transformers.__version__}
    answer.found["cuda"] = torch.cuda.is_available()
    answer.found["model"] = str(resolve_model(name, cache_root()))
    answer.write()


def compare(answer: Answer, device: str) -> None:
    """Logits, log-probabilities and gradients against the CPU path, LoRA and full."""
    from selfplay.learner.measures.device_check import compare

    answer.found = compare(Path(os.environ["GPU_CHECK_MODEL"]), device=device)
    answer.write()


def throughput(answer: Answer, device: str) -> None:
    """What the device can do, then what learner and sampler make of it, small models first."""
    from selfplay.learner.measures.device_check import device_rates, learner_rate, sampling_rate

    rates = answer.add("rates", lambda: device_rates(device)) or {}
    flops, copied = rates.get("matmul_flops"), rates.get("copy_bytes")
    path = Path(os.environ["GPU_CHECK_MODEL"])
    cpu = device == "cpu"
    small: Json = {"row_tokens": 1024, "num_rows": 1, "seconds": 0.01} if cpu else {"seconds": 3.0}

    def learn(name: str, which: Any, **more: Any) -> None:
        options = {"device": device, "matmul_flops": flops, **small, **more}
        answer.add(f"learner_{name}", lambda: learner_rate(which, **options))

    def sample(name: str, num_prompts: int, num_samples: int) -> None:
        answer.add(
            f"sampling_{name}",
            lambda: sampling_rate(
                path, num_prompts=num_prompts, num_samples=num_samples, copy_bytes=copied,
                device=device, **({"new_tokens": 4, "repeats": 1} if cpu else {}),
            ),
        )  # fmt: skip

    learn("packed_model_lora", path)
    learn("packed_model_full", path, lora_rank=0)
    sample("16x8", *((2, 2) if cpu else (16, 8)))
    if not cpu:
        sample("112x8", 112, 8)
    for name in ("tiny",) if cpu else ("1.5b",):
        learn(f"{name}_lora", random_model(name))
        learn(f"{name}_full", random_model(name), lora_rank=0)
    if not cpu:
        learn("3b_full", random_model("3b"), lora_rank=0, row_tokens=16384)
        learn("7b_lora_checkpointing", random_model("7b"), checkpointing=True, row_tokens=16384)
        learn("packed_model_full_compiled", path, lora_rank=0, compiled=True)
        learn("1.5b_full_compiled", random_model("1.5b"), lora_rank=0, compiled=True)


def vllm(answer: Answer, device: str, python: str) -> None:
    """A server as a run starts it, with graphs on a GPU: rates, an update, and the mismatch with
    the trainer. The GPU is shared, as where one is all there is."""
    from bench_rollout import measure

    from selfplay.commands.placing import MEMORY_WORD
    from selfplay.config import VLLMConfig
    from selfplay.placement import SHARED_SERVER

    cpu = device == "cpu"
    path = Path(os.environ["GPU_CHECK_MODEL"])
    config = VLLMConfig(
        python=python, max_model_len=2048, enforce_eager=cpu, max_concurrency=512,
        args=[] if cpu else [MEMORY_WORD, str(SHARED_SERVER), "--kv-cache-memory-bytes", "8G"],
    )  # fmt: skip
    loads = (4,) if cpu else (32, 512)
    answer.add("server", lambda: measure(config, path, quick=True, loads=loads, device=device))


def random_model(name: str) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=32768, **SHAPES[name])


PARTS: dict[str, Callable[..., None]] = {
    "sandbox": sandbox, "model": model, "compare": compare, "throughput": throughput,
    "vllm": vllm,
}  # fmt: skip


def main(name: str, path: str, *words: str) -> int:
    PARTS[name](Answer(Path(path)), *words)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
