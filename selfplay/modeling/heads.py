"""From last hidden states to logits: a model's head, and what its own code does after it.

Granite divides by a number, Cohere and Falcon H1 multiply, Gemma and xLSTM cap. Which of these a
model does is tried, not read off its name (`fit.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """logits = cap(scale x head(states)), with cap(z) = softcap x tanh(z / softcap)."""

    scale: float = 1.0
    softcap: float | None = None
    bias: bool = False

    @property
    def is_product(self) -> bool:
        """Whether the logits are a product with a matrix, but for `scale`."""
        return self.softcap is None and not self.bias

    def finish(self, raw: torch.Tensor) -> torch.Tensor:
        """Logits of what the head module answers."""
        if self.scale != 1.0:
            raw = raw * self.scale
        if self.softcap is not None:
            raw = torch.tanh(raw / self.softcap) * self.softcap
        return raw

    def of(self, model: Any, states: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocabulary] of states [..., size]."""
        return self.finish(model.get_output_embeddings()(states))


PLAIN_HEAD = Head()


def find_head(
    config: Any, logits: torch.Tensor, raw: torch.Tensor, *, bias: bool, rounding: float
) -> Head | None:
    """The head that makes `logits`, the model's own, of `raw`, what its head module answered; None
    where none of the known ones does, but for a `rounding` of the largest."""
    bound = rounding * float(logits.abs().max())
    for head in _candidates(config, bias):
        if bool(((head.finish(raw) - logits).abs() <= bound).all()):
            return head
    return None


def _candidates(config: Any, bias: bool) -> Iterator[Head]:
    for name in ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"):
        if cap := getattr(config, name, None):
            yield Head(softcap=float(cap), bias=bias)
    yield Head(bias=bias)
    if divisor := getattr(config, "logits_scaling", None):
        yield Head(scale=1.0 / float(divisor), bias=bias)
    for name in ("logit_scale", "lm_head_multiplier"):
        if factor := getattr(config, name, None):
            yield Head(scale=float(factor), bias=bias)
