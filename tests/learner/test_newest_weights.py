"""The weights of a run that did not end: those of its newest checkpoint, not of an earlier end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfplay.commands.evaluate import of_checkpoint
from selfplay.config import LearnerConfig, PolicyConfig, TrainConfig, to_yaml
from selfplay.errors import UserError
from selfplay.learner import checkpoint
from selfplay.learner.grpo import load_for_inference, newest_weights, open_trainer, save_weights

from .tiny import TinyChatModel


@pytest.mark.parametrize("rank", [0, 4])
def test_the_newest_weights_of_a_run(tmp_path: Path, rank: int) -> None:
    """A run that was interrupted behind step 59 was evaluated by its weights of step 30."""
    TinyChatModel().save_to(tmp_path / "model")
    policy = PolicyConfig(model=str(tmp_path / "model"), adapter=None, device="cpu")
    learner = LearnerConfig(lora_rank=rank, device="cpu")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(TrainConfig(policy=policy, learner=learner)))
    with pytest.raises(UserError, match="has no weights yet: no step of it has ended"):
        newest_weights(run)
    trainer = open_trainer(policy, learner, 0)
    early = save_weights(trainer, learner, tmp_path / "model", run, 1)
    assert newest_weights(run) == early
    moved = {name: master.detach() for name, master in trainer.masters.items()}
    for master in moved.values():
        master.add_(0.5)
    checkpoint.save(run / "checkpoints", 3, trainer, {"step": 3, "policy_version": 3})
    (run / "weights" / ".step_9.tmp").mkdir()  # of an export that was killed
    found = of_checkpoint(PolicyConfig(model=policy.model, adapter=None, device="cpu"), run)
    path = Path(str(found.adapter if rank else found.model))
    assert path == run / "weights" / "step_3"
    made = path.stat().st_mtime_ns
    assert newest_weights(run) == path and path.stat().st_mtime_ns == made
    late, old = (parameters(config) for config in (found, of_checkpoint(found, early)))
    assert moved and moved.keys() <= late.keys()
    for name, value in moved.items():
        assert torch.allclose(late[name].float(), value, atol=1e-2), name
        assert not torch.allclose(old[name].float(), value, atol=1e-1), name


def parameters(policy: PolicyConfig) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in load_for_inference(policy).model.named_parameters()}
