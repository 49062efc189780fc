"""Decoding on a GPU: every step is the same kernels on the same addresses, so it can be recorded.

A step of a small model is bound by launching its kernels, not by running them. Recorded once as a
CUDA graph, a step is one launch. So nothing here depends on values: the step is a tensor, rows
that have ended go on unseen, and the host looks only every `CHECK_STEPS` steps whether all have.
Keys and values of a group of rows lie as in `decoding.py`:

    columns  p0 p1 .. p(width-1) | step 0: row 0, row 1 .. | step 1: row 0, row 1 .. | ..
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from selfplay.errors import PolicyError
from selfplay.modeling.attention import hidden_states
from selfplay.modeling.devices import device_of
from selfplay.modeling.fit import fit_of
from selfplay.modeling.variants import Variant
from selfplay.policy.sampling import draw_static
from selfplay.sampling import SampleRequest, end_of

log = logging.getLogger(__name__)

CHECK_STEPS = 16
"""Steps between two looks at the device."""
FIRST_REACH = 64
"""The columns of so many steps are attended to at first, then of twice as many, and so on."""
PREFILL_TOKENS = 32_768
"""Prompt tokens of one forward pass, padding included."""
MAX_SHAPES = 8
"""Batches of how many shapes are kept, with what was recorded for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of a batch, rounded up: `groups` of `cells` rows, prompts of `width` tokens, `steps` drawn
    tokens. `nucleus`: some row leaves unlikely tokens out."""

    groups: int
    cells: int
    width: int
    steps: int
    nucleus: bool

    @property
    def rows(self) -> int:
        return self.groups * self.cells

    @property
    def columns(self) -> int:
        """Of keys and values, in each group."""
        return self.width + self.steps * self.cells


def shape_of(
    prompts: Sequence[Sequence[int]], num_rows: Sequence[int], asked: Sequence[SampleRequest]
) -> Shape:
    """Rounded up so that batches of a run have few shapes, and little is wasted."""
    quarter = max(1, 1 << max(0, (len(prompts) - 1).bit_length() - 3))
    return Shape(
        groups=_rounded(len(prompts), quarter),
        cells=max(num_rows),
        width=_rounded(max(map(len, prompts)), 128),
        steps=_rounded(max(request.max_new_tokens for request in asked), 32),
        nucleus=any(request.top_p < 1 for request in asked),
    )


class PromptPlan:
    """Causal attention over prompts side by side, padded behind; keys and values are kept."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """[layers, prompts, key heads, columns, size] each."""
        self._keys, self._values = keys, values

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        variant: Variant | None = None,
    ) -> torch.Tensor:
        self._keys[layer, :, :, : key.shape[2]] = key
        self._values[layer, :, :, : key.shape[2]] = value
        gqa = query.shape[1] != key.shape[1]
        out = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=gqa
        )
        return out.transpose(1, 2)


class StepPlan:
    """Attention of one step of all rows, over the columns of the first `reach` steps."""

    def __init__(self, state: _State, reach: int) -> None:
        self._state = state
        self._stop = state.shape.width + reach * state.shape.cells
        self._bias: torch.Tensor | None = None

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        variant: Variant | None = None,
    ) -> torch.Tensor:
        state, shape = self._state, self._state.shape
        keys, values = state.keys[layer], state.values[layer]
        key_heads, size = key.shape[1], key.shape[3]
        grid = (shape.groups, shape.cells, key_heads, size)
        keys.index_copy_(2, state.column, key.reshape(grid).transpose(1, 2))
        values.index_copy_(2, state.column, value.reshape(grid).transpose(1, 2))
        shared = query.shape[1] // key_heads
        if self._bias is None:
            self._bias = self._visible(shared, query.dtype)
        # [groups, key heads, cells x shared, size]: the rows of a group, and the query heads that
        # share a key head, are queries of one attention over the group's columns.
        grouped = query.reshape(shape.groups, shape.cells, key_heads, shared, size).transpose(1, 2)
        out = functional.scaled_dot_product_attention(
            grouped.reshape(shape.groups, key_heads, -1, size),
            keys[:, :, : self._stop],
            values[:, :, : self._stop],
            attn_mask=self._bias,
            scale=scale,
        )
        out = out.view(shape.groups, key_heads, shape.cells, shared, size).transpose(1, 2)
        return out.reshape(shape.rows, 1, key_heads * shared, size)

    def _visible(self, shared: int, dtype: torch.dtype) -> torch.Tensor:
        """Additive [groups, 1, cells x shared heads, columns]: a row sees its prompt, and its own
        columns of all steps up to this one."""
        state, shape = self._state, self._state.shape
        column = torch.arange(self._stop, device=state.column.device)
        prompt = column < state.lengths.view(-1, 1, 1)
        cell = torch.arange(shape.cells, device=column.device).unsqueeze(1)
        # state.column: where this step's keys go, one for each cell. Its values change from step to
        # step, its address does not, so the recorded graph sees the mask move on.
        own = (column >= shape.width) & (column <= state.column[-1])
        own = own & ((column - shape.width) % shape.cells == cell)
        seen = (prompt | own).repeat_interleave(shared, dim=1).unsqueeze(1)
        bias = torch.zeros(seen.shape, dtype=dtype, device=column.device)
        return bias.masked_fill_(~seen, float("-inf"))


class StaticSampler:
    """Draws batches of answers; holds the keys and values of one batch, and its recordings."""

    def __init__(self, model: Any, end_of_turn_id: int) -> None:
        self._model = model
        self._device = device_of(model)
        self._end = end_of_turn_id
        self._states: dict[Shape, _State] = {}
        self._arena: torch.Tensor | None = None
        self._records = self._device.type == "cuda"

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        num_rows: Sequence[int],
        asked: Sequence[SampleRequest],
        seed: int,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities [row][step] of rows numbered group by group; what follows a
        row's end of turn or limit means nothing. `asked`: the request of each row."""
        shape = shape_of(prompts, num_rows, asked)
        max_steps = max(request.max_new_tokens for request in asked)
        cells = [g * shape.cells + c for g, num in enumerate(num_rows) for c in range(num)]
        state = self._open(shape)
        state.load(list(map(len, prompts)), cells, asked, seed, self._end)
        states = self._prefill(state, prompts)
        self._note(state, states.repeat_interleave(shape.cells, dim=0))
        for step in range(1, max_steps):
            if step % CHECK_STEPS == 0 and not state.is_alive():
                break
            state.advance(step)
        if not bool(state.sound):
            raise PolicyError("the model's logits are not finite; are the weights sound?")
        rows = torch.tensor(cells, device=self._device)
        return state.tokens[rows].tolist(), state.logprobs[rows].tolist()

    def _open(self, shape: Shape) -> _State:
        """The state of this shape; a new one is recorded where that can be done."""
        if shape in self._states:
            return self._states[shape]
        layers = fit_of(self._model).shapes
        _, key_heads, size = layers[0]
        layout = (2, len(layers), shape.groups, key_heads, shape.columns, size)
        needed = math.prod(layout)
        if self._arena is None or self._arena.numel() < needed or len(self._states) >= MAX_SHAPES:
            self._states.clear()
            if self._arena is None or self._arena.numel() < needed:
                self._arena = None  # before the larger one comes
                weight = next(self._model.parameters())
                self._arena = torch.empty(needed, dtype=weight.dtype, device=self._device)
        state = _State(shape, self._arena[:needed].view(layout))
        self._states[shape] = state
        self._record(state)
        return state

    def _prefill(self, state: _State, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run all prompts; their last states [groups, size], of padding groups the first's."""
        last: list[torch.Tensor] = []
        at_once = max(1, PREFILL_TOKENS // state.shape.width)
        for start in range(0, len(prompts), at_once):
            part = prompts[start : start + at_once]
            width = max(map(len, part))
            padded = [[*prompt, *[0] * (width - len(prompt))] for prompt in part]
            token_ids = torch.tensor(padded, device=self._device)
            positions = torch.arange(width, device=self._device).expand_as(token_ids)
            rows = slice(start, start + len(part))
            plan = PromptPlan(state.keys[:, rows], state.values[:, rows])
            states = hidden_states(self._model, token_ids, positions, plan)
            ends = state.lengths[rows] - 1
            last.append(states[torch.arange(len(part), device=self._device), ends])
        last.append(last[0][:1].expand(state.shape.groups - len(prompts), -1))
        return torch.cat(last)

    def _step(self, state: _State, reach: int) -> None:
        """Run the rows' newest tokens and draw the next ones."""
        plan = StepPlan(state, reach)
        newest, position = state.newest.unsqueeze(1), state.position.unsqueeze(1)
        states = hidden_states(self._model, newest, position, plan)[:, 0]
        state.column.add_(state.shape.cells)
        self._note(state, states)

    def _note(self, state: _State, states: torch.Tensor) -> None:
        """Draw one token for each row from its last state, and write it down."""
        logits = fit_of(self._model).head.of(self._model, states)
        uniform = state.uniform.index_select(0, state.count)[0]
        top_p = state.top_p if state.shape.nucleus else None
        drawn, logprob = draw_static(logits, state.divisor, state.greedy, top_p, uniform)
        state.tokens.index_copy_(1, state.count, drawn.unsqueeze(1))
        state.logprobs.index_copy_(1, state.count, logprob.unsqueeze(1))
        # An idle row draws from whatever it sees; only one that is alive must be finite.
        state.sound.logical_and_((torch.isfinite(logprob) | ~state.alive).all())
        state.count.add_(1)
        state.alive.logical_and_((drawn != state.end) & (state.limit > state.count))
        state.newest.copy_(drawn)
        state.position.add_(1)

    def _record(self, state: _State) -> None:
        """Give the state its steps: recorded, or where that fails (said once) run one by one."""
        reaches = [FIRST_REACH]
        while reaches[-1] < state.shape.steps:
            reaches.append(2 * reaches[-1])
        for reach in [min(reach, state.shape.steps) for reach in reaches]:

            def step(reach: int = reach) -> None:
                self._step(state, reach)

            state.steps[reach] = step
            if not self._records:
                continue
            try:
                state.steps[reach] = _recorded(step, state)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._records = False
                log.warning(
                    "decoding cannot be recorded, it is slower (%s)", str(error).splitlines()[0]
                )


class _State:
    """What one batch holds, at addresses that never change."""

    def __init__(self, shape: Shape, buffers: torch.Tensor) -> None:
        device, rows = buffers.device, shape.rows
        self.shape = shape
        self.keys, self.values = buffers
        self.steps: dict[int, Any] = {}
        self.lengths = torch.ones(shape.groups, dtype=torch.long, device=device)
        self.column = torch.zeros(shape.cells, dtype=torch.long, device=device)
        self.count = torch.zeros(1, dtype=torch.long, device=device)
        self.newest = torch.zeros(rows, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, dtype=torch.long, device=device)
        self.limit = torch.zeros(rows, dtype=torch.long, device=device)
        self.alive = torch.zeros(rows, dtype=torch.bool, device=device)
        self.greedy = torch.zeros(rows, dtype=torch.bool, device=device)
        self.sound = torch.ones((), dtype=torch.bool, device=device)
        self.divisor = torch.ones(rows, device=device)
        self.top_p = torch.ones(rows, device=device)
        self.uniform = torch.zeros(shape.steps, rows, 2, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(rows, shape.steps, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(rows, shape.steps, device=device)
        self.end = torch.zeros(rows, dtype=torch.long, device=device)
        self.load([], [], [], 0)

    def load(
        self,
        lengths: list[int],
        cells: list[int],
        asked: Sequence[SampleRequest],
        seed: int,
        end_of_turn_id: int = 0,
    ) -> None:
        """Begin a batch of rows in these cells of the grid; idle cells draw from the first prompt
        and are seen by nobody."""
        shape, rows = self.shape, self.shape.rows
        temperature, top_p, limit = [1.0] * rows, [1.0] * rows, [0] * rows
        end = [end_of_turn_id] * rows
        for cell, request in zip(cells, asked, strict=True):
            temperature[cell], top_p[cell] = float(request.temperature), float(request.top_p)
            limit[cell] = request.max_new_tokens
            end[cell] = end_of(request, end_of_turn_id)
        whole = [*lengths, *[1] * (shape.groups - len(lengths))]
        self.keys.zero_()  # what is masked must be finite
        self.values.zero_()
        _write(self.lengths, whole)
        _write(self.column, range(shape.width, shape.width + shape.cells))
        _write(self.position, [length - 1 for length in whole for _ in range(shape.cells)])
        _write(self.limit, limit)
        _write(self.end, end)
        _write(self.alive, [number > 0 for number in limit])
        _write(self.greedy, [value == 0 for value in temperature])
        _write(self.divisor, [value or 1.0 for value in temperature])
        _write(self.top_p, [value if value < 1 else float("inf") for value in top_p])
        self.count.zero_()
        self.sound.fill_(True)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(self.uniform.shape, generator=generator, dtype=torch.float64)
        self.uniform.copy_(drawn)

    def advance(self, step: int) -> None:
        """Run the step that draws token `step` (from 1 on)."""
        self.steps[min(reach for reach in self.steps if reach >= step)]()

    def is_alive(self) -> bool:
        """Whether some row goes on; waits for the device."""
        return bool(self.alive.any())


def _recorded(step: Any, state: _State) -> Any:
    """A CUDA graph of `step`, which leaves its traces in the state: it is loaded anew later."""
    state.load([], [], [], 0)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # libraries allocate and choose kernels when they are first used
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _write(target: torch.Tensor, values: Sequence[Any]) -> None:
    target.copy_(torch.tensor(values, dtype=target.dtype))


def _rounded(number: int, unit: int) -> int:
    return -(-number // unit) * unit
