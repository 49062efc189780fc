"""Making the inference engine's weights current after an optimizer step.

The in-process engine shares the trainer's live weights, full or merged adapter, so nothing is
copied: publishing proves that the live weights are the masters' and finite, then bumps the version.
Engines in other processes are handed a directory (`DirectoryPublisher`): the adapter alone, or an
ordinary model directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from selfplay.errors import PolicyError
from selfplay.learner.lora import LoraLinear, lora_layers
from selfplay.modeling.model_files import quiet


class VersionedPolicy(Protocol):
    """An engine in this process: the model that it runs, and the version that it reports."""

    model: Any
    version: int


class Publisher:
    """Publishes the weights of `model` (a trainer's) to `policy`."""

    def __init__(self, model: Any, policy: VersionedPolicy) -> None:
        self._model = model
        self._policy = policy
        if policy.model is not model:
            raise PolicyError("the policy does not run the trainer's model; weights would go stale")

    @torch.no_grad()
    def publish(self) -> int:
        """Bump the policy's version after checking the live weights; the new version."""
        for name, param in self._model.named_parameters():
            if not bool(torch.isfinite(param.sum())) and not bool(torch.isfinite(param).all()):
                raise PolicyError(f"weights are not finite after the step: {name}")
        for name, layer in lora_layers(self._model):
            if not is_merged(layer):
                raise PolicyError(f"the merged weight of {name} is stale; publish failed")
        self._policy.version += 1
        return self._policy.version


class ServedPolicy(Protocol):
    """An engine in other processes, which reads its weights from a directory."""

    version: int

    def update_weights(self, directory: Path, version: int | None = None) -> int: ...

    def directories_in_use(self) -> set[Path]: ...


class DirectoryPublisher:
    """Publishes what `save` writes as directories below `root`; those in use are kept."""

    def __init__(self, save: Callable[[Path], None], root: Path) -> None:
        self._save = save
        self._root = root

    def write(self, version: int) -> Path:
        """The directory of `version`."""
        directory = self._root / f"version_{version}"
        self._save(directory)
        return directory

    def publish(self, policy: ServedPolicy, version: int) -> None:
        """Write, load everywhere, and only then forget versions that nobody needs any more."""
        policy.update_weights(self.write(version), version)
        in_use = policy.directories_in_use()
        for other in self._root.iterdir():
            if other not in in_use:
                shutil.rmtree(other, ignore_errors=True)


@torch.no_grad()
def is_merged(layer: LoraLinear) -> bool:
    """Whether a sample of rows of the live weight equals base + delta, rounded once."""
    rows = slice(None, None, max(1, len(layer.weight) // 8))
    delta = layer.lora_B[rows] @ layer.lora_A
    want = torch.add(layer.base[rows], delta, alpha=layer.scale)
    live = layer.weight[rows].float()
    slack = torch.finfo(layer.weight.dtype).eps * want.abs() + 1e-6
    return bool(((live - want).abs() <= slack).all())


def save_hf(model: Any, tokenizer_dir: Path | None, directory: Path) -> None:
    """Write the merged model as an ordinary model directory, atomically.

    Tokenizer files are copied from `tokenizer_dir` (the base model's directory).
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    state = {
        name: tensor.detach()
        for name, tensor in model.state_dict().items()
        if not name.endswith((".lora_A", ".lora_B"))
    }
    implementation = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        with quiet():
            model.save_pretrained(str(temporary), state_dict=state)
    finally:
        model.config._attn_implementation = implementation
    if tokenizer_dir is not None:
        for source in sorted(tokenizer_dir.iterdir()):
            if source.name.startswith(("tokenizer", "special_tokens", "chat_template", "vocab")):
                shutil.copyfile(source, temporary / source.name)
    shutil.rmtree(directory, ignore_errors=True)
    temporary.replace(directory)
