"""What a device does with our code: is it right, and how near to what the device can do.

    compare         logits, log-probabilities and gradients against the CPU on the same weights
    device_rates    the two ceilings: bf16 matrix products, and memory bandwidth
    learner_rate    tokens and floating-point operations a second of a training step
    sampling_rate   sampled tokens a second, and bytes that had to be read for them

Every function runs on a CPU too and returns plain numbers; none of them is used by a run.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from selfplay.config import TrainerConfig
from selfplay.learner.lora import lora_layers
from selfplay.learner.loss import LossStats, denominator, policy_loss
from selfplay.learner.memory import ModelShape, StepShape, check_model, estimate
from selfplay.learner.trainer import Trainer
from selfplay.modeling.devices import choose_device
from selfplay.modeling.model_files import load_model
from selfplay.policy.transformers import HFTokenizer, TransformersPolicy
from selfplay.sampling import SampleRequest
from selfplay.types import TrainingSample

Json = dict[str, Any]


def compare(model_dir: Path, out: Path | None = None, *, device: str = "auto") -> Json:
    """How far `device` is from the CPU on the same weights and samples; also written to `out`.

    For an adapter and for full training, in the weights' bf16: `..._error` is the norm of the
    difference over the norm of the CPU's result, which two correct bf16 paths keep near 1e-2;
    `..._floor` is the same for the CPU's bf16 against the CPU's fp32, what bf16 alone costs.
    """
    target = choose_device(device, "device")
    result: Json = {"device": describe(target)}
    for name, rank in (("lora", 8), ("full", 0)):
        exact = _scores_and_gradients(model_dir, rank, torch.device("cpu"), torch.float32)
        cpu = _scores_and_gradients(model_dir, rank, torch.device("cpu"), torch.bfloat16)
        there = _scores_and_gradients(model_dir, rank, target, torch.bfloat16)
        result[name] = {}
        for key in exact:
            result[name][f"{key}_error"] = relative_error(there[key], cpu[key])
            result[name][f"{key}_error_to_fp32"] = relative_error(there[key], exact[key])
            result[name][f"{key}_floor"] = relative_error(cpu[key], exact[key])
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def device_rates(device: str = "auto", *, size: int | None = None) -> Json:
    """Measured ceilings: `matmul_flops` a second (bf16, size^3), `copy_bytes` a second (read and
    written)."""
    target = choose_device(device, "device")
    size = size or (8192 if target.type == "cuda" else 512)
    left = torch.randn(size, size, device=target).bfloat16()
    right = torch.randn(size, size, device=target).bfloat16()
    matmul_s = median_seconds(lambda: left @ right, target)
    source = torch.randn(8 * size * size, device=target)
    copy = torch.empty_like(source)
    copy_s = median_seconds(lambda: copy.copy_(source), target)
    return {
        "device": describe(target),
        "matmul_size": size,
        "matmul_flops": 2 * size**3 / matmul_s,
        "copy_bytes": 2 * source.numel() * source.element_size() / copy_s,
    }


def learner_rate(
    model: Path | Any,
    *,
    lora_rank: int = 16,
    row_tokens: int | None = None,
    prompt_tokens: int = 640,
    answer_tokens: int = 80,
    num_rows: int = 2,
    seconds: float = 20.0,
    checkpointing: bool = False,
    compiled: bool = False,
    matmul_flops: float | None = None,
    device: str = "auto",
) -> Json:
    """Training steps on random tokens, of a model directory or of a transformers configuration
    (random weights), `num_rows` rows of `row_tokens` each (None: as a run would take it); repeated
    for about `seconds`.

    Operations counted: 2 for each parameter of a matrix product and token in the forward pass, 4
    in the backward pass (2 for an adapter: no gradient of the weights, its factors are not
    counted), the head at trained tokens alone, and attention's pairs that are seen. What is
    computed twice (activation checkpointing) counts once. `matmul_share` is of `matmul_flops`.
    """
    target = choose_device(device, "device")
    torch.manual_seed(0)
    loaded = _open_model(model, target)
    shape = ModelShape.of(loaded)
    config = TrainerConfig(
        lora_rank=lora_rank,
        micro_batch_tokens=row_tokens,
        activation_checkpointing=checkpointing,
        compile=compiled,
    )
    row_tokens = row_tokens or check_model(loaded, config, prompt_tokens + answer_tokens)
    trainer = Trainer(loaded, dataclasses.replace(config, micro_batch_tokens=row_tokens))
    groups = num_rows * max(1, row_tokens // (prompt_tokens + 8 * answer_tokens))
    samples = random_samples(shape.vocabulary, groups, 8, prompt_tokens, answer_tokens)
    _peak_reset(target)
    row = trainer.step(samples)
    step_s, num_steps = _repeated(lambda: trainer.step(samples), target, seconds)
    flops = step_flops(shape, lora_rank, samples, int(row["num_packed_tokens"]))
    return {
        "device": describe(target),
        "parameters": shape.linear_parameters + shape.other_parameters,
        "lora_rank": lora_rank,
        "row_tokens": row_tokens,
        "checkpointing": checkpointing,
        "compiled": compiled,
        "packed_tokens": row["num_packed_tokens"],
        "sequence_tokens": row["num_sample_tokens"],
        "first_step_s": row["train_s"],
        "step_s": step_s,
        "num_steps": num_steps,
        "packed_tokens_per_s": row["num_packed_tokens"] / step_s,
        "flops_per_step": flops,
        "flops_per_s": flops / step_s,
        "matmul_share": flops / step_s / matmul_flops if matmul_flops else None,
        "peak_bytes": _peak(target),
        "estimated_bytes": _estimated(shape, trainer.config, samples, target),
    }


def sampling_rate(
    model_dir: Path,
    *,
    num_prompts: int = 32,
    num_samples: int = 8,
    prompt_tokens: int = 640,
    new_tokens: int = 80,
    batch_tokens: int | None = None,
    copy_bytes: float | None = None,
    repeats: int = 3,
    device: str = "auto",
) -> Json:
    """Sampling of `num_prompts` x `num_samples` answers to random prompts, as a run does it.

    Bytes counted for a decoding step: all weights but the embedding's unused rows once, keys and
    values of each prompt once for all its answers, and those of each answer. `bandwidth_share` is
    the time that these take at `copy_bytes` a second, over the time taken, prompts included.
    """
    target = choose_device(device, "device")
    loaded = load_model(model_dir, device=target)
    shape = ModelShape.of(loaded)
    policy = TransformersPolicy(loaded, HFTokenizer.load(model_dir), batch_tokens=batch_tokens)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, shape.vocabulary, (num_prompts, prompt_tokens), generator=generator)
    requests = [
        SampleRequest(
            prompt_ids=tuple(prompt),
            num_samples=num_samples,
            max_new_tokens=new_tokens,
            seed=index,
        )
        for index, prompt in enumerate(prompts.tolist())
    ]
    first_s = _timed(lambda: policy.sample(requests), target)
    took = sorted(_timed(lambda: policy.sample(requests), target) for _ in range(repeats))[
        repeats // 2
    ]
    answers = policy.sample(requests)
    lengths = [[len(answer.token_ids) for answer in group] for group in answers]
    num_tokens = sum(map(sum, lengths))
    needed = sampling_bytes(shape, prompt_tokens, lengths)
    return {
        "device": describe(target),
        "num_rows": num_prompts * num_samples,
        "new_tokens": num_tokens,
        "first_s": first_s,
        "seconds": took,
        "tokens_per_s": num_tokens / took,
        "bytes_needed": needed,
        "bandwidth_share": needed / copy_bytes / took if copy_bytes else None,
        "peak_bytes": _peak(target),
    }


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted, in fp64; inf where not finite."""
    got, want = got.double(), want.double()
    error = float((got - want).norm() / want.norm().clamp_min(1e-300))
    return error if error == error else float("inf")


def median_seconds(work: Callable[[], Any], device: torch.device, repeats: int = 10) -> float:
    """Median time of `work`, which a device may do asynchronously, after three warm-ups."""
    for _ in range(3):
        work()
    return sorted(_timed(work, device) for _ in range(repeats))[repeats // 2]


def describe(device: torch.device) -> str:
    """Its name and torch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, torch {torch.__version__}"


def random_samples(
    vocabulary: int, num_groups: int, group_size: int, prompt_tokens: int, answer_tokens: int
) -> list[TrainingSample]:
    """Groups of answers to random prompts; every group has advantages of both signs."""
    generator = torch.Generator().manual_seed(1)
    samples = []
    for _ in range(num_groups):
        prompt = torch.randint(0, vocabulary, (prompt_tokens,), generator=generator).tolist()
        for index in range(group_size):
            answer = torch.randint(0, vocabulary, (answer_tokens,), generator=generator).tolist()
            advantage = 1.0 if index % 2 else -1.0
            samples.append(
                TrainingSample(
                    token_ids=(*prompt, *answer),
                    loss_mask=(0,) * prompt_tokens + (1,) * answer_tokens,
                    logprobs=(0.0,) * prompt_tokens + (-8.0,) * answer_tokens,
                    advantages=(0.0,) * prompt_tokens + (advantage,) * answer_tokens,
                    policy_version=0,
                )
            )
    return samples


def step_flops(
    shape: ModelShape, lora_rank: int, samples: Sequence[TrainingSample], packed_tokens: int
) -> float:
    """Floating-point operations that one step must do, see `learner_rate`."""
    passes = 2 if lora_rank else 3
    num_trained = sum(sum(sample.loss_mask) for sample in samples)
    linear = 2.0 * passes * shape.linear_parameters * packed_tokens
    head = 2.0 * passes * shape.hidden * shape.vocabulary * num_trained
    size = shape.heads * shape.head_size * shape.num_layers
    prompts: set[tuple[int, ...]] = set()
    pairs = 0.0
    for sample in samples:
        cut = sample.loss_mask.index(1)
        length = len(sample.token_ids)
        pairs += (length * (length + 1) - cut * (cut + 1)) / 2
        if sample.token_ids[:cut] not in prompts:
            prompts.add(sample.token_ids[:cut])
            pairs += cut * (cut + 1) / 2
    return linear + head + 3 * 4.0 * size * pairs


def sampling_bytes(shape: ModelShape, prompt_tokens: int, lengths: Sequence[Sequence[int]]) -> int:
    """Bytes that decoding must read for answers of these lengths, group by group."""
    weights = (shape.linear_parameters + shape.hidden * shape.vocabulary) * shape.width
    column = 2 * shape.num_layers * shape.key_heads * shape.head_size * shape.width
    steps = max(map(max, lengths)) - 1
    prompts = sum(prompt_tokens * (max(group) - 1) for group in lengths)
    answers = sum(length * (length - 1) // 2 for group in lengths for length in group)
    return steps * weights + column * (prompts + answers)


def _scores_and_gradients(
    model_dir: Path, rank: int, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Of one batch: log-probabilities, entropy, and all gradients in one row, on the CPU."""
    model = load_model(model_dir, dtype=dtype, device=device)
    torch.manual_seed(0)
    trainer = Trainer(model, TrainerConfig(lora_rank=rank, micro_batch_tokens=4096))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, layer in lora_layers(model):  # as after some training, equal on every device
            for factor in (layer.lora_A, layer.lora_B):
                factor.copy_(0.02 * torch.randn(factor.shape, generator=generator))
            layer.merge()
    samples = random_samples(model.config.get_text_config().vocab_size, 3, 4, 200, 24)
    batches = trainer.pack(samples)
    config = trainer.config
    total = denominator(batches, config)
    with torch.no_grad():
        scores = [trainer.score(batch) for batch in batches]
    trainer.accumulate(
        batches,
        lambda p, h, batch: policy_loss(p, h, batch, config, total, LossStats()),
    )
    gradients = [master.grad.flatten().cpu() for master in trainer.masters.values()]
    return {
        "logprobs": torch.cat([score[0] for score in scores]).cpu(),
        "entropy": torch.cat([score[1] for score in scores]).cpu(),
        "gradients": torch.cat(gradients),
    }


def _open_model(model: Path | Any, device: torch.device) -> Any:
    if isinstance(model, (str, Path)):
        return load_model(Path(model), device=device)
    from transformers import AutoModelForCausalLM

    with device:
        made: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            model, dtype=torch.bfloat16
        )
    return made.eval()


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begin


def _estimated(
    shape: ModelShape,
    config: TrainerConfig,
    samples: Sequence[TrainingSample],
    device: torch.device,
) -> int:
    """What `memory.py` expects of a full row of such samples, in groups of 8."""
    length, answer = len(samples[0].token_ids), sum(samples[0].loss_mask)
    row_tokens = config.micro_batch_tokens or 0
    step = StepShape(
        row_tokens=row_tokens,
        trained_tokens=row_tokens * 8 * answer // (length + 7 * answer),
        chain_tokens=length,
        lora_rank=config.lora_rank,
        checkpointing=config.activation_checkpointing,
        on_gpu=device.type != "cpu",
    )
    return estimate(shape, step).total


def _repeated(work: Callable[[], Any], device: torch.device, seconds: float) -> tuple[float, int]:
    """Median time of `work` and how often it was done in about `seconds`."""
    times: list[float] = []
    while sum(times) < seconds and len(times) < 50:
        times.append(_timed(work, device))
    return sorted(times)[len(times) // 2], len(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int | None:
    """The most bytes that were taken at a time."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
