"""The estimate of a step's memory against measured peaks, and the refusal of what cannot fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selfplay.commands.compose import scaffold_class
from selfplay.config import AgentConfig, LearnerConfig, PolicyConfig, ScaffoldConfig, TrainerConfig
from selfplay.errors import UserError
from selfplay.learner import memory
from selfplay.learner.memory import (
    MIB,
    ModelShape,
    StepShape,
    available_memory,
    check_memory,
    check_model,
    estimate,
)
from tests.pretend import pretend_model

from .tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
FACTOR = 1.35
"""How far the estimate may be from what a step takes, either way."""

STEP = StepShape(row_tokens=2048, trained_tokens=960, chain_tokens=460, lora_rank=16)
MEASURE = """
import json, sys
from pathlib import Path
import torch
from selfplay.learner.memory import ModelShape, StepShape, estimate
from selfplay.config import TrainerConfig
from selfplay.learner.trainer import Trainer
from selfplay.modeling.model_files import load_model, resolve_model
from selfplay.cache import cache_root
from selfplay.types import TrainingSample

def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024

rank, groups, prompt, answer = map(int, sys.argv[1:])
torch.set_num_threads(1)
model = load_model(resolve_model("smollm2-135m", cache_root()))
for parameter in model.parameters():
    parameter.sum()  # mapped files are read
shape = ModelShape.of(model)
row = groups * (prompt + 4 * answer)
step = StepShape(row_tokens=row, trained_tokens=groups * 4 * answer,
                 chain_tokens=prompt + answer, lora_rank=rank)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = status("VmRSS")
trainer = Trainer(model, TrainerConfig(lora_rank=rank, micro_batch_tokens=row))
samples = [
    TrainingSample(
        token_ids=tuple((7 * i + 13 * g) % 9000 for i in range(prompt))
        + tuple((5 * i + 31 * a) % 9000 for i in range(answer)),
        loss_mask=(0,) * prompt + (1,) * answer, logprobs=(-8.0,) * (prompt + answer),
        advantages=(1.0 - a,) * (prompt + answer), policy_version=0,
    ) for g in range(groups) for a in range(4)
]
for _ in range(2):
    trainer.step(samples)
needed = estimate(shape, step)
print(json.dumps({"measured": status("VmHWM") - before, "estimated": needed.total - needed.weights,
                  "parts": needed.describe()}))
"""


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "groups", "prompt", "answer"),
    [(16, 2, 300, 40), (0, 1, 200, 30)],
    ids=["lora", "full"],
)
def test_the_estimate_is_near_the_measured_peak(
    rank: int, groups: int, prompt: int, answer: int
) -> None:
    words = [str(number) for number in (rank, groups, prompt, answer)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert 1 / FACTOR < found["estimated"] / found["measured"] < FACTOR, found


def test_what_cannot_fit_is_refused_with_the_remedy() -> None:
    shape = ModelShape.of(tiny_model())
    needed = estimate(shape, STEP)
    check_memory(needed, STEP, needed.total)
    check_memory(needed, STEP, needed.total - needed.weights, loaded=needed.weights)
    check_memory(needed, STEP, None)
    with pytest.raises(UserError, match=r"micro_batch_tokens to 460.*memory_check=false"):
        check_memory(needed, STEP, needed.total - 1)
    full = StepShape(row_tokens=500, trained_tokens=500, chain_tokens=500, lora_rank=0)
    with pytest.raises(UserError, match="learner=lora") as caught:
        check_memory(estimate(shape, full), full, 0)
    assert "micro_batch_tokens" not in str(caught.value)


def test_the_check_reads_the_model() -> None:
    model = tiny_model()
    check_model(model, TrainerConfig(lora_rank=2, micro_batch_tokens=64), 32)
    with pytest.raises(UserError, match="are free"):
        check_model(model, TrainerConfig(micro_batch_tokens=2**40), 32)
    assert ModelShape.of(model).linear_parameters == 2 * (2 * 24 * 24 + 2 * 24 * 8 + 3 * 24 * 40)
    found = available_memory(torch.device("cpu"))
    assert found is not None and found > 16 * MIB


def test_a_gpus_rows_are_as_long_as_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pretend_model(tiny_model())
    shape = ModelShape.of(model)

    def needed(row_tokens: int) -> int:
        sizes = {"row_tokens": row_tokens, "trained_tokens": row_tokens, "chain_tokens": 32}
        found = estimate(shape, StepShape(**sizes, lora_rank=2, on_gpu=True))
        return found.total - found.weights

    def rows(available: int, given: int | None = None) -> int:
        monkeypatch.setattr(memory, "available_memory", lambda device: available)
        return check_model(model, TrainerConfig(lora_rank=2, micro_batch_tokens=given), 32)

    assert rows(needed(16_384)) == 16_384
    assert rows(needed(16_384) - 1) == 8192
    assert rows(needed(2048)) == 2048
    assert rows(needed(300), 300) == 300
    for given in (None, 301):
        with pytest.raises(UserError, match="are free"):
            rows(needed(300), given)


def test_more_work_takes_more_memory() -> None:
    shape = ModelShape.of(tiny_model())

    def total(**change: int) -> int:
        sizes = {"row_tokens": 600, "trained_tokens": 300, "chain_tokens": 200, "lora_rank": 2}
        return estimate(shape, StepShape(**{**sizes, **change})).total

    assert total() < total(row_tokens=900)
    assert total() < total(chain_tokens=400)
    assert total() < total(trained_tokens=600)
    kept = estimate(shape, StepShape(**{**_BIG, "checkpointing": False})).activations
    assert estimate(shape, StepShape(**{**_BIG, "checkpointing": True})).activations < kept


_BIG = {"row_tokens": 4000, "trained_tokens": 300, "chain_tokens": 200, "lora_rank": 2}


def test_the_longest_sequence_comes_from_the_configuration() -> None:
    scaffold = ScaffoldConfig(max_prompt_tokens=640)
    policy = PolicyConfig(max_new_tokens=80)
    assert scaffold_class(scaffold).longest(scaffold, policy) == 720
    scaffold = ScaffoldConfig(kind="agentic", agent=AgentConfig(max_tokens=9000))
    assert scaffold_class(scaffold).longest(scaffold, policy) == 9000


def test_loss_weights_are_checked() -> None:
    LearnerConfig(injector_weight=0.0)
    with pytest.raises(UserError, match=r"solver_weight=-1.0"):
        LearnerConfig(solver_weight=-1.0)
    with pytest.raises(UserError, match="both 0"):
        LearnerConfig(injector_weight=0.0, solver_weight=0.0)
