"""The seam between a run and its learner (mypy holds all learners to the protocol)."""

from __future__ import annotations

from pathlib import Path

from selfplay.config import LearnerConfig
from selfplay.learner.grpo import GrpoLearner
from selfplay.learner.trainer import Trainer
from selfplay.learning import Learner, Restored
from selfplay.policy.messages import MessageTokenizer
from selfplay.policy.transformers import TransformersPolicy
from selfplay.run_dir import RunDir
from tests.learner.tiny import tiny_model


def test_a_checkpoint_gives_back_its_step_and_metrics(tmp_path: Path) -> None:
    config = LearnerConfig(lora_rank=2)
    trainer = Trainer(tiny_model(), config)
    policy = TransformersPolicy(trainer.model, MessageTokenizer())
    learner: Learner = GrpoLearner(trainer, policy, model_dir=tmp_path, config=config)
    with RunDir(tmp_path / "run") as run_dir:
        assert learner.restore(run_dir) is None
        policy.version = 3
        learner.save(run_dir, 4, {"solve_rate": 0.5})
        policy.version = 9
        assert learner.restore(run_dir) == Restored(step=4, metrics={"solve_rate": 0.5})
    assert learner.policy is policy and policy.version == 3
    learner.dismiss()
