"""The learner that a run talks to: peer groups in, one optimizer step, new weights out.

groups -> advantages -> samples -> Trainer.step -> Publisher.publish -> policy version + 1

Under torchrun rank 0 has this learner, and the other ranks `follow` it (`team.py`).
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from selfplay.cache import cache_root
from selfplay.config import LearnerConfig, PolicyConfig, TrainConfig, read_config
from selfplay.errors import UserError
from selfplay.learner import checkpoint
from selfplay.learner.advantages import staleness, training_samples, within_budget
from selfplay.learner.lora import adapter_rank, add_lora, load_adapter, merge_adapter, save_adapter
from selfplay.learner.measures.degenerate import without_loops
from selfplay.learner.measures.memory import check_model
from selfplay.learner.publish import Publisher, save_hf
from selfplay.learner.ranks.distributed import ALONE, World
from selfplay.learner.ranks.rank_group import RankGroup
from selfplay.learner.trainer import Trainer
from selfplay.learning import Restored
from selfplay.modeling.devices import choose_device
from selfplay.modeling.model_files import load_model, resolve_adapter, resolve_model
from selfplay.policy.transformers import HFTokenizer, TransformersPolicy
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import joined
from selfplay.types import PeerGroup

log = logging.getLogger(__name__)
ADAPTERS = Path(__file__).resolve().parents[1] / "data" / "adapters"
"""Adapters that ship with the package; "default" is the warm start of smollm2-135m."""


class GrpoLearner:
    """Owns trainer, policy and publisher of one run; the trainer may be spread over ranks."""

    def __init__(
        self,
        trainer: Trainer,
        policy: TransformersPolicy,
        *,
        model_dir: Path,
        config: LearnerConfig,
    ) -> None:
        self.trainer = trainer
        self.team = RankGroup(trainer)
        self.policy = policy
        self._publisher = Publisher(trainer.model, policy)
        self._model_dir = model_dir
        self._config = config

    def step(self, groups: Sequence[PeerGroup]) -> dict[str, float]:
        """One optimizer step on the groups that have variance, then publish; metrics.

        Without any such group nothing moves and `groups_trained` is 0.
        """
        affordable = within_budget(groups, self._config.injector_tokens)
        batch = training_samples(affordable, self._config.advantage)
        left_out = {"num_groups_over_budget": float(len(groups) - len(affordable))}
        trained = batch.metrics["num_groups"] - batch.metrics["num_zero_variance_groups"]
        samples, dropped = without_loops(batch.samples, self._config)
        told = joined(batch.metrics, left_out, dropped, staleness(samples, self.policy.version))
        if not samples:
            return joined(told, {"groups_trained": 0.0, "skipped": 1.0})
        stats = self.team.step(samples)
        if not stats["skipped"]:
            self._publisher.publish()
        moved = 0.0 if stats["skipped"] else trained
        version = float(self.policy.version)
        return joined(told, stats, {"groups_trained": moved, "policy_version": version})

    def save(self, run_dir: RunDir, step: int, metrics: Mapping[str, float]) -> None:
        """Checkpoint of `step` under `checkpoints/`."""
        version = self.policy.version
        extra = {"metrics": metrics, "step": step, "policy_version": version}
        directory = run_dir.path / "checkpoints"
        self.team.save(directory, step, extra, keep_last=self._config.keep_last)

    def restore(self, run_dir: RunDir) -> Restored | None:
        """Load the newest whole checkpoint; None when there is none."""
        newest = checkpoint.latest(run_dir.path / "checkpoints")
        if newest is None:
            return None
        extra = self.team.load(newest)
        self.policy.version = int(extra["policy_version"])
        return Restored(step=int(extra["step"]), metrics=extra["metrics"])

    def dismiss(self) -> None:
        """The other ranks end."""
        self.team.dismiss()

    def export(self, run_dir: RunDir, step: int) -> Path:
        """The weights after `step` as `weights/step_N`: an adapter, or a whole model directory."""
        return save_weights(self.trainer, self._config, self._model_dir, run_dir.path, step)

    def save_adapter(self, directory: Path) -> None:
        """The adapter as a peft directory."""
        save_adapter(self.trainer.model, directory, base_name=self._model_dir.name)


def open_learner(
    policy: PolicyConfig,
    learner: LearnerConfig,
    seed: int,
    world: World = ALONE,
    *,
    longest: int | None = None,
) -> GrpoLearner:
    """Model, adapter, trainer and in-process policy from the configuration.

    With `longest`, the tokens of the longest sequence that can come, memory is estimated first.
    """
    if policy.engine != "transformers":
        raise UserError(f"policy.engine={policy.engine}: only transformers can be trained here")
    if choose_device(policy.device, "policy.device") != choose_device(
        learner.device, "learner.device"
    ):
        raise UserError(
            f"policy.device={policy.device} and learner.device={learner.device} differ, but "
            "policy.engine=transformers samples from the very weights that are trained; name the "
            "same device, or use policy=vllm"
        )
    model_dir = resolve_model(policy.model, cache_root())
    trainer = open_trainer(policy, learner, seed, world, longest=longest)
    engine = TransformersPolicy(
        trainer.model, HFTokenizer.load(model_dir), batch_tokens=policy.batch_tokens
    )
    return GrpoLearner(trainer, engine, model_dir=model_dir, config=learner)


def follow(policy: PolicyConfig, learner: LearnerConfig, seed: int, world: World) -> None:
    """What the ranks beside rank 0 do for a whole run: its trainer's part of each step."""
    RankGroup(open_trainer(policy, learner, seed, world)).follow()


def open_trainer(
    policy: PolicyConfig,
    learner: LearnerConfig,
    seed: int,
    world: World = ALONE,
    *,
    longest: int | None = None,
) -> Trainer:
    """The model with its adapter, to be trained; equal on all ranks.

    An adapter is trained on when `lora_rank` > 0 (the ranks must agree), and merged into the
    weights for full training.
    """
    torch.manual_seed(seed)
    device = choose_device(learner.device, "learner.device")
    model = load_model(resolve_model(policy.model, cache_root()), device=device)
    if learner.memory_check and longest is not None:
        fitting = check_model(model, learner, longest)
        learner = dataclasses.replace(learner, micro_batch_tokens=fitting)
    use_adapter(model, policy.adapter, rank=learner.lora_rank)
    return Trainer(model, learner, world)


def export_checkpoint(
    policy: PolicyConfig, learner: LearnerConfig, seed: int, path: Path, out: Path
) -> None:
    """The weights of a checkpoint as an ordinary model directory, an adapter merged.

    Any number of ranks may have written it; one process reads it. Raises `UserError` where the
    checkpoint is torn, or of another model.
    """
    trainer = open_trainer(policy, learner, seed)
    checkpoint.load(path, trainer)
    save_hf(trainer.model, resolve_model(policy.model, cache_root()), out)


def newest_weights(run: Path) -> Path:
    """The directory of a run's newest weights. A run that did not end has exported none, or those
    of an earlier end: then they are made of its newest checkpoint.

    Raises `UserError` where there is neither.
    """
    exported = [path for path in (run / "weights").glob("step_*") if path.is_dir()]
    last = max(exported, key=checkpoint.step_of, default=None)
    kept = checkpoint.latest(run / "checkpoints", checkpoint.step_of(last) if last else -1)
    if kept is None:
        if last is None:
            raise UserError(
                f"checkpoint={run}: the run has no weights yet: no step of it has ended"
            )
        return last
    config = read_config(TrainConfig, run / "config.yaml")
    trainer = open_trainer(config.policy, config.learner, config.seed)
    checkpoint.load(kept, trainer)
    model_dir = resolve_model(config.policy.model, cache_root())
    return save_weights(trainer, config.learner, model_dir, run, checkpoint.step_of(kept))


def save_weights(
    trainer: Trainer, learner: LearnerConfig, model_dir: Path, run: Path, step: int
) -> Path:
    """`weights/step_N` of a run, whole or not at all."""
    target = run / "weights" / f"step_{step}"
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        for left in (temporary, target):
            shutil.rmtree(left, ignore_errors=True)
        if learner.lora_rank:
            save_adapter(trainer.model, temporary, base_name=model_dir.name)
        else:
            save_hf(trainer.model, model_dir, temporary)
        temporary.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    return target


def load_for_inference(policy: PolicyConfig) -> TransformersPolicy:
    """The configured model with its adapter, nothing trainable."""
    model_dir = resolve_model(policy.model, cache_root())
    model = load_model(model_dir, device=choose_device(policy.device, "policy.device"))
    use_adapter(model, policy.adapter, rank=None)
    return TransformersPolicy(model, HFTokenizer.load(model_dir), batch_tokens=policy.batch_tokens)


def use_adapter(model: Any, adapter: str | None, *, rank: int | None) -> None:
    """Put an adapter on the model: `rank` > 0 for training, 0 merged for good, None as it is."""
    if adapter is None:
        return
    directory = resolve_adapter(adapter, ADAPTERS)
    stored, alpha = adapter_rank(directory)
    if rank is not None and rank not in (0, stored):
        raise UserError(
            f"policy.adapter={adapter}: has rank {stored}, but learner.lora_rank={rank}; set "
            f"learner.lora_rank={stored} or policy.adapter=null"
        )
    if rank == 0:
        merge_adapter(model, directory)
        return
    add_lora(model, stored, alpha)
    load_adapter(model, directory)
