"""Checkpoints are whole or absent, also when the writer is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfplay.config import TrainerConfig
from selfplay.errors import InfrastructureError, UserError
from selfplay.learner import checkpoint
from selfplay.learner.trainer import Trainer

from .tiny import tiny_model


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(tiny_model(), TrainerConfig(lora_rank=2))


def test_latest_and_prune(trainer: Trainer, tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "absent") is None
    for step in (1, 9, 10, 11):
        checkpoint.save(tmp_path, step, trainer, {"step": step}, keep_last=2)
    newest = checkpoint.latest(tmp_path)
    assert newest is not None and checkpoint.step_of(newest) == 11
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_10", "step_11"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "no manifest", "no file", "bad manifest"])
def test_torn_checkpoints_are_skipped(trainer: Trainer, tmp_path: Path, damage: str) -> None:
    good = checkpoint.save(tmp_path, 1, trainer, {})
    bad = checkpoint.save(tmp_path, 2, trainer, {})
    state = bad / "state" / "__0_0.distcp"
    content = state.read_bytes()
    if damage == "truncate":
        state.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        middle = len(content) // 2
        state.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "no manifest":
        (bad / "manifest.json").unlink()
    elif damage == "no file":
        state.unlink()
    else:
        (bad / "manifest.json").write_text("{")
    assert checkpoint.latest(tmp_path) == good
    with pytest.raises(UserError, match="not a whole checkpoint"):
        checkpoint.load(bad, trainer)


def test_saving_a_step_again_replaces_it(trainer: Trainer, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, trainer, {"try": 1})
    path = checkpoint.save(tmp_path, 3, trainer, {"try": 2})
    assert checkpoint.load(path, trainer) == {"try": 2}


def test_a_checkpoint_of_the_former_format_is_named(trainer: Trainer, tmp_path: Path) -> None:
    """It must not be skipped as torn: the run would silently begin anew."""
    former = tmp_path / "step_4"
    former.mkdir()
    (former / "trainer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"earlier version.*another with name="):
        checkpoint.latest(tmp_path)
    with pytest.raises(UserError, match=r"earlier version.*another with name="):
        checkpoint.load(former, trainer)


def test_a_write_that_fails_is_a_fault_and_leaves_what_was_there(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = checkpoint.save(tmp_path, 1, trainer, {})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(InfrastructureError, match=r"\.step_2\.tmp: .*No space left"):
            checkpoint.save(tmp_path, 2, trainer, {})
    assert checkpoint.latest(tmp_path) == good
    checkpoint.save(tmp_path, 2, trainer, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1", "step_2"]


def test_only_checkpoint_names_have_a_step(tmp_path: Path) -> None:
    assert checkpoint.step_of(tmp_path / "step_42") == 42
    with pytest.raises(UserError, match="step_7"):
        checkpoint.step_of(tmp_path / "last")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny import tiny_model
from selfplay.learner import checkpoint
from selfplay.config import TrainerConfig
from selfplay.learner.trainer import Trainer
trainer = Trainer(tiny_model(), TrainerConfig(lora_rank=2))
for step in range(10_000):
    checkpoint.save(Path(sys.argv[2]), step, trainer, {"step": step})
"""


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.013, 0.031])
def test_a_killed_writer_leaves_whole_checkpoints(
    trainer: Trainer, tmp_path: Path, delay_s: float
) -> None:
    here = str(Path(__file__).parent)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, here, str(tmp_path)])
    deadline = time.monotonic() + 300
    while checkpoint.latest(tmp_path) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(delay_s)
    writer.kill()
    writer.wait()
    newest = checkpoint.latest(tmp_path)
    assert newest is not None
    extra = checkpoint.load(newest, trainer)
    assert extra["step"] == checkpoint.step_of(newest)
    checkpoint.save(tmp_path, 20_000, trainer, {})
    assert not list(tmp_path.glob(".*"))
