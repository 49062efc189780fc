"""The device checks run where there is no GPU too, and say that a CPU agrees with itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from selfplay.learner.measures.device_check import (
    compare,
    device_rates,
    learner_rate,
    random_samples,
    relative_error,
    sampling_rate,
    step_flops,
)
from selfplay.learner.measures.memory import ModelShape
from tests.learner.tiny import TinyChatModel


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    TinyChatModel().save_to(directory)
    return directory


def test_a_cpu_agrees_with_itself_and_bf16_costs_what_it_costs(
    model_dir: Path, tmp_path: Path
) -> None:
    result = compare(model_dir, tmp_path / "new" / "compare.json", device="cpu")
    assert json.loads((tmp_path / "new" / "compare.json").read_text()) == result
    for mode in ("lora", "full"):
        for key in ("logprobs", "entropy", "gradients"):
            assert result[mode][f"{key}_error"] == 0.0
            assert 0 < result[mode][f"{key}_floor"] < 0.1


def test_rates_and_shares_are_numbers(model_dir: Path) -> None:
    rates = device_rates("cpu", size=64)
    assert rates["matmul_flops"] > 0 and rates["copy_bytes"] > 0
    for model in (model_dir, AutoConfig.from_pretrained(str(model_dir))):
        row = learner_rate(
            model, lora_rank=2, row_tokens=256, prompt_tokens=40, answer_tokens=6, seconds=0.1,
            matmul_flops=rates["matmul_flops"], device="cpu",
        )  # fmt: skip
        assert row["matmul_share"] > 0 and row["packed_tokens_per_s"] > 0
        assert row["packed_tokens"] < row["sequence_tokens"]  # prompts are shared
    row = sampling_rate(
        model_dir, num_prompts=2, num_samples=2, prompt_tokens=8, new_tokens=4,
        copy_bytes=rates["copy_bytes"], repeats=1, device="cpu",
    )  # fmt: skip
    assert row["tokens_per_s"] > 0 and row["bandwidth_share"] > 0


def test_operations_of_a_step_are_six_a_parameter_and_token_and_attention() -> None:
    shape = ModelShape(
        num_layers=2, hidden=8, feed_forward=16, heads=2, key_heads=1, head_size=4, vocabulary=10,
        linear_parameters=1000, other_parameters=80, linear_sizes=1, width=2,
    )  # fmt: skip
    samples = random_samples(10, 1, 2, 3, 2)
    pairs = 6 + 2 * (4 + 5)  # the prompt's once, then each answer's tokens
    head = 8 * 10 * 4
    assert step_flops(shape, 0, samples, 7) == 6 * (1000 * 7 + head) + 12 * 8 * 2 * pairs
    assert step_flops(shape, 4, samples, 7) == 4 * (1000 * 7 + head) + 12 * 8 * 2 * pairs


def test_a_result_that_is_not_finite_never_passes() -> None:
    assert relative_error(torch.tensor([math.nan]), torch.ones(1)) == math.inf
    assert relative_error(torch.tensor([1.01]), torch.ones(1)) == pytest.approx(0.01, rel=1e-5)
