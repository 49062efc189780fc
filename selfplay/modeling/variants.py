"""Attention that differs from softmax(scale q k) v over all keys before the query: windows and
chunks (Mistral, Gemma, Llama 4), capped scores (Gemma 2), sinks (gpt-oss), values of another size
than keys (DeepSeek's latent attention).

Computed plainly, in pieces whose probabilities the backward pass computes again. What a layer may
see is not read off a model's configuration: transformers is asked for the mask that it would make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from selfplay.modeling.prefix_tree import visible

ATTENTION_NAME = "selfplay"
PIECE = 256
"""Queries whose scores are held at a time."""

Sees = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(positions of queries, positions of keys) -> bool, whether the one sees the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a layer sees, given in the place of a mask: `sees`, which hides nothing that it should
    not before `reach` tokens have passed."""

    sees: Sees
    reach: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One layer's attention. softcap: scores become softcap x tanh(score / softcap). sinks [heads]:
    a further score for each head, whose share of the softmax goes nowhere."""

    window: Window | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None
    uneven: bool = False
    """Values are of another size than keys."""

    @property
    def is_odd(self) -> bool:
        """Whether it differs even where the window hides nothing."""
        return self.softcap is not None or self.sinks is not None or self.uneven

    def matters(self, length: int) -> bool:
        """Whether it differs for sequences of up to `length` tokens."""
        return self.is_odd or (self.window is not None and length > self.window.reach)

    def hides(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor | None:
        """bool, broadcast of both positions; None: nothing."""
        return None if self.window is None else ~self.window.sees(queries, keys)


class RowVariants:
    """Such attention over one row in depth-first order, whose token i is seen up to `stops[i]`."""

    def __init__(self, stops: Sequence[int]) -> None:
        self._stops = stops
        self._seen: torch.Tensor | None = None
        self._positions: torch.Tensor | None = None
        self._longest = 0

    def matters(self, variant: Variant, device: torch.device) -> bool:
        """Whether `variant` differs for the sequences of this row."""
        if not variant.matters(len(self._stops)):  # no sequence is longer than the row
            return False
        if self._seen is None:
            self._seen = visible(torch.tensor(self._stops, device=device))
            self._positions = self._seen.sum(1) - 1  # a token sees its ancestors and itself
            self._longest = int(self._positions.max()) + 1
        return variant.matters(self._longest)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        variant: Variant,
    ) -> torch.Tensor:
        """[1, heads, tokens, size] in, [1, tokens, heads, value size] out."""
        seen, positions = self._seen, self._positions
        assert seen is not None and positions is not None and query.shape[2] == key.shape[2]
        hidden = variant.hides(positions.unsqueeze(1), positions)
        if hidden is not None:
            seen = seen & ~hidden
        parts = []
        for start in range(0, query.shape[2], PIECE):
            given = (query[:, :, start : start + PIECE], key, value, seen[start : start + PIECE])
            if torch.is_grad_enabled():
                part = checkpoint(attend, *given, scale, variant, use_reentrant=False)
            else:
                part = attend(*given, scale, variant)
            parts.append(part)
        return torch.cat(parts, dim=2).transpose(1, 2)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
    variant: Variant,
) -> torch.Tensor:
    """query [batch, heads, queries, size], key and value [batch, key heads, keys, size], seen bool
    [..., queries, keys]; [batch, heads, queries, value size]. Scores and softmax in fp32."""
    batch, heads, num, size = query.shape
    key_heads = key.shape[1]
    grouped = query.reshape(batch, key_heads, -1, num, size)
    scores = (grouped @ key.unsqueeze(2).transpose(3, 4)).flatten(1, 2).float() * scale
    if variant.softcap is not None:
        scores = torch.tanh(scores / variant.softcap) * variant.softcap
    scores = scores.masked_fill(~seen, float("-inf"))
    if variant.sinks is not None:
        sinks = variant.sinks.float().view(1, -1, 1, 1).expand(batch, -1, num, 1)
        probs = torch.softmax(torch.cat([scores, sinks], dim=-1), dim=-1)[..., :-1]
    else:
        probs = torch.softmax(scores, dim=-1)
    shared = probs.to(value.dtype).view(batch, key_heads, heads // key_heads, num, -1)
    return torch.matmul(shared, value.unsqueeze(2)).flatten(1, 2)


def ask_for_windows() -> None:
    """Let transformers hand each layer a `Window` where it would hand it a mask."""
    from transformers.masking_utils import AttentionMaskInterface

    AttentionMaskInterface.register(ATTENTION_NAME, _window)


def _window(*, mask_function: Any, local_size: int | None = None, **_: Any) -> Window | None:
    """None: the layer sees everything before. `mask_function` is of (batch, head, query, key)."""
    from transformers.masking_utils import causal_mask_function

    if mask_function is causal_mask_function:
        return None

    def sees(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = mask_function(0, 0, queries, keys)
        return seen

    return Window(sees=sees, reach=local_size or 0)
