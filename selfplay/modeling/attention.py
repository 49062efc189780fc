"""Attention over prefix trees, for any transformers model that takes an attention function.

The model is called with `plan=...`; every layer hands its queries, keys and values to
`plan.attend`. One plan trains and pre-fills (`TreePlan`), another decodes (`decoding.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from selfplay.modeling.prefix_tree import Block
from selfplay.modeling.variants import (
    ATTENTION_NAME,
    RowVariants,
    Variant,
    Window,
    ask_for_windows,
)

KEPT_KEYS = 2048
"""Blocks that see more keys compute their probabilities again in the backward pass."""

KeepKeys = Callable[[int, torch.Tensor, torch.Tensor], None]
"""Called with (layer, keys, values), each [key heads, tokens, head size]."""


class AttentionPlan(Protocol):
    """Who sees whom in one call of the model."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        variant: Variant | None = None,
    ) -> torch.Tensor:
        """[batch, heads, tokens, head size] in, [batch, tokens, heads, value size] out."""
        ...


class TreePlan:
    """One row laid out by `prefix_tree.py`; `keep` sees each layer's keys and values."""

    def __init__(
        self, blocks: tuple[Block, ...], keep: KeepKeys | None = None, stops: Sequence[int] = ()
    ) -> None:
        self._blocks = blocks
        self._keep = keep
        self._variants = RowVariants(stops)
        self._biases: tuple[torch.Tensor, ...] = ()

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
        if not self._biases:
            self._biases = tuple(_bias(block.mask, query) for block in self._blocks)
        out: torch.Tensor = _TreeAttention.apply(  # type: ignore[no-untyped-call]
            query[0], key[0], value[0], self._blocks, self._biases, scale
        )
        return out.transpose(0, 1).unsqueeze(0)


class _TreeAttention(torch.autograd.Function):
    """Block-wise attention with grouped key heads.

    Probabilities are kept for the backward pass, but those of blocks with more than `KEPT_KEYS`
    keys, which are computed again: memory grows with the square of a sequence up to there only.
    query [heads, queries, size], key and value [key heads, tokens, size]; the queries are those of
    the last tokens. Softmax in fp32, products in the input's dtype, gradients of keys and values
    summed over blocks in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        blocks: tuple[Block, ...],
        biases: tuple[torch.Tensor, ...],
        scale: float,
    ) -> torch.Tensor:
        key_heads, num_tokens, size = key.shape
        first = num_tokens - query.shape[1]  # row of the first query; keys before it are context
        # [key heads, group, queries, size]: the query heads that share a key head lie together, and
        # become one matrix product of group x queries rows.
        grouped = query.view(key_heads, -1, query.shape[1], size)
        out = torch.empty_like(grouped)
        probs: list[torch.Tensor] = []
        for block, bias in zip(blocks, biases, strict=True):
            rows = slice(block.start - first, block.end - first)
            q = (grouped[:, :, rows] * scale).reshape(key_heads, -1, size)
            prob = _probabilities(q, key, block, bias)
            part = torch.bmm(prob, _gather(value, block))
            out[:, :, rows] = part.view(key_heads, -1, block.end - block.start, size)
            if query.requires_grad and _num_keys(block) <= KEPT_KEYS:
                probs.append(prob)
        ctx.save_for_backward(query, key, value, out, *probs)
        ctx.blocks, ctx.biases, ctx.scale = blocks, biases, scale
        return out.view_as(query)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, *probs = ctx.saved_tensors
        key_heads, num_tokens, size = key.shape
        first = num_tokens - query.shape[1]
        shape = (key_heads, -1, query.shape[1], size)
        grad_query = torch.empty_like(query)
        grad_key = torch.zeros_like(key, dtype=torch.float32)
        grad_value = torch.zeros_like(value, dtype=torch.float32)
        # With P = softmax(S), O = P V: dS = P * (dP - delta), delta = rowsum(dO * O), which equals
        # rowsum(P * dP) and needs no P (FlashAttention, arXiv 2205.14135, appendix B.2).
        delta = (grad.float().view(shape) * out.float()).sum(-1)
        kept = iter(probs)
        for block, bias in zip(ctx.blocks, ctx.biases, strict=True):
            rows = slice(block.start - first, block.end - first)
            go = grad.view(shape)[:, :, rows].reshape(key_heads, -1, size)
            q = (query.view(shape)[:, :, rows] * ctx.scale).reshape(key_heads, -1, size)
            again = _num_keys(block) > KEPT_KEYS
            prob = _probabilities(q, key, block, bias) if again else next(kept)
            _scatter_add(grad_value, block, torch.bmm(prob.transpose(1, 2), go))
            # dP, [key heads, group x queries, keys]; in place it becomes dS
            grad_score = torch.bmm(go, _gather(value, block).transpose(1, 2))
            grad_score -= delta[:, :, rows].reshape(key_heads, -1, 1)
            grad_score *= prob
            _scatter_add(grad_key, block, torch.bmm(grad_score.transpose(1, 2), q))
            part = torch.bmm(grad_score, _gather(key, block)) * ctx.scale
            num_queries = block.end - block.start
            grad_query.view(shape)[:, :, rows] = part.view(key_heads, -1, num_queries, size)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None, None, None


def _num_keys(block: Block) -> int:
    return block.end - block.start + sum(end - start for start, end in block.visible)


def _probabilities(
    query: torch.Tensor, key: torch.Tensor, block: Block, bias: torch.Tensor
) -> torch.Tensor:
    """[key heads, group x queries, keys that the block sees] of scaled queries."""
    return _masked_softmax(torch.bmm(query, _gather(key, block).transpose(1, 2)), bias)


def _gather(tensor: torch.Tensor, block: Block) -> torch.Tensor:
    """Keys or values that the block sees, itself last."""
    spans = [*block.visible, (block.start, block.end)]
    if all(left[1] == right[0] for left, right in itertools.pairwise(spans)):
        return tensor[:, spans[0][0] : spans[-1][1]]
    return torch.cat([tensor[:, start:end] for start, end in spans], dim=1)


def _scatter_add(total: torch.Tensor, block: Block, grad: torch.Tensor) -> None:
    """The reverse of `_gather`."""
    offset = 0
    for start, end in [*block.visible, (block.start, block.end)]:
        total[:, start:end] += grad[:, offset : offset + end - start]
        offset += end - start


def _bias(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """0 where the mask allows, -inf elsewhere."""
    bias = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return bias.masked_fill_(~mask.to(like.device), float("-inf"))


def _masked_softmax(scores: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Softmax in fp32 over [key heads, group x queries, keys]; `bias` masks the last, own keys."""
    num = bias.shape[0]
    own = scores.view(scores.shape[0], -1, num, scores.shape[2])[..., -num:]
    own += bias
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)


def attention_function(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    plan: AttentionPlan,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What a layer calls; `attention_mask` is a `Window`, or None where it sees all before.

    Raises `TypeError` for attention that takes what is not known here (`fit.py` asks first).
    """
    unknown = [name for name in others if name not in _SAID and others[name] is not None]
    if unknown or not isinstance(attention_mask, Window | None):
        raise TypeError(", ".join(unknown) or "a mask of its own")
    layer = module.layer_idx
    assert isinstance(layer, int)
    variant = None
    uneven = query.shape[-1] != value.shape[-1]
    if attention_mask is not None or softcap is not None or s_aux is not None or uneven:
        variant = Variant(window=attention_mask, softcap=softcap, sinks=s_aux, uneven=uneven)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Some layers take a view of what they get, so it must lie in the order of its tokens.
    return plan.attend(layer, query, key, value, scale, variant).contiguous(), None


_SAID = frozenset({
    "dropout", "sliding_window", "position_ids", "use_cache", "is_causal", "output_attentions",
})  # fmt: skip
"""What layers pass on that is known otherwise: windows by the mask; nothing is dropped here."""


def use_attention(model: Any) -> None:
    """Let a transformers model call `attention_function`; it then needs `plan=` in every call."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, attention_function)
    ask_for_windows()
    model.config._attn_implementation = ATTENTION_NAME


def decoder_of(model: Any) -> Any:
    """The part of a causal language model below its head."""
    decoder, base = model.get_decoder(), model.base_model
    if decoder is not model and decoder is not model.get_output_embeddings():
        return decoder
    return base if base is not model else model.model  # Llama 4 names itself, ModernBERT its head


def hidden_states(
    model: Any, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: AttentionPlan
) -> torch.Tensor:
    """Last hidden states [batch, tokens, size] of a causal language model, without its head."""
    # A mask that hides nothing: without one, positions that begin again would be taken for
    # sequences that are packed side by side.
    mask = torch.ones(token_ids.shape, dtype=torch.bool, device=token_ids.device)
    output = decoder_of(model)(
        input_ids=token_ids,
        attention_mask=mask,
        position_ids=position_ids,
        use_cache=False,
        plan=plan,
    )
    return output.last_hidden_state  # type: ignore[no-any-return]
