"""What orchestration costs: our policy against a bare load generator on one vLLM server.

    python scripts/bench_rollout.py [--quick] [--model NAME] [--url URL] [--args="--flag value"]
                                    [--graphs] [--device cuda] [--requests 32 512]

    throughput   32 (--requests) concurrent single-turn requests, by turns through a generator that
                 posts the same bodies and reads nothing but the tokens' number, and through the
                 policy
    update       new weights while 32 requests run: seconds from the directory on disk to the
                 engine that samples from it; none of the requests may be lost
    mismatch     the sampled tokens scored by the trainer's forward pass on the same weights

The last line of stdout is one JSON object: tokens/s of generator and policy and the policy's share,
seconds of an update, and KL(engine, trainer) in nats a token. `--graphs`: compiled graphs, as on a
GPU. `--device`: of the trainer's pass.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import urllib3

from selfplay.cache import cache_root
from selfplay.config import VLLMConfig
from selfplay.curriculum.compact import trajectory
from selfplay.errors import SelfplayError, UserError
from selfplay.learner.measures.mismatch import Mismatch, measure_mismatch
from selfplay.learner.publish import save_hf
from selfplay.modeling.model_files import load_model, resolve_model
from selfplay.policy.transformers import HFTokenizer
from selfplay.policy.vllm.client import request_body
from selfplay.policy.vllm.policy import VLLMPolicy, open_vllm
from selfplay.sampling import SampleRequest
from selfplay.types import Completion

NUM_REQUESTS = 32


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def make_requests(
    tokenizer: HFTokenizer, max_new_tokens: int, salt: int, num: int = NUM_REQUESTS
) -> list[SampleRequest]:
    """Prompts of about 300 tokens that share no prefix beyond the system message."""
    return [
        SampleRequest(
            prompt_ids=tokenizer.render(
                "You repair code.",
                f"Run {salt}, file {number}.\n" + "def f(x):\n    return x + 1\n\n" * 20,
            ),
            max_new_tokens=max_new_tokens,
        )
        for number in range(num)
    ]


def bare_rate(url: str, requests: Sequence[SampleRequest], end_of_turn_id: int) -> float:
    """Tokens a second of a generator that does nothing else."""
    bodies = [
        json.dumps(
            request_body(r, max_tokens=r.max_new_tokens, end_of_turn_id=end_of_turn_id)
        ).encode()
        for r in requests
    ]
    pool = urllib3.PoolManager(maxsize=len(requests))

    def post(body: bytes) -> int:
        answer = pool.request(
            "POST",
            f"{url}/inference/v1/generate",
            body=body,
            headers={"Content-Type": "application/json"},
            timeout=600,
        )
        assert answer.status == 200, answer.data[:500]
        return int(answer.json()["usage"]["completion_tokens"])

    with ThreadPoolExecutor(len(requests)) as threads:
        began = time.perf_counter()
        num = sum(threads.map(post, bodies))
        return num / (time.perf_counter() - began)


def policy_rate(
    policy: VLLMPolicy, requests: Sequence[SampleRequest]
) -> tuple[float, list[list[Completion]]]:
    """Tokens a second through the policy, and the answers."""
    began = time.perf_counter()
    answers = policy.sample(requests)
    seconds = time.perf_counter() - began
    return sum(len(c.token_ids) for group in answers for c in group) / seconds, answers


def throughput(
    policy: VLLMPolicy,
    tokenizer: HFTokenizer,
    *,
    num_rounds: int,
    max_new_tokens: int,
    num_requests: int = NUM_REQUESTS,
) -> dict[str, float]:
    """Medians over rounds: tokens/s of the policy and of the generator (the mean of before and
    after, so that what else the machine does falls on both), and the one over the other."""
    url, end = policy.urls[0], tokenizer.end_of_turn_id
    salts = itertools.count()

    def requests() -> list[SampleRequest]:
        return make_requests(tokenizer, max_new_tokens, next(salts), num_requests)

    bare_rate(url, make_requests(tokenizer, 8, -1, num_requests), end)  # warm
    rows = []
    before = bare_rate(url, requests(), end)
    for number in range(num_rounds):
        ours, _ = policy_rate(policy, requests())
        after = bare_rate(url, requests(), end)
        bare = (before + after) / 2
        rows.append((bare, ours, ours / bare))
        say(
            f"round {number}: bare {before:.0f}, policy {ours:.0f}, bare {after:.0f} tokens/s: "
            f"share {ours / bare:.3f}"
        )
        before = after
    bare, ours, share = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "bare_tokens_per_s": round(bare, 1),
        "tokens_per_s": round(ours, 1),
        "engine_fraction": round(share, 3),
    }


def update_under_load(
    policy: VLLMPolicy, tokenizer: HFTokenizer, model_dir: Path, num_updates: int
) -> float:
    """Median seconds of an update; the weights alternate, and every request is answered."""
    seconds = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as tmp:
        model = load_model(model_dir)
        with torch.no_grad():
            model.model.norm.weight.mul_(1.1)
        began = time.perf_counter()
        save_hf(model, model_dir, Path(tmp) / "other")
        say(f"writing the model directory: {time.perf_counter() - began:.2f} s")
        for number in range(num_updates):
            requests = make_requests(tokenizer, 96, 1000 + number)
            with ThreadPoolExecutor(1) as thread:
                running = thread.submit(policy.sample, requests)
                time.sleep(1.5)
                began = time.perf_counter()
                policy.update_weights(model_dir if number % 2 else Path(tmp) / "other")
                seconds.append(time.perf_counter() - began)
                answers = running.result()
            crossed = sum(bool(c.spans) for group in answers for c in group)
            assert len(answers) == NUM_REQUESTS and all(c.token_ids for g in answers for c in g)
            say(f"update {number}: {seconds[-1]:.2f} s, {crossed} of {len(answers)} under way")
        policy.update_weights(model_dir)
    return statistics.median(seconds)


def mismatch(
    policy: VLLMPolicy,
    tokenizer: HFTokenizer,
    model_dir: Path,
    max_new_tokens: int,
    device: str = "cpu",
) -> Mismatch:
    """Engine and trainer on the same tokens and weights."""
    requests = make_requests(tokenizer, max_new_tokens, 5000)
    answers = policy.sample(requests)
    records = [
        trajectory(request, completion)
        for request, group in zip(requests, answers, strict=True)
        for completion in group
    ]
    return measure_mismatch(load_model(model_dir, device=device), records)


def measure(
    config: VLLMConfig,
    model_dir: Path,
    *,
    quick: bool = False,
    loads: Sequence[int] = (NUM_REQUESTS,),
    device: str = "cpu",
) -> dict[str, Any]:
    """All of it on one server, with the seconds that its start took; rates for each load."""
    tokenizer = HFTokenizer.load(model_dir)
    rounds, length = (4, 48) if quick else (8, 128)
    began = time.perf_counter()
    policy = open_vllm(config, model_dir, tokenizer)
    start_s = time.perf_counter() - began
    try:
        rates = {
            f"requests_{load}": throughput(
                policy, tokenizer, num_rounds=rounds, max_new_tokens=length, num_requests=load
            )
            for load in loads
        }
        update_s = update_under_load(policy, tokenizer, model_dir, 2 if quick else 4)
        found = mismatch(policy, tokenizer, model_dir, length, device)
    finally:
        policy.close()
    say(
        f"mismatch over {found.num_tokens} tokens: KL {found.kl:.5f}, mean |log ratio| "
        f"{found.mean_abs:.4f}, maximum {found.max_abs:.3f}"
    )
    return {
        "start_s": round(start_s, 1),
        **rates,
        "weight_update_s": round(update_s, 3),
        "mismatch_kl": round(found.kl, 6),
        "mismatch_max": round(found.max_abs, 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--model", default="smollm2-135m", help="as policy.model")
    parser.add_argument("--url", help="a server that runs, with vLLM's administration routes")
    parser.add_argument("--args", default="", help="further words for the server that is started")
    parser.add_argument("--graphs", action="store_true", help="policy.vllm.enforce_eager=false")
    parser.add_argument("--device", default="cpu", help="of the trainer's pass: cpu or cuda")
    parser.add_argument("--requests", type=int, nargs="+", default=[NUM_REQUESTS], help="at once")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    config = VLLMConfig(
        urls=[options.url] if options.url else [],
        args=options.args.split(),
        enforce_eager=not options.graphs,
        max_model_len=2048,
        start_timeout_s=900,
        max_concurrency=max(*options.requests, VLLMConfig().max_concurrency),
    )
    document = measure(
        config,
        resolve_model(options.model, cache_root()),
        quick=options.quick,
        loads=options.requests,
        device=options.device,
    )
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SelfplayError as error:
        sys.stderr.write(f"bench_rollout: {error}\n")
        sys.exit(2 if isinstance(error, UserError) else 3)
