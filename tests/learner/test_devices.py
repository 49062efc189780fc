"""Which device is taken, and what is said where it cannot be."""

from __future__ import annotations

import pytest
import torch

from selfplay.config.learner import LearnerConfig
from selfplay.config.policy import PolicyConfig
from selfplay.errors import UserError
from selfplay.learner.grpo import open_learner
from selfplay.modeling.devices import choose_device, memory_boundary


def test_auto_is_the_gpu_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert choose_device("auto", "policy.device") == torch.device("cuda", 3)
    assert choose_device("cpu", "policy.device") == torch.device("cpu")
    with pytest.raises(UserError, match=r"policy.device=cpu and learner.device=auto differ"):
        open_learner(PolicyConfig(device="cpu"), LearnerConfig(), 0)


def test_a_gpu_that_is_not_there_is_an_error_and_auto_is_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", "learner.device") == torch.device("cpu")
    with pytest.raises(UserError, match=r"learner.device=cuda: no GPU can be used .*torch"):
        choose_device("cuda", "learner.device")
    with pytest.raises(UserError, match=r"learner.device='tpu': must be one of auto, cpu, cuda"):
        choose_device("tpu", "learner.device")


def test_a_full_gpu_names_the_key_to_change() -> None:
    with (
        pytest.raises(UserError, match=r"ran out while sampling \(CUDA out of memory\); lower"),
        memory_boundary("sampling", "lower policy.batch_tokens"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
