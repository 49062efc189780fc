"""How much memory a step takes, told from the model's shape before the run starts.

A step's peak lies in the backward pass of its largest row: weights, gradients and optimizer state,
which stay, plus what the forward pass keeps of that row. Counted for decoders of Llama's kind
(gated feed-forward, grouped key heads); the tests hold it against measured peaks.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfplay.config import TrainerConfig
from selfplay.errors import UserError
from selfplay.learner.loss import head_pieces
from selfplay.modeling.attention import KEPT_KEYS
from selfplay.modeling.devices import device_of
from selfplay.modeling.prefix_tree import BLOCK_TOKENS
from selfplay.modeling.row_attention import padded_length

MIB = 2**20
CPU_ROW_TOKENS = 2048
GPU_ROW_TOKENS = 16_384
SLACK = 1.15
"""On what is counted: the allocator's and the matrix library's own buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the estimate knows of a model. `width` bytes for a number of its dtype."""

    num_layers: int
    hidden: int
    feed_forward: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    linear_parameters: int
    other_parameters: int
    linear_sizes: int
    width: int

    @classmethod
    def of(cls, model: Any) -> ModelShape:
        """Read off a loaded model, before adapters are put on."""
        config = model.config.get_text_config()
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
        num_linear = sum(m.weight.numel() for m in linear)
        total = sum(p.numel() for p in model.parameters())
        hidden, vocabulary = model.get_input_embeddings().weight.shape[::-1]
        widest = max((max(m.in_features, m.out_features) for m in linear), default=4 * hidden)
        heads = _number(config, "num_attention_heads") or 1  # none: layers of another kind
        return cls(
            num_layers=_number(config, "num_hidden_layers") or 1,
            hidden=hidden,
            feed_forward=_number(config, "intermediate_size") or widest,
            heads=heads,
            key_heads=_number(config, "num_key_value_heads") or heads,
            head_size=_number(config, "head_dim") or hidden // heads,
            vocabulary=vocabulary,
            linear_parameters=num_linear,
            other_parameters=total - num_linear,
            linear_sizes=sum(m.in_features + m.out_features for m in linear),
            width=next(model.parameters()).element_size(),
        )


def _number(config: Any, name: str) -> int:
    """A number of a model's configuration, the largest where it has one for each layer; 0: none."""
    value = getattr(config, name, None)
    return max(value, default=0) if isinstance(value, list | tuple) else int(value or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """The largest row of a step: `row_tokens` in all, of which `trained_tokens` are predicted;
    its longest chain of tokens that see each other is `chain_tokens`."""

    row_tokens: int
    trained_tokens: int
    chain_tokens: int
    lora_rank: int
    checkpointing: bool = False
    on_gpu: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes. `weights` are there before the first step; the rest comes with it."""

    weights: int
    training_state: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        """Of a step at its peak, with slack; the weights of a base that is loaded are in it."""
        return int(self.weights + SLACK * (self.training_state + self.activations + self.head))

    def describe(self) -> str:
        """One line for people."""
        parts = {
            "weights": self.weights,
            "gradients and optimizer": self.training_state,
            "activations": self.activations,
            "head": self.head,
        }
        listed = ", ".join(f"{name} {size / MIB:.0f}" for name, size in parts.items())
        return f"{self.total / MIB:.0f} MiB ({listed})"


def estimate(model: ModelShape, step: StepShape) -> MemoryEstimate:
    """Peak of one optimizer step.

    Full training keeps fp32 masters, gradients and two moments beside the live weights: 16 bytes
    for a parameter (12 where the model is fp32 itself), and one layer's gradient in its own dtype.
    LoRA keeps a second copy of the linear weights (live = base + adapter) and 16 bytes for each of
    the few factors.
    """
    size = model.linear_parameters + model.other_parameters
    weights = size * model.width
    if step.lora_rank:
        factors = step.lora_rank * model.linear_sizes
        state = model.linear_parameters * model.width + 16 * factors
    else:
        masters = 0 if model.width == 4 else 4
        largest = max(model.vocabulary * model.hidden, model.feed_forward * model.hidden)
        state = (12 + masters) * size + 2 * largest * model.width
    layer = step.row_tokens * _kept_per_token(model, step.on_gpu) + _attention(model, step)
    layers = model.num_layers
    if step.checkpointing:
        inputs = model.num_layers * step.row_tokens * model.hidden * model.width
        activations = inputs + layer
    else:
        activations = layers * layer
    activations += step.row_tokens * model.width * 2 * (model.hidden + 3 * model.feed_forward)
    if not step.on_gpu:
        activations += model.heads * BLOCK_TOKENS * step.chain_tokens * (3 * model.width + 4)
    chunk, kept_tokens = head_pieces(model.vocabulary, on_gpu=step.on_gpu)
    kept = step.trained_tokens if step.trained_tokens <= kept_tokens else 0
    piece = min(step.trained_tokens, chunk) * model.vocabulary
    return MemoryEstimate(
        weights=weights,
        training_state=state,
        activations=activations,
        head=kept * model.vocabulary * model.width + piece * (3 * 4 + 2 * model.width),
    )


def _kept_per_token(model: ModelShape, on_gpu: bool) -> int:
    """Bytes that one layer keeps of one token for its backward pass, attention's pairs aside.

    Two norms (fp32 input, its normalised copy, the scaled output; on a GPU input and output),
    queries, keys and values before and after the rotation, attention's output, and the gated
    feed-forward's five tensors.
    """
    queries = model.heads * model.head_size
    keys = model.key_heads * model.head_size
    norms = 2 * model.hidden * (2 * model.width if on_gpu else 4 + 4 + model.width)
    attention = (3 * queries + 2 * keys + 2 * keys) * model.width
    feed_forward = (4 * model.feed_forward + 2 * model.hidden) * model.width
    return norms + attention + feed_forward


def _attention(model: ModelShape, step: StepShape) -> int:
    """Bytes of the probabilities that one layer keeps: each token sees its chain up to itself,
    rounded up to whole blocks; blocks with too many keys keep none. A GPU's kernels keep none, but
    copies of their inputs and output, padded."""
    if step.on_gpu:
        size = (2 * model.heads + 2 * model.key_heads) * model.head_size
        return padded_length(step.row_tokens) * size * model.width
    kept = min(step.chain_tokens, KEPT_KEYS)
    pairs = step.row_tokens / step.chain_tokens * kept * (kept + BLOCK_TOKENS) / 2
    return int(model.heads * pairs * model.width)


def check_memory(
    needed: MemoryEstimate, step: StepShape, available: int | None, *, loaded: int = 0
) -> None:
    """Raises `UserError` with the remedy where a step cannot fit into `available` bytes.

    `loaded`: bytes of the model that are taken already.
    """
    if available is None or needed.total - loaded <= available:
        return
    remedies = []
    if not step.lora_rank:
        remedies.append("train an adapter (learner=lora)")
    if step.row_tokens > step.chain_tokens:
        remedies.append(f"lower learner.micro_batch_tokens to {step.chain_tokens}")
    if not step.checkpointing:
        remedies.append("recompute activations (learner.activation_checkpointing=true)")
    remedies.append(
        "shorten sequences (scaffold.max_prompt_tokens and policy.max_new_tokens, or "
        "scaffold.agent.max_tokens)"
    )
    raise UserError(
        f"a training step on {step.row_tokens} tokens takes about {needed.describe()}, "
        f"{available / MIB:.0f} MiB are free beyond what is loaded: {'; or '.join(remedies)}; "
        "or learner.memory_check=false to try all the same"
    )


def default_row_tokens(device: torch.device) -> int:
    """`learner.micro_batch_tokens` where it is not set, for a model of any size."""
    return CPU_ROW_TOKENS if device.type == "cpu" else GPU_ROW_TOKENS


def check_model(model: Any, config: TrainerConfig, longest: int) -> int:
    """`check_memory` for a loaded model that will train on sequences of up to `longest` tokens; the
    tokens of a row: as configured, else on a GPU the most of 16,384, 8,192 .. 2,048 that fit.

    The worst row is full, and all of it is answers. No sequence exceeds the model's context.
    """
    row_tokens = config.micro_batch_tokens or default_row_tokens(device_of(model))
    while True:
        try:
            _check_rows(model, config, longest, row_tokens)
            return row_tokens
        except UserError:
            if config.micro_batch_tokens or row_tokens <= CPU_ROW_TOKENS:
                raise
            row_tokens //= 2


def _check_rows(model: Any, config: TrainerConfig, longest: int, row_tokens: int) -> None:
    shape = ModelShape.of(model)
    longest = min(
        longest, getattr(model.config.get_text_config(), "max_position_embeddings", longest)
    )
    step = StepShape(
        row_tokens=max(longest, row_tokens),
        trained_tokens=max(longest, row_tokens),
        chain_tokens=longest,
        lora_rank=config.lora_rank,
        checkpointing=config.activation_checkpointing,
        on_gpu=device_of(model).type != "cpu",
    )
    needed = estimate(shape, step)
    check_memory(needed, step, available_memory(device_of(model)), loaded=needed.weights)


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be had: of the GPU, or of the machine and this process's cgroup; None
    where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [size for size in (_machine_available(), _cgroup_available()) if size is not None]
    return min(found, default=None)


def _machine_available() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _cgroup_available() -> int | None:
    """Limit less use of the memory cgroup that a container sees as its own (v2, then v1); files
    that lie in memory and can be dropped are not counted as used."""
    for root, limit, used, dropped in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):
            folder = Path(root)
            lines = (folder / "memory.stat").read_text().splitlines()
            free = int(dict(line.split() for line in lines)[dropped])
            taken = int((folder / used).read_text()) - free
            return max(0, int((folder / limit).read_text()) - taken)
    return None
