"""New weights to a vLLM server: the adapter alone against a whole model over the disk.

    python scripts/bench_publish.py [--times 3] [--requests 32] [--kv-cache-gib 1] [--url URL]

The default policy with its LoRA adapter, changed a little before each time; by turns one server
for each way, or one that runs already for both (`--url`; docs/learner_scale.md says how it is
started). Seconds from the trained weights to the server that samples from them, tokens/s of the
requests, of 64 tokens each, and the sampled tokens scored by the model in this process. The last
line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from selfplay.config import LearnerConfig, PolicyConfig, VLLMConfig
from selfplay.curriculum.compact import trajectory
from selfplay.learner.lora import lora_layers
from selfplay.learner.measures.mismatch import measure_mismatch
from selfplay.learner.vllm_learner import ServedLearner, open_served_learner
from selfplay.policy.vllm.policy import VLLMPolicy
from selfplay.sampling import SampleRequest
from selfplay.types import Trajectory

NUM_TOKENS = 64


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


@torch.no_grad()
def disturb(model: Any, seed: int) -> None:
    """What a step does to an adapter, at random: a hundredth of each factor's spread."""
    generator = torch.Generator().manual_seed(seed)
    for _, layer in lora_layers(model):
        for factor in (layer.lora_A, layer.lora_B):
            factor.add_(torch.randn(factor.shape, generator=generator) * factor.std() * 0.01)
        layer.merge()


def sample(policy: VLLMPolicy, salt: int, num: int) -> tuple[list[Trajectory], float]:
    """Sampled answers and tokens/s."""
    prompts = [
        policy.tokenizer.render("You repair code.", f"Run {salt}, file {n}.\n" + "x += 1\n" * 40)
        for n in range(num)
    ]
    requests = [SampleRequest(prompt_ids=p, max_new_tokens=NUM_TOKENS) for p in prompts]
    began = time.perf_counter()
    answers = [answer for (answer,) in policy.sample(requests)]
    took = time.perf_counter() - began
    records = [
        trajectory(request, answer) for request, answer in zip(requests, answers, strict=True)
    ]
    return records, sum(len(answer.token_ids) for answer in answers) / took


def measure(served: ServedLearner, times: int, num: int) -> dict[str, Any]:
    """Seconds of each publishing, and what the server answers after each."""
    inner = served._learner
    row: dict[str, Any] = {"seconds": [], "tokens_per_s": [], "mismatch": []}
    for version in range(1, times + 1):
        disturb(inner.trainer.model, version)
        inner.policy.version = version
        row["seconds"].append(round(served._publish(), 3))
        records, rate = sample(served.policy, version, num)
        if {record.policy_version for record in records} != {version}:
            raise RuntimeError(f"answers of other versions than {version}")
        row["tokens_per_s"].append(round(rate, 1))
        row["mismatch"].append(asdict(measure_mismatch(inner.trainer.model, records)))
        say(
            f"version {version}: {row['seconds'][-1]} s, {rate:.0f} tokens/s, {row['mismatch'][-1]}"
        )
    return row


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--url")
    parser.add_argument("--kv-cache-gib", type=int, default=1)
    chosen = parser.parse_args(arguments)
    vllm = VLLMConfig(
        urls=[chosen.url] if chosen.url else [],
        max_model_len=1024,
        kv_cache_gib=chosen.kv_cache_gib,
        start_timeout_s=3000,
    )
    found: dict[str, Any] = {}
    for way in ("adapter", "weights"):
        policy = PolicyConfig(engine="vllm", vllm=replace(vllm, publish=way))
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            served = open_served_learner(policy, LearnerConfig(), 0, Path(folder) / "served")
            say(f"{way}: open after {time.perf_counter() - began:.0f} s")
            try:
                found[way] = measure(served, chosen.times, chosen.requests)
            finally:
                served.policy.close()
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
