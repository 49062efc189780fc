"""Nothing grows over 200 steps of sampling, training, publishing and saving."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.config import TrainerConfig
from selfplay.learner import checkpoint
from selfplay.learner.publish import Publisher
from selfplay.learner.trainer import Trainer
from selfplay.policy.transformers import TransformersPolicy
from selfplay.sampling import SampleRequest
from selfplay.types import TrainingSample
from tests.policy.test_transformers import PlainTokenizer

from .tiny import tiny_model

NUM_STEPS, WARM_UP = 200, 60
SLACK_BYTES = 6 << 20
"""Far below one copy a step of anything: the tiny model's weights alone would be 20 kB x 140 steps
x 5 (masters, gradients, two moments, live) = 14 MB; the allocator's noise is below 2 MB."""


def used() -> tuple[int, int]:
    """Resident bytes and open descriptors."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/fd").iterdir()))


def disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.fixture(autouse=True)
def nothing_kept_by_pytest() -> Iterator[None]:
    """It would keep 300 kB of torch's debugging records a step."""
    logging.disable(logging.DEBUG)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2], ids=["full", "lora"])
def test_200_steps_leave_nothing_behind(tmp_path: Path, rank: int) -> None:
    config = TrainerConfig(lora_rank=rank, learning_rate=1e-3, micro_batch_tokens=48)
    trainer = Trainer(tiny_model(), config)
    policy = TransformersPolicy(trainer.model, PlainTokenizer())
    publisher = Publisher(trainer.model, policy)
    memory, files, size = 0, 0, 0
    for step in range(NUM_STEPS):
        prompts = [(7, 8, 9, 10 + step % 40), (11, 12 + step % 40)]
        requests = [
            SampleRequest(prompt_ids=prompt, num_samples=3, max_new_tokens=6, seed=step)
            for prompt in prompts
        ]
        samples = [
            TrainingSample(
                token_ids=prompt + answer.token_ids,
                loss_mask=(0,) * len(prompt) + (1,) * len(answer.token_ids),
                logprobs=(0.0,) * len(prompt) + answer.logprobs,
                advantages=(0.0,) * len(prompt) + (1.0 - index,) * len(answer.token_ids),
                policy_version=answer.policy_version,
            )
            for prompt, answers in zip(prompts, policy.sample(requests), strict=True)
            for index, answer in enumerate(answers)
        ]
        assert trainer.step(samples)["skipped"] == 0.0
        publisher.publish()
        checkpoint.save(tmp_path, step, trainer, {"step": step}, keep_last=2)
        if step == WARM_UP:
            memory, files = used()
            size = disk(tmp_path)
    after, open_files = used()
    grown = after - memory
    assert open_files <= files
    assert grown < SLACK_BYTES, f"{grown / 2**20:.1f} MiB in {NUM_STEPS - WARM_UP} steps"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_198", "step_199"]
    assert disk(tmp_path) < size + 4096
    if os.environ.get("SELFPLAY_FIGURES"):
        print(f"\n{grown / 1024:.0f} KiB grown, {open_files} descriptors, {disk(tmp_path)} bytes")
