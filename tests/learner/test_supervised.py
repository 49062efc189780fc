"""Supervised training on a tiny model: the loss falls, prompts are shared, the schedule holds."""

from __future__ import annotations

import pytest

from selfplay.config import SupervisedConfig, TrainerConfig
from selfplay.errors import UserError
from selfplay.learner.supervised import SupervisedStep, mean_loss, scheduled_rate, train_supervised
from selfplay.learner.trainer import Trainer

from .samples import sample
from .tiny import tiny_model

EXAMPLES = [sample([index, 5, 7], [index + 20, 30, 2]) for index in range(8)]


@pytest.mark.parametrize("rank", [0, 4])
def test_the_loss_falls(rank: int) -> None:
    trainer = Trainer(tiny_model(), TrainerConfig(lora_rank=rank))
    before = mean_loss(trainer, EXAMPLES)
    told: list[SupervisedStep] = []
    config = SupervisedConfig(learning_rate=0.01, epochs=6, batch_tokens=12, eval_every=2)
    history = train_supervised(
        trainer, EXAMPLES, config, held_out=EXAMPLES[:3], progress=told.append
    )
    assert told == history and len(history) == history[0].num_steps == 24
    assert mean_loss(trainer, EXAMPLES) < 0.7 * before
    assert [step.held_out_loss is not None for step in history[:4]] == [False, True, False, True]
    assert history[-1].held_out_loss == pytest.approx(mean_loss(trainer, EXAMPLES[:3]), abs=1e-5)


def test_schedule_warms_up_and_cools_down() -> None:
    config = SupervisedConfig(learning_rate=1.0)
    assert scheduled_rate(config, 0.0) == pytest.approx(0.1)
    assert scheduled_rate(config, 0.05) == pytest.approx(1.0)
    assert scheduled_rate(config, 0.525) == pytest.approx(0.55)
    assert scheduled_rate(config, 1.0) == pytest.approx(0.1)


def test_equal_seeds_give_equal_runs() -> None:
    runs = []
    for _ in range(2):
        trainer = Trainer(tiny_model(), TrainerConfig(lora_rank=0))
        history = train_supervised(trainer, EXAMPLES, SupervisedConfig(batch_tokens=12))
        runs.append([step.loss for step in history])
    assert runs[0] == runs[1]


def test_the_clock_ends_the_run() -> None:
    trainer = Trainer(tiny_model(), TrainerConfig(lora_rank=2))
    assert train_supervised(trainer, EXAMPLES, SupervisedConfig(max_minutes=0.0)) == []


def test_nothing_to_learn_is_the_users_mistake() -> None:
    trainer = Trainer(tiny_model(), TrainerConfig(lora_rank=2))
    with pytest.raises(UserError, match="no examples"):
        train_supervised(trainer, [], SupervisedConfig())
    with pytest.raises(UserError, match="loss mask all 0"):
        train_supervised(trainer, [sample([1], [2], mask=[0])], SupervisedConfig())
