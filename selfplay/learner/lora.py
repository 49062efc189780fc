"""Low-rank adapters (LoRA, arXiv 2106.09685) over a frozen base, trained on the merged weights.

Departure from the usual implementation, for speed and for agreement with the sampler: each linear
layer keeps a live weight `W' = round(W + s B A)` in the model's dtype, and forward and backward run
on it; the small fp32 factors A, B receive the gradient that the rounding lets through. So the
forward pass costs no more than the plain model's, and trainer and inference engine share exactly
the same weights. W itself is never modified; `merge` recomputes W' from it.

On disk an adapter is an ordinary peft directory (adapter_config.json, adapter_model.safetensors).
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfplay.errors import UserError
from selfplay.learner.ranks.distributed import local, whole
from selfplay.modeling.attention import decoder_of

log = logging.getLogger(__name__)
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_PARTS = ("lora_A", "lora_B")
_UNREAD = (
    "alpha_pattern", "rank_pattern", "use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias",
    "layer_replication", "alora_invocation_tokens", "trainable_token_indices", "target_parameters",
    "use_qalora", "use_bdlora", "monteclora_config", "arrow_config", "kasa_config",
)  # fmt: skip
"""What peft may write that gives factors another meaning, or adds weights that are no factors."""
_FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.(lora_[AB])(?:\.default)?\.weight")
"""Of a layer; trainers that write the file by themselves leave peft's name of the adapter in it."""
_MERGED = "merge it with peft and name the merged model in policy.model"
_MOVING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` whose adapters belong to a model that peft changed at the start."""


class LoraLinear(nn.Module):
    """A linear layer with live weight `weight` = base + scale x (lora_B @ lora_A)."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        device = linear.weight.device
        self.scale = alpha / rank
        self.base = linear.weight.detach()
        self.weight = nn.Parameter(self.base.clone(), requires_grad=False)
        self.bias = linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.empty(rank, linear.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            inputs, self.weight, self.lora_A, self.lora_B, self.scale
        )
        return out if self.bias is None else out + self.bias

    @torch.no_grad()
    def merge(self) -> None:
        """Recompute the live weight: fp32 sum, rounded once. Sharded: its rows on this rank."""
        delta = local(self.lora_B) @ whole(self.lora_A)
        local(self.weight).copy_(torch.add(self.base, delta, alpha=self.scale))


class _LoraProduct(torch.autograd.Function):
    """inputs @ weight.T; gradients go to the inputs and to the two factors."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight, lora_a, lora_b)
        ctx.scale = scale
        return nn.functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, lora_a, lora_b = ctx.saved_tensors
        flat_grad = grad.reshape(-1, grad.shape[-1])
        flat_inputs = inputs.reshape(-1, inputs.shape[-1])
        grad_inputs = (grad @ weight) if ctx.needs_input_grad[0] else None
        down = flat_inputs @ lora_a.to(inputs.dtype).t()
        up = flat_grad @ lora_b.to(grad.dtype)
        grad_a = (up.t() @ flat_inputs).float() * ctx.scale
        grad_b = (flat_grad.t() @ down).float() * ctx.scale
        return grad_inputs, None, grad_a, grad_b, None


def add_lora(model: nn.Module, rank: int, alpha: float) -> None:
    """Replace every linear layer below the head by a `LoraLinear`, and freeze all else: the head,
    what reads images, and layers that are more than linear."""
    model.requires_grad_(False)
    for parent in list(decoder_of(model).modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, LoraLinear(child, rank, alpha))
    if not any(True for _ in lora_layers(model)):
        raise UserError(
            f"{type(model).__name__} has no linear layer that an adapter could change; train all "
            "weights (learner.lora_rank=0)"
        )


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """All adapted layers with their names."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def save_adapter(model: nn.Module, directory: Path, base_name: str = "") -> None:
    """Write the factors in bf16 as a peft directory."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    names: set[str] = set()
    rank, alpha = 0, 0.0
    for name, layer in lora_layers(model):
        rank, alpha = layer.lora_A.shape[0], layer.scale * layer.lora_A.shape[0]
        names.add(name.rsplit(".", 1)[-1])
        for part in _PARTS:
            factor = getattr(layer, part).detach().to(torch.bfloat16).contiguous()
            tensors[f"{_PREFIX}{name}.{part}.weight"] = factor
    if not tensors:
        raise UserError("the model has no adapter to save; train with learner.lora_rank > 0")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(names),
        "inference_mode": True,
    }
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(directory / _WEIGHTS))
    (directory / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def adapter_rank(directory: Path) -> tuple[int, float]:
    """Rank and alpha of a stored adapter: its factors' product counts alpha / rank.

    `UserError` for one whose factors alone do not say what is added to which weights.
    """
    try:
        config = json.loads((directory / _CONFIG).read_text())
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        odd = {key: config[key] for key in _UNREAD if config.get(key)}
        odd |= {
            key: config[key]
            for key, plain in (("peft_type", "LORA"), ("bias", "none"))
            if config.get(key, plain) != plain
        }
        rank_stabilized = bool(config.get("use_rslora"))  # counts alpha / sqrt(rank)
        start = config.get("init_lora_weights")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{directory}: not a LoRA adapter ({_CONFIG}: {error}); "
            "name a directory that peft or `selfplay warmstart` has written"
        ) from error
    if rank < 1 or alpha <= 0:  # as verl has written them (its issue 6380): nothing would change
        raise UserError(
            f"{directory / _CONFIG}: r={rank} and lora_alpha={alpha:g} give the factors no effect; "
            "write the numbers that it was trained with"
        )
    if isinstance(start, str) and start.lower().startswith(_MOVING_STARTS):
        odd["init_lora_weights"] = start
    if odd:
        told = ", ".join(f"{key}={value}" for key, value in odd.items())
        raise UserError(f"{directory}: adapters with {told} are not read; {_MERGED}")
    return rank, alpha * math.sqrt(rank) if rank_stabilized else alpha


def load_adapter(model: nn.Module, directory: Path) -> None:
    """Load stored factors into the `LoraLinear` layers of `model`, and merge them.

    Layers that the adapter leaves out (peft's own default adapts q and v alone) stay as they are:
    their second factor is zero.
    """
    rank, alpha = adapter_rank(directory)
    layers = dict(lora_layers(model))
    factors = _read(directory)
    _refuse_unknown(factors, layers, model, directory)
    _refuse_incomplete(factors, layers, directory)
    for name, layer in layers.items():
        if layer.lora_A.shape[0] != rank:
            raise UserError(
                f"{directory}: adapter of rank {rank}, but learner.lora_rank="
                f"{layer.lora_A.shape[0]}; set learner.lora_rank={rank} or policy.adapter=null"
            )
        layer.scale = alpha / rank
        if name in factors:
            for part in _PARTS:
                _copy(factors[name], f"{name}.{part}", getattr(layer, part), directory)
        else:
            nn.init.zeros_(layer.lora_B)
        layer.merge()
    if len(factors) < len(layers):
        log.info("%s: adapts %d of %d layers", directory, len(factors), len(layers))


def merge_adapter(model: nn.Module, directory: Path) -> None:
    """Add a stored adapter to the plain linear layers of `model`, once and for good."""
    rank, alpha = adapter_rank(directory)
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight is not embedding
    }
    factors = _read(directory)
    _refuse_unknown(factors, layers, model, directory)
    head = model.get_output_embeddings()  # type: ignore[operator]
    inner = {name: layer for name, layer in layers.items() if layer is not head}
    _refuse_incomplete(factors, inner, directory)
    for name, stored in factors.items():
        linear = layers[name]
        factor_a = torch.empty(rank, linear.in_features)
        factor_b = torch.empty(linear.out_features, rank)
        _copy(stored, f"{name}.lora_A", factor_a, directory)
        _copy(stored, f"{name}.lora_B", factor_b, directory)
        with torch.no_grad():
            delta = (factor_b @ factor_a).to(linear.weight.device)
            linear.weight.copy_(torch.add(linear.weight, delta, alpha=alpha / rank))


def _read(directory: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Stored factors by the name of their layer; `UserError` for a file with anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = directory / _WEIGHTS
    try:
        tensors = load_file(str(file))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in sorted(tensors.items()):
        match = _FACTOR.fullmatch(key)
        if match is None:
            raise UserError(
                f"{file}: {key} is no factor of a linear layer (peft saves embedding and head "
                "whole where they were resized or trained; save_embedding_layers=False leaves out "
                f"what was not trained); {_MERGED}"
            )
        if match[2] in factors.setdefault(match[1], {}):
            raise UserError(f"{file}: holds {match[2]} of {match[1]} twice; save one adapter alone")
        factors[match[1]][match[2]] = tensor
    if not factors:
        raise UserError(f"{file}: holds no factors, so that it would change nothing")
    return factors


@torch.no_grad()
def _copy(
    stored: Mapping[str, torch.Tensor], key: str, target: torch.Tensor, directory: Path
) -> None:
    tensor = stored.get(key.rsplit(".", 1)[-1])
    if tensor is None:
        raise UserError(f"{directory / _WEIGHTS}: {key} is missing; the file is incomplete")
    if tensor.shape != target.shape:
        raise UserError(
            f"{directory / _WEIGHTS}: {key} is of shape {tuple(tensor.shape)}, the model needs "
            f"{tuple(target.shape)}; the adapter belongs to another model"
        )
    target.copy_(tensor)


def _refuse_unknown(
    factors: Mapping[str, Any], layers: Mapping[str, Any], model: nn.Module, directory: Path
) -> None:
    """Factors for what is no layer of the model, or one that is not adapted here: its head."""
    unknown = sorted(factors.keys() - layers.keys())
    if not unknown:
        return
    file, heads = directory / _WEIGHTS, {"lm_head", "embed_tokens"}
    if all(name.rsplit(".", 1)[-1] in heads for name in unknown):
        raise UserError(
            f"{file}: adapts {', '.join(unknown)}; the head is not adapted here, and where it "
            f"shares its weights with the embedding a merge would change both; {_MERGED}, untied"
        )
    raise UserError(
        f"{file}: {unknown[0]} (and {len(unknown) - 1} more) are no linear layers of the model, "
        f"which has {next(iter(layers))}; the adapter belongs to another model"
    )


def _refuse_incomplete(
    factors: Mapping[str, Any], layers: Mapping[str, Any], directory: Path
) -> None:
    """Layers that the adapter's own configuration names and its file lacks."""
    config = json.loads((directory / _CONFIG).read_text())
    named = config.get("target_modules")
    if not isinstance(named, list) or config.get("layers_to_transform") is not None:
        return  # a pattern, or some layers of a name
    if config.get("exclude_modules"):
        return
    targets = tuple(f".{target}" for target in named)
    missing = [name for name in layers if f".{name}".endswith(targets) and name not in factors]
    if missing:
        raise UserError(
            f"{directory / _WEIGHTS}: {missing[0]} (and {len(missing) - 1} more) is missing, "
            f"which target_modules of {_CONFIG} names; the adapter belongs to a smaller model, or "
            "its file is incomplete"
        )
