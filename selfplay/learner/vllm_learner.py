"""Training where vLLM servers sample: the learner's own model, its weights handed over in files.

    step -> optimizer -> <root>/version_N -> every server loads it -> policy version N

The trained model stays in this process (`GrpoLearner`). What the servers run is the model that it
began with and a copy of the adapter, or a copy of all weights (`publishes_adapters`).
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from selfplay.cache import cache_root
from selfplay.config import LearnerConfig, PolicyConfig, VLLMConfig
from selfplay.errors import PolicyError, UserError
from selfplay.learner.grpo import GrpoLearner, load_for_inference, open_learner
from selfplay.learner.measures.agreement import check_agreement
from selfplay.learner.publish import DirectoryPublisher, save_hf
from selfplay.learner.ranks.distributed import ALONE, World
from selfplay.learning import Restored
from selfplay.modeling.model_files import resolve_model
from selfplay.policy.transformers import HFTokenizer
from selfplay.policy.vllm.policy import VLLMPolicy, open_vllm
from selfplay.policy.vllm.server import LORA_RANKS
from selfplay.run_dir import RunDir
from selfplay.types import PeerGroup

_OTHER_WEIGHTS = (
    "start them on policy.model, without quantization, --lora-target-modules or the like "
    "(policy.vllm.urls, policy.vllm.args), or try policy.vllm.publish=weights"
)


class ServedLearner:
    """A `GrpoLearner` whose weights are published to vLLM servers after each optimizer step."""

    def __init__(
        self, learner: GrpoLearner, policy: VLLMPolicy, publisher: DirectoryPublisher
    ) -> None:
        self._learner = learner
        self._publisher = publisher
        self.policy = policy

    def step(self, groups: Sequence[PeerGroup]) -> dict[str, float]:
        """One optimizer step, then publish; metrics, `weight_update_s` among them."""
        row = self._learner.step(groups)
        return row | {"weight_update_s": self._publish()}

    def save(self, run_dir: RunDir, step: int, metrics: Mapping[str, float]) -> None:
        """Checkpoint of `step`."""
        self._learner.save(run_dir, step, metrics)

    def restore(self, run_dir: RunDir) -> Restored | None:
        """Load the newest whole checkpoint, and give the servers its weights.

        `UserError` where they then sample from others.
        """
        restored = self._learner.restore(run_dir)
        self._publish()
        check_agreement(self.policy, self._learner.policy.model, _OTHER_WEIGHTS)
        return restored

    def dismiss(self) -> None:
        """The other ranks end."""
        self._learner.dismiss()

    def export(self, run_dir: RunDir, step: int) -> Path:
        """The weights after `step` under `weights/`."""
        return self._learner.export(run_dir, step)

    def _publish(self) -> float:
        """Seconds that publishing took; 0 when the servers have these weights."""
        version = self._learner.policy.version
        if version == self.policy.version:
            return 0.0
        began = time.perf_counter()
        self._publisher.publish(self.policy, version)
        return time.perf_counter() - began


def open_served_learner(
    policy: PolicyConfig,
    learner: LearnerConfig,
    seed: int,
    root: Path,
    world: World = ALONE,
    *,
    longest: int | None = None,
    scores: bool = False,
) -> ServedLearner:
    """Trainer in this process and servers that sample; weights change hands below `root`.

    Servers on other machines must see `root` under the same path.
    """
    if policy.top_p != 1.0:
        raise UserError(
            f"policy.top_p={policy.top_p}: vLLM reports log-probabilities after the cut, which "
            "cannot be trained on; set policy.top_p=1"
        )
    own = dataclasses.replace(policy, engine="transformers", device=learner.device)
    inner = open_learner(own, learner, seed, world, longest=longest)
    model_dir = resolve_model(policy.model, cache_root())
    shutil.rmtree(root, ignore_errors=True)  # what a killed run left
    tokenizer = HFTokenizer.load(model_dir)
    if publishes_adapters(policy.vllm, learner.lora_rank, scores=scores):
        publisher = DirectoryPublisher(inner.save_adapter, root.resolve())
        served = open_vllm(policy.vllm, model_dir, tokenizer, lora_rank=learner.lora_rank)
        _first_adapter(served, publisher)
    else:
        save = partial(save_hf, inner.trainer.model, model_dir)
        publisher = DirectoryPublisher(save, root.resolve())
        served = open_vllm(policy.vllm, publisher.write(0), tokenizer)
    weakref.finalize(served, shutil.rmtree, root, ignore_errors=True)
    return ServedLearner(inner, served, publisher)


def publishes_adapters(config: VLLMConfig, lora_rank: int, *, scores: bool = False) -> bool:
    """Whether servers get the adapter alone. `UserError` where that is asked for and cannot be.

    `scores`: whether they are asked how likely answers are (`ScoringVLLMPolicy`).
    """
    possible = 0 < lora_rank <= LORA_RANKS[-1]
    if config.publish == "adapter" and not possible:
        raise UserError(
            f"policy.vllm.publish=adapter: learner.lora_rank={lora_rank} must be from 1 to "
            f"{LORA_RANKS[-1]}; or set policy.vllm.publish=weights"
        )
    if config.publish == "auto":
        return possible and bool(config.gpus) and not config.urls and not scores
    return config.publish == "adapter"


def _first_adapter(served: VLLMPolicy, publisher: DirectoryPublisher) -> None:
    """Version 0, before anything is sampled; a model whose layers vLLM cannot adapt shows here."""
    try:
        served.update_weights(publisher.write(0), 0)
    except PolicyError as error:
        served.close()
        raise UserError(
            f"{error}; to hand over whole weights: policy.vllm.publish=weights"
        ) from error


def open_for_inference(policy: PolicyConfig) -> VLLMPolicy:
    """Servers with the configured model, its adapter merged, nothing trainable.

    Without an adapter, servers at URLs keep the weights that they have.
    """
    model_dir = resolve_model(policy.model, cache_root())
    tokenizer = HFTokenizer.load(model_dir)
    if policy.adapter is None:
        return open_vllm(policy.vllm, None if policy.vllm.urls else model_dir, tokenizer)
    root = Path(tempfile.mkdtemp(prefix="selfplay-weights-"))
    model = load_for_inference(dataclasses.replace(policy, device="cpu")).model
    merged = root / "merged"
    save_hf(model, model_dir, merged)
    served = open_vllm(policy.vllm, merged, tokenizer)
    weakref.finalize(served, shutil.rmtree, root, ignore_errors=True)
    return served
