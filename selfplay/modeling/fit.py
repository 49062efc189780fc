"""Which way of computing a model allows, found out by trying it when the model is first used.

    shared   all its layers are attention that `attention.py` computes: many sequences in one row,
             every shared prefix once
    alone    anything else that is causal (recurrent and convolution layers, positions as biases):
             one sequence at a time, by the model's own code

Nothing is read off the names of architectures. Three short sequences with equal beginnings are run
by the model's own code and by ours, and what must be alike is compared. A model that is right in
neither way is refused: log-probabilities that are a little wrong would train, and tell nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from selfplay.errors import UserError
from selfplay.modeling.attention import (
    AttentionPlan,
    TreePlan,
    decoder_of,
    hidden_states,
    use_attention,
)
from selfplay.modeling.devices import device_of
from selfplay.modeling.fused import fuse_norms
from selfplay.modeling.heads import PLAIN_HEAD, Head, find_head
from selfplay.modeling.prefix_tree import build_tree
from selfplay.modeling.row_attention import RowPlan
from selfplay.modeling.variants import ATTENTION_NAME, Variant

log = logging.getLogger(__name__)

_ATTRIBUTE = "selfplay_fit"
_LENGTHS, _EQUAL = (14, 26, 17), 8
"""Tokens of the sequences that are tried, and how many of the first are equal in all."""
_EXACT, _ROUNDED = (1e-3, 1e-2), (0.1, 1.0)
"""Mean and largest difference of log-probabilities, in nats, that rounding explains in fp32, and in
less. In bf16 two right ways differ by some 0.01, a layer that sees what it must not by tenths."""


Shape = tuple[int, int, int]
"""Heads, key heads, and the size of a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """shares: prefixes can be shared; `why` not. shapes: of the layers' attention, one after the
    other. reach: tokens up to which no window hides anything, None without windows. odd: some
    layer's attention differs at any length."""

    shares: bool = True
    why: str = ""
    shapes: tuple[Shape, ...] = ()
    reach: int | None = None
    odd: bool = False
    head: Head = PLAIN_HEAD

    def is_plain(self, length: int) -> bool:
        """Whether attention over `length` tokens is softmax(scale q k) v over all before, and alike
        in all layers."""
        reached = self.reach is None or length <= self.reach
        return self.shares and not self.odd and reached and len(set(self.shapes)) == 1


def fit_of(model: Any) -> Fit:
    """What `use_plans` has found."""
    fit: Fit = getattr(model, _ATTRIBUTE, None) or Fit()
    return fit


def use_plans(model: Any) -> Fit:
    """Prepare a transformers model for `states_of`, once; `UserError` for one that is right in no
    way. On a GPU its norms become single kernels as well."""
    known: Fit | None = getattr(model, _ATTRIBUTE, None)
    if known is not None:
        if known.shares:
            model.config._attn_implementation = ATTENTION_NAME
        return known
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            fit = _Trial(model).run()
    finally:
        model.train(training)
    setattr(model, _ATTRIBUTE, fit)
    if not fit.shares:
        log.warning(
            "%s: %s; each sequence is computed by itself, which takes longer",
            type(model).__name__,
            fit.why,
        )
    if fit.shares and device_of(model).type != "cpu":
        fuse_norms(model)
    return fit


def states_of(
    model: Any, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: AttentionPlan
) -> torch.Tensor:
    """Last hidden states [batch, tokens, size], without the head, whichever way `model` allows.

    Where prefixes cannot be shared the row must hold one sequence, and `plan` is not asked.
    """
    if fit_of(model).shares:
        return hidden_states(model, token_ids, position_ids, plan)
    return _alone(model, token_ids)


def row_limit(model: Any, tokens: int) -> int:
    """Tokens of a row that may hold several sequences: 1, each lies alone, where it must."""
    return tokens if fit_of(model).shares else 1


def are_alike(model: Any, left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether log-probabilities differ by no more than the rounding of the model's dtype."""
    whole = next(model.parameters()).dtype == torch.float32
    mean, largest = _EXACT if whole else _ROUNDED
    gap = (left - right).abs()
    return float(gap.mean()) <= mean and float(gap.max()) <= largest


def _alone(model: Any, token_ids: torch.Tensor) -> torch.Tensor:
    output = decoder_of(model)(input_ids=token_ids, use_cache=False)
    return output[0]  # type: ignore[no-any-return]


class _Trial:
    """One model, and what its own code says of the sequences."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = device_of(model)
        size = model.get_input_embeddings().weight.shape[0]
        self._ids = [
            [(7 * i + (0 if i < _EQUAL else 13 * number) + 5) % size for i in range(length)]
            for number, length in enumerate(_LENGTHS)
        ]

    def run(self) -> Fit:
        """How the model can be computed."""
        try:
            return self._tried()
        except UserError:
            raise
        except Exception as error:  # whatever a model's own code can raise
            raise self._refused(f"its own code fails on a short text ({_told(error)})") from error

    def _tried(self) -> Fit:
        logits, raw = self._own()
        said = [torch.log_softmax(values.float(), dim=-1) for values in logits]
        if not all(bool(torch.isfinite(values).all()) for values in said):
            raise self._refused("its logits are not finite; are its weights sound?")
        head = self._head(torch.cat(logits), torch.cat(raw))
        if not are_alike(self._model, said[0][:_EQUAL], said[1][:_EQUAL]):
            raise self._refused("what it says of a token depends on tokens after it")
        kept = self._model.config._attn_implementation
        use_attention(self._model)
        found = _Found(self._model)
        why = self._shared(found, head, said)
        if not why:
            shapes = tuple(found.shapes)
            return Fit(shapes=shapes, reach=found.reach, odd=found.odd, head=head)
        self._model.config._attn_implementation = kept
        for ids, values in zip(self._ids, said, strict=True):
            states = _alone(self._model, self._row(ids))[0]
            if not self._says(head, states, values):
                raise self._refused(f"{why}, and its head does not answer to its last states alone")
        return Fit(shares=False, why=why, head=head)

    def _own(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Of each sequence the model's logits, and what its head module answered to it."""
        head = self._model.get_output_embeddings()
        if head is None:
            raise self._refused("it has no output head")
        answers: list[torch.Tensor] = []
        hook = head.register_forward_hook(lambda _, __, answer: answers.append(answer))
        try:
            logits = [
                self._model(input_ids=self._row(ids), use_cache=False).logits[0]
                for ids in self._ids
            ]
        finally:
            hook.remove()
        if len(answers) != len(logits):
            raise self._refused("its logits are not made by its output head")
        return logits, [answer[0] for answer in answers]

    def _head(self, logits: torch.Tensor, raw: torch.Tensor) -> Head:
        module = self._model.get_output_embeddings()
        rounding = 1e-5 if logits.dtype == torch.float32 else 2e-2
        head = find_head(
            self._model.config.get_text_config(),
            logits,
            raw,
            bias=getattr(module, "bias", None) is not None,
            rounding=rounding,
        )
        if head is None:
            raise self._refused("its logits are not those of its output head, scaled or capped")
        return head

    def _shared(self, found: _Found, head: Head, said: Sequence[torch.Tensor]) -> str:
        """Why prefixes cannot be shared; "" where they can."""
        tree = build_tree(self._ids)
        if self._device.type == "cpu":
            found.plan = TreePlan(tree.blocks, None, tree.stops)
        else:  # nothing is compiled for a trial
            found.plan = RowPlan(tree.stops, kernel="dense")
        positions = torch.tensor([tree.position_ids], device=self._device)
        try:
            row = hidden_states(self._model, self._row(tree.token_ids), positions, found)[0]
        except Exception as error:  # whatever a model's own code can raise
            return f"its layers cannot be called with attention of ours ({_told(error)})"
        if not found.is_whole():
            return "not all of its layers are attention"
        for place, values in enumerate(said):
            states = row[torch.tensor(tree.rows(place), device=self._device)]
            if not self._says(head, states, values):
                return "its layers hand on more than attention does"
        return ""

    def _says(self, head: Head, states: torch.Tensor, said: torch.Tensor) -> bool:
        """Whether these last states of a sequence lead to the log-probabilities `said`."""
        logits = head.of(self._model, states).float()
        return are_alike(self._model, torch.log_softmax(logits, dim=-1), said)

    def _row(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor([ids], device=self._device)

    def _refused(self, why: str) -> UserError:
        name = type(self._model).__name__
        return UserError(
            f"{self._model.config.name_or_path or name}: this {name} can be neither trained nor "
            f"sampled in this process: {why}; use another causal language model, or have it served "
            "(policy=openai)"
        )


def _told(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class _Found:
    """A plan that notes who calls it, and lets `plan` answer."""

    def __init__(self, model: Any) -> None:
        self._num_layers: int = model.config.get_text_config().num_hidden_layers
        self._called: list[int] = []
        self.plan: AttentionPlan | None = None
        self.shapes: list[Shape] = []
        self.reach: int | None = None
        self.odd = False

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        variant: Variant | None = None,
    ) -> torch.Tensor:
        assert self.plan is not None
        self._called.append(layer)
        self.shapes.append((query.shape[1], key.shape[1], query.shape[3]))
        if variant is not None:
            self.odd |= variant.is_odd
            if variant.window is not None:
                self.reach = min(variant.window.reach, self.reach or variant.window.reach)
        return self.plan.attend(layer, query, key, value, scale, variant)

    def is_whole(self) -> bool:
        """Whether each layer has asked for attention once, in their order."""
        in_order = self._called == list(range(len(self._called)))
        return in_order and len(self._called) >= self._num_layers
