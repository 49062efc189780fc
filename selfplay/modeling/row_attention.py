"""Attention over prefix trees by a GPU's own kernels; on a CPU `attention.py` does it by hand.

In a row in depth-first order (`prefix_tree.py`) a token is seen by itself and everything after it
up to the end of its subtree, so one number for each token, its stop, says who sees whom:

    query q sees key k   if and only if   k <= q < stops[k]

    flex     PyTorch's flex_attention, compiled: skips what no query of a block sees
    causal   one sequence alone: PyTorch's own causal kernel (flash where there is one)
    dense    the same kernel with a mask of tokens x tokens: where flex cannot be compiled
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch.nn import functional

from selfplay.modeling.attention import AttentionPlan, KeepKeys, TreePlan
from selfplay.modeling.prefix_tree import Block, visible
from selfplay.modeling.variants import RowVariants, Variant

log = logging.getLogger(__name__)

BLOCK = 128
"""Queries, and keys, of a block that flex_attention skips or computes."""
LENGTHS = (2048, 8192)
"""What rows are padded to, and above them to powers of two. A kernel is compiled for each length,
which took 7 to 10 s on a GPU; a block of padding costs one block of attention, whatever the row."""
MAX_SHAPES = 64
"""Compiled kernels that are kept: one for each such length, with and without gradients, of each
model."""

Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""(query [1, heads, tokens, size], key, value [1, key heads, tokens, size], scale) -> as query."""


class Layout(Protocol):
    """What a plan needs of a row: a `PrefixTree`, or a micro-batch made from one."""

    @property
    def blocks(self) -> tuple[Block, ...]: ...
    @property
    def stops(self) -> tuple[int, ...]: ...


def prepare_kernels(model: Any, shapes: Iterable[tuple[int, int, int]]) -> None:
    """Find out now whether flex_attention works for such (heads, key heads, head size) where
    `model` lies, not inside a layer: its forward pass may be one that is computed again, and must
    keep the same tensors each time."""
    weight = next(iter(model.parameters()))
    if weight.device.type != "cuda":
        return
    for shape in sorted(set(shapes)):
        flex_works(shape, weight.dtype, weight.device)


def make_plan(layout: Layout, device: torch.device, keep: KeepKeys | None = None) -> AttentionPlan:
    """The plan of a row without contexts on `device`; `keep` sees each layer's keys and values."""
    if device.type == "cpu":
        return TreePlan(layout.blocks, keep, layout.stops)
    return RowPlan(layout.stops, keep)


class RowPlan:
    """One row laid out by `prefix_tree.py`, whose token i is seen up to `stops[i]`."""

    def __init__(
        self, stops: Sequence[int], keep: KeepKeys | None = None, kernel: str | None = None
    ) -> None:
        self._stops = stops
        self._keep = keep
        self._wanted = kernel
        self._kernel: Kernel | None = None
        self._variants = RowVariants(stops)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        variant: Variant | None = None,
    ) -> torch.Tensor:
        assert query.shape[0] == 1, "a prefix tree is one row"
        if self._keep is not None:
            self._keep(layer, key[0], value[0])
        if variant is not None and self._variants.matters(variant, query.device):
            return self._variants.attend(query, key, value, scale, variant)
        if self._kernel is None:
            name = self._wanted or choose_kernel(self._stops, query, key)
            self._kernel = _KERNELS[name](self._stops, query.device)
        return self._kernel(query, key, value, scale).transpose(1, 2)


def choose_kernel(stops: Sequence[int], query: torch.Tensor, key: torch.Tensor) -> str:
    """The fastest kernel that works for such a row."""
    if all(stop == len(stops) for stop in stops):
        return "causal"
    heads, _, size = query.shape[1:]
    shape = (heads, key.shape[1], size)
    works = query.device.type == "cuda" and flex_works(shape, query.dtype, query.device)
    return "flex" if works else "dense"


class FlexKernel:
    """Queries, keys and values are padded to one of few lengths, for as few compilations; blocks of
    padding see themselves alone."""

    def __init__(self, stops: Sequence[int], device: torch.device) -> None:
        num = len(stops)
        self._padding = padded_length(num) - num
        padded = torch.tensor([*stops, *range(num + 1, num + self._padding + 1)], dtype=torch.int32)
        self._mask = block_mask(padded, device)

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        num = query.shape[2]
        tensors = [functional.pad(t, (0, 0, 0, self._padding)) for t in (query, key, value)]
        out: torch.Tensor = compiled_flex()(
            *tensors, block_mask=self._mask, scale=scale, enable_gqa=True
        )
        return out[:, :, :num]


class DenseKernel:
    """Every query against every key, hidden ones masked."""

    def __init__(self, stops: Sequence[int], device: torch.device) -> None:
        self._mask = visible(torch.tensor(stops, device=device))

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        shared = query.shape[1] // key.shape[1]
        if shared > 1:  # no kernel takes a mask and fewer key heads
            key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self._mask, scale=scale
        )


class CausalKernel:
    """Every query sees all keys up to itself."""

    def __init__(self, stops: Sequence[int], device: torch.device) -> None:
        pass

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        gqa = query.shape[1] != key.shape[1]
        return functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=gqa
        )


_KERNELS: dict[str, Callable[[Sequence[int], torch.device], Kernel]] = {
    "flex": FlexKernel,
    "dense": DenseKernel,
    "causal": CausalKernel,
}


def padded_length(num: int) -> int:
    """The least of the lengths of compiled kernels that holds `num` tokens."""
    return next((length for length in LENGTHS if num <= length), 1 << (num - 1).bit_length())


def block_mask(stops: torch.Tensor, device: torch.device) -> Any:
    """flex_attention's mask, told from the stops (on the CPU, whole blocks) of each key.

    A block of keys below the diagonal is seen whole by a block of queries if its smallest stop
    lies behind them, and at all if its largest stop lies behind their first.
    """
    from torch.nn.attention.flex_attention import BlockMask

    num = len(stops) // BLOCK
    blocks = torch.arange(num)
    below = blocks.unsqueeze(1) > blocks
    first = (blocks * BLOCK).unsqueeze(1)
    whole = below & (stops.view(num, BLOCK).amin(1) >= first + BLOCK)
    some = below & (stops.view(num, BLOCK).amax(1) > first) & ~whole | torch.eye(num).bool()
    there = stops.to(device)

    def sees(
        batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        return (query >= key) & (query < there[key])

    mask = BlockMask.from_kv_blocks(
        *_ordered(some), *_ordered(whole), BLOCK_SIZE=BLOCK, mask_mod=sees
    )
    return mask.to(device)


def _ordered(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each row of queries has, and which (the rest after them), int32."""
    count = blocks.sum(1, dtype=torch.int32)
    order = torch.argsort(blocks.int(), dim=1, descending=True, stable=True).int()
    return count[None, None], order[None, None].contiguous()


@functools.cache
def compiled_flex() -> Any:
    """flex_attention as one fused kernel; compiled again for a new shape, never for a new mask."""
    import torch._dynamo
    from torch.nn.attention.flex_attention import flex_attention

    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MAX_SHAPES)
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


@functools.cache
def flex_works(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether flex_attention can be compiled and run, forward and backward, for (heads, key heads,
    head size). Needs Triton and a C compiler; tried once.

    In a thread of its own, because what wraps the caller (recomputed activations, inference mode)
    is bound to its thread, and must neither see nor change this.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_try_flex, shape, dtype, device).result()


def _try_flex(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> bool:
    heads, key_heads, size = shape
    stops = [*range(1, BLOCK + 1)]
    try:
        query, key, value = (
            torch.zeros(1, num, BLOCK, size, dtype=dtype, device=device, requires_grad=True)
            for num in (heads, key_heads, key_heads)
        )
        with torch.enable_grad():
            FlexKernel(stops, device)(query, key, value, 1.0).sum().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler can raise: the other kernel is right, too
        log.warning(
            "flex_attention cannot be compiled here, attention is slower (%s: %s)",
            type(error).__name__,
            str(error).splitlines()[0] if str(error) else "",
        )
        return False
    return True
