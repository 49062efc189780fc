"""Supervised training on a tiny model: the loss falls, prompts are shared, the schedule holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfplay.commands.kept_training import KeptTraining, training_key
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


@pytest.mark.parametrize("rank", [0, 4])
def test_killed_it_ends_as_if_it_had_never_been(rank: int, tmp_path: Path) -> None:
    config = SupervisedConfig(learning_rate=0.01, epochs=4, batch_tokens=12, max_minutes=None)

    def opened() -> Trainer:
        torch.manual_seed(0)
        return Trainer(tiny_model(), TrainerConfig(lora_rank=rank))

    def kept(trainer: Trainer, key: str = "a") -> KeptTraining:
        return KeptTraining(trainer, tmp_path / "training", key, every_s=0.0)

    def dies(step: SupervisedStep) -> None:
        if step.step == 6:
            raise KeyboardInterrupt

    whole, killed = opened(), opened()
    expected = train_supervised(whole, EXAMPLES, config)
    with pytest.raises(KeyboardInterrupt):
        train_supervised(killed, EXAMPLES, config, progress=dies, kept=kept(killed))
    again, told = opened(), list[SupervisedStep]()
    history = train_supervised(again, EXAMPLES, config, progress=told.append, kept=kept(again))
    assert [step.loss for step in history] == [step.loss for step in expected]
    assert [step.step for step in told] == list(range(7, len(expected)))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    other = opened()
    assert kept(other, "b").restore() == ([], 0.0)  # other examples: from the beginning
    assert not (tmp_path / "training").exists()


def test_what_a_training_belongs_to() -> None:
    key = training_key(EXAMPLES, [1, "model"])
    assert key == training_key(list(EXAMPLES), [1, "model"])
    assert len({key, training_key(EXAMPLES[1:], [1, "model"]), training_key(EXAMPLES, [2])}) == 3
