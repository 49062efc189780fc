"""Our learner step against TRL's: forward, backward and optimizer on prepared answers, on a CPU.

    python scripts/bench_learner.py [--quick] [--mode lora|full|both] [--trl-python PATH]

One group of 8 answers of 60 tokens to one prompt of 400 (cut from this project's sources, so that
probabilities are those of text), the same model, weights, answers, advantages and threads on every
side; nothing is sampled. Each side is a process of its own; they take their steps in turn, so that
what else the machine does falls on all:

    shared     Trainer.step as a run takes it: the prompt once
    unshared   the same with learner.share_prefixes=false
    trl        compute_loss, backward, clipping and AdamW of TRL's GRPOTrainer (scripts/trl_step.py)
    trl_answers  the same with TRL's head at answers alone, which it does on GPUs and not on CPUs

Mode lora trains adapters of rank 16 on bf16 weights; mode full trains all weights, with fp32
masters and bf16 arithmetic on both sides. The learning rate is tiny: all steps do the same work.
`floor` is the time of the step's matrix products alone, measured at their shapes.

The last line of stdout is one JSON object: medians over rounds of the ratio of answer tokens a
second to TRL's within a round (the lower of the modes), and the ratio of peak memory (maximum
resident set of the process; the higher of the modes).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from selfplay.cache import cache_root
from selfplay.config import TrainerConfig
from selfplay.errors import InfrastructureError, SelfplayError, UserError
from selfplay.learner.trainer import Trainer
from selfplay.modeling.model_files import load_model, resolve_model
from selfplay.policy.transformers import HFTokenizer
from selfplay.types import TrainingSample

ROOT = Path(__file__).resolve().parent.parent
TRL_VERSION = "1.16.0"
GROUP_SIZE, PROMPT_TOKENS, ANSWER_TOKENS = 8, 400, 60
LORA_RANK = 16
LEARNING_RATE = 1e-9
WEIGHTS = {"lora": ("bfloat16", True), "full": ("float32", True)}
"""TRL's weights and whether autocast is on: the fastest that trains as precisely as we do."""

Document = dict[str, Any]


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


class Side:
    """One process that takes steps when told to."""

    def __init__(self, name: str, command: Sequence[str], job: Document) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.last: Document = {}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_WAIT_POLICY": "PASSIVE",
                "OMP_NUM_THREADS": str(job["threads"]),
            },
        )
        self.about = self._ask(json.dumps(job))

    def _ask(self, line: str) -> Document:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            raise InfrastructureError(f"{self.name}: ended with code {self._process.wait()}")
        document: Document = json.loads(answer)
        return document

    def step(self) -> float:
        """Seconds of one step."""
        self.last = self._ask("step")
        self.seconds.append(self.last["seconds"])
        return self.seconds[-1]

    def end(self) -> int:
        """Peak memory in bytes."""
        peak = int(self._ask("end")["max_rss"])
        self._process.wait()
        return peak


def make_job(model_dir: Path, mode: str, threads: int) -> Document:
    """The group: a stretch of our own sources as prompt, others as answers, rewards by turns."""
    tokenizer = HFTokenizer.load(model_dir)
    files = sorted((ROOT / "selfplay").rglob("*.py"))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files[:24])
    ids = list(tokenizer.encode(text))
    assert len(ids) > PROMPT_TOKENS + GROUP_SIZE * 1000
    starts = [PROMPT_TOKENS + 1000 * number for number in range(GROUP_SIZE)]
    weights, autocast = WEIGHTS[mode]
    return {
        "model": str(model_dir),
        "threads": threads,
        "lora_rank": LORA_RANK if mode == "lora" else 0,
        "learning_rate": LEARNING_RATE,
        "group_size": GROUP_SIZE,
        "prompts": [ids[:PROMPT_TOKENS]] * GROUP_SIZE,
        "answers": [ids[start : start + ANSWER_TOKENS] for start in starts],
        "advantages": [1.5 if number % 4 == 0 else -0.5 for number in range(GROUP_SIZE)],
        "weights": weights,
        "autocast": autocast,
        "answers_only": False,
        "shared": True,
    }


def open_own(job: Document) -> tuple[Trainer, list[TrainingSample]]:
    """The trainer, and the group with the trainer's own log-probabilities: all ratios are 1."""
    config = TrainerConfig(
        lora_rank=job["lora_rank"],
        learning_rate=job["learning_rate"],
        warmup_steps=0,
        share_prefixes=job["shared"],
    )
    trainer = Trainer(load_model(Path(job["model"])), config)
    samples = [
        TrainingSample(
            token_ids=(*prompt, *answer),
            loss_mask=(*[0] * len(prompt), *[1] * len(answer)),
            logprobs=(0.0,) * (len(prompt) + len(answer)),
            advantages=(*[0.0] * len(prompt), *[advantage] * len(answer)),
            policy_version=0,
        )
        for prompt, answer, advantage in zip(
            job["prompts"], job["answers"], job["advantages"], strict=True
        )
    ]
    found: dict[int, list[float]] = {}
    with torch.no_grad():
        for batch in trainer.pack(samples):
            logprobs, _ = trainer.score(batch)
            for owner, value in zip(batch.samples.tolist(), logprobs.tolist(), strict=True):
                found.setdefault(owner, []).append(value)
    return trainer, [
        replace(sample, logprobs=(*[0.0] * PROMPT_TOKENS, *found[index]))
        for index, sample in enumerate(samples)
    ]


def work() -> int:
    """Our side's process."""
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    trainer, samples = open_own(job)
    print_line({"torch": torch.__version__})
    for line in sys.stdin:
        if line.strip() == "end":
            break
        began = time.perf_counter()
        stats = trainer.step(samples)
        seconds = time.perf_counter() - began
        print_line({"seconds": seconds, "loss": stats["loss"], "grad_norm": stats["grad_norm"]})
    print_line({"max_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    return 0


def print_line(document: Document) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def floor_seconds(job: Document) -> tuple[float, float]:
    """(seconds, billions of operations) of the matrix products of a shared step, nothing else.

    Each linear layer at all tokens of the row: forward, gradient of the inputs, and with full
    training of the weights (the adapters' own products are left out); the head at answers alone.
    """
    model = load_model(Path(job["model"]))
    rows = PROMPT_TOKENS + GROUP_SIZE * ANSWER_TOKENS
    head = model.get_output_embeddings()
    shapes: dict[tuple[int, int, int], int] = {}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            num = GROUP_SIZE * ANSWER_TOKENS if module is head else rows
            key = (num, module.in_features, module.out_features)
            shapes[key] = shapes.get(key, 0) + 1
    seconds, operations = 0.0, 0.0
    for (num, wide, out), count in shapes.items():
        inputs = torch.randn(num, wide, dtype=torch.bfloat16)
        grad = torch.randn(num, out, dtype=torch.bfloat16)
        weight = torch.randn(out, wide, dtype=torch.bfloat16)
        products: list[Callable[[], torch.Tensor]] = [
            lambda i=inputs, w=weight: i @ w.t(),  # type: ignore[misc]
            lambda g=grad, w=weight: g @ w,  # type: ignore[misc]
        ]
        if not job["lora_rank"]:
            products.append(lambda g=grad, i=inputs: g.t() @ i)  # type: ignore[misc]
        seconds += count * sum(best_of(product) for product in products)
        operations += count * len(products) * 2e-9 * num * wide * out
    return seconds, operations


def best_of(call: Callable[[], torch.Tensor], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def trl_python(given: str | None) -> str:
    """An interpreter with TRL and our torch, transformers and peft; made once below the cache."""
    if given:
        return given
    folder = cache_root() / "bench" / f"trl-{TRL_VERSION}"
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        say(f"installing trl {TRL_VERSION} into {folder} (once; a few minutes)")
        pip = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*pip, "torch", "transformers", "peft", "accelerate", f"trl=={TRL_VERSION}"],
        ):
            if subprocess.run(command, check=False).returncode:
                raise UserError(f"{' '.join(command)} failed; name an interpreter: --trl-python")
        (folder / "complete").touch()
    return str(python)


def run_mode(job: Document, python: str, *, rounds: int) -> Document:
    """All sides by turns; medians, ratios and peaks of one mode."""
    own = [sys.executable, __file__, "--work"]
    trl = [python, str(ROOT / "scripts" / "trl_step.py")]
    sides = {
        "shared": Side("shared", own, job),
        "unshared": Side("unshared", own, {**job, "shared": False}),
        "trl": Side("trl", trl, job),
        "trl_answers": Side("trl_answers", trl, {**job, "answers_only": True}),
    }
    torches = {side.about["torch"] for side in sides.values()}
    if len(torches) > 1:
        raise UserError(f"the sides run different versions of torch: {', '.join(sorted(torches))}")
    for side in sides.values():  # warm
        side.step()
        side.seconds.clear()
    for number in range(rounds):
        taken = {name: side.step() for name, side in sides.items()}
        say(f"round {number}: " + ", ".join(f"{k} {v:.2f} s" for k, v in taken.items()))
    floor_s, floor_gflop = floor_seconds(job)
    result = summarise(sides, {name: side.end() for name, side in sides.items()})
    result["floor_s"] = round(floor_s, 3)
    result["floor_gflops"] = round(floor_gflop / floor_s, 1)
    result["floor_share"] = round(floor_s / statistics.median(sides["shared"].seconds), 3)
    return result


def summarise(sides: Mapping[str, Side], peaks: Mapping[str, int]) -> Document:
    """Seconds, tokens a second, peaks, gradient norms and ratios."""
    trl = sides["trl"].seconds
    result: Document = {}
    for name, side in sides.items():
        median = statistics.median(side.seconds)
        result[name] = {
            "step_s": round(median, 3),
            "answer_tokens_per_s": round(GROUP_SIZE * ANSWER_TOKENS / median, 1),
            "peak_mib": peaks[name] // 2**20,
            "grad_norm": round(side.last["grad_norm"], 5),
        }
    for name, key in (("shared", "vs_trl"), ("unshared", "vs_trl_unshared")):
        own = sides[name].seconds
        answers = sides["trl_answers"].seconds
        result[key] = round(statistics.median(t / o for t, o in zip(trl, own, strict=True)), 3)
        result[f"{key}_answers"] = round(
            statistics.median(t / o for t, o in zip(answers, own, strict=True)), 3
        )
        result["peak_memory_ratio" + key.removeprefix("vs_trl")] = round(
            peaks[name] / peaks["trl"], 3
        )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three rounds, mode lora alone")
    parser.add_argument("--mode", choices=("lora", "full", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trl-python", help="an interpreter with trl; else one is made")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if options.work:
        return work()
    if options.rounds < 1 or options.threads < 1:
        raise UserError("--rounds and --threads must be at least 1")
    torch.set_num_threads(options.threads)
    python = trl_python(options.trl_python)
    model_dir = resolve_model("smollm2-135m", cache_root())
    modes = ["lora"] if options.quick else [options.mode]
    modes = ["lora", "full"] if modes == ["both"] else modes
    found = {}
    for mode in modes:
        say(f"mode {mode}: {options.threads} threads, torch {torch.__version__}")
        job = make_job(model_dir, mode, options.threads)
        found[mode] = run_mode(job, python, rounds=3 if options.quick else options.rounds)
        say(json.dumps(found[mode], indent=1))
    ratios = ("vs_trl", "vs_trl_unshared", "vs_trl_answers", "vs_trl_unshared_answers")
    memory = ("peak_memory_ratio", "peak_memory_ratio_unshared")
    print_line(
        {
            **{key: min(result[key] for result in found.values()) for key in ratios},
            **{key: max(result[key] for result in found.values()) for key in memory},
            "modes": found,
        }
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SelfplayError as error:
        sys.stderr.write(f"bench_learner: {error}\n")
        sys.exit(2 if isinstance(error, UserError) else 3)
