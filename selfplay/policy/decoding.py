"""Decoding of many answers at once on keys and values of prompts that are held once per group.

Rows (answers) of one prompt form a group. Keys and values of a group lie in one buffer, its prompt
first and then one column for each step and row:

    columns  p0 p1 .. p(P-1) | step 0: row 0, row 1 .. | step 1: row 0, row 1 .. | ..

so that a step's attention over all rows of all groups is a single call; a mask hides the other
rows' columns and the padding of shorter prompts. Finished rows leave the linear layers at once,
and the buffers are rebuilt smaller when half of their grid is idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from selfplay.modeling.attention import hidden_states
from selfplay.modeling.devices import device_of
from selfplay.modeling.prefix_tree import build_tree
from selfplay.modeling.row_attention import make_plan
from selfplay.modeling.variants import Variant, attend


class DecodePlan:
    """Attention plan of one decoding step; row `i` sits in cell `cells[i]` of the grid."""

    def __init__(self, lengths: torch.Tensor, num_cells: int, max_steps: int) -> None:
        self.lengths = lengths
        self.num_cells = num_cells
        self.max_steps = max_steps
        self.width = int(lengths.max())
        self.step = 0
        self.cells = lengths.new_empty(0)
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._masks: dict[tuple[torch.dtype, int], torch.Tensor] = {}

    @property
    def num_groups(self) -> int:
        return len(self.lengths)

    def add_layer(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Buffers of the next layer, [groups, key heads, columns, head size]."""
        self._keys.append(key)
        self._values.append(value)

    def empty_buffer(self, like: torch.Tensor) -> torch.Tensor:
        """Zeros (padding is masked, but must be finite), [groups, key heads, columns, size]."""
        columns = self.width + self.max_steps * self.num_cells
        return like.new_zeros(self.num_groups, like.shape[0], columns, like.shape[-1])

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        variant: Variant | None = None,
    ) -> torch.Tensor:
        start = self.width + self.step * self.num_cells
        stop = start + self.num_cells
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, start:stop] = self._to_grid(key[:, :, 0]).transpose(1, 2)
        values[:, :, start:stop] = self._to_grid(value[:, :, 0]).transpose(1, 2)
        if variant is not None and variant.matters(self.width + self.max_steps):
            return self._attend_as(variant, query, keys[:, :, :stop], values[:, :, :stop], scale)
        key_heads, size = key.shape[1], key.shape[3]
        shared = query.shape[1] // key_heads
        grid = self._to_grid(query[:, :, 0]).view(
            self.num_groups, self.num_cells, key_heads, shared, size
        )
        grouped = grid.transpose(1, 2).reshape(self.num_groups, key_heads, -1, size)
        mask = self._mask(query.dtype, shared)[..., :stop]
        out = functional.scaled_dot_product_attention(
            grouped, keys[:, :, :stop], values[:, :, :stop], attn_mask=mask, scale=scale
        )
        out = out.view(self.num_groups, key_heads, self.num_cells, shared, size).transpose(1, 2)
        flat = out.reshape(self.num_groups * self.num_cells, 1, key_heads * shared, size)
        return flat[self.cells]

    def _attend_as(
        self,
        variant: Variant,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """As `attend`, over all columns so far, as a layer attends that is no plain one."""
        grid = self._to_grid(query[:, :, 0]).transpose(1, 2)  # [groups, heads, cells, size]
        seen = self._mask(query.dtype, 1)[..., : keys.shape[2]] == 0
        column = torch.arange(keys.shape[2], device=keys.device)
        answered = self.lengths.unsqueeze(1) + (column - self.width) // self.num_cells
        position = torch.where(column < self.width, column, answered)[:, None, None]
        hidden = variant.hides((self.lengths + self.step).view(-1, 1, 1, 1), position)
        out = attend(grid, keys, values, seen if hidden is None else seen & ~hidden, scale, variant)
        return out.transpose(1, 2).flatten(0, 1).unsqueeze(1)[self.cells]

    def _to_grid(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, ...] -> [groups, cells of a group, ...]; idle cells are zero."""
        total = self.num_groups * self.num_cells
        if len(rows) != total:
            grid = rows.new_zeros(total, *rows.shape[1:])
            grid[self.cells] = rows
            rows = grid
        return rows.view(self.num_groups, self.num_cells, *rows.shape[1:])

    def _mask(self, dtype: torch.dtype, shared: int) -> torch.Tensor:
        """Additive [groups, 1, cells x shared heads, columns]."""
        if (dtype, shared) not in self._masks:
            device = self.lengths.device
            padding = torch.arange(self.width, device=device) >= self.lengths.unsqueeze(1)
            eye = torch.eye(self.num_cells, dtype=torch.bool, device=device)
            own = ~eye.repeat(1, self.max_steps)
            hidden = torch.cat(
                [
                    padding.unsqueeze(1).expand(-1, self.num_cells, -1),
                    own.unsqueeze(0).expand(self.num_groups, -1, -1),
                ],
                dim=-1,
            )
            mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
            mask = mask.masked_fill_(hidden, float("-inf"))
            self._masks[dtype, shared] = mask.repeat_interleave(shared, dim=1).unsqueeze(1)
        return self._masks[dtype, shared]

    def keep_rows(self, alive: torch.Tensor) -> DecodePlan:
        """Drop the rows that are not `alive` [rows]; a new, smaller plan where that pays."""
        self.cells = self.cells[alive]
        grid = self.num_groups * self.num_cells
        groups = self.cells // self.num_cells
        kept, counts = torch.unique(groups, return_counts=True)
        num_cells = int(counts.max())
        if 2 * len(kept) * num_cells > grid:
            return self
        return self._rebuild(kept, counts, num_cells)

    def _rebuild(self, kept: torch.Tensor, counts: torch.Tensor, num_cells: int) -> DecodePlan:
        plan = DecodePlan(self.lengths[kept], num_cells, self.max_steps)
        plan.step = self.step
        plan.cells = _cells(counts, num_cells)
        source = counts.new_zeros(len(kept) * num_cells)
        source[plan.cells] = self.cells % self.num_cells
        source = source.view(len(kept), num_cells)
        device = counts.device
        steps = torch.arange(self.step, device=device).view(1, -1, 1) * self.num_cells
        columns = (self.width + steps + source.unsqueeze(1)).flatten(1)
        prompt = torch.arange(plan.width, device=device).expand(len(kept), -1)
        columns = torch.cat([prompt, columns], dim=1)
        for buffers, add in ((self._keys, plan._keys), (self._values, plan._values)):
            for index, buffer in enumerate(buffers):
                smaller = plan.empty_buffer(buffer[0])
                index_map = columns.view(len(kept), 1, -1, 1).expand(
                    -1, buffer.shape[1], -1, buffer.shape[3]
                )
                smaller[:, :, : columns.shape[1]] = buffer[kept].gather(2, index_map)
                buffers[index] = buffer.new_empty(0)
                add.append(smaller)
        return plan


def prefill(
    model: Any, prompts: Sequence[tuple[int, ...]], num_rows: Sequence[int], max_steps: int
) -> tuple[DecodePlan, torch.Tensor]:
    """Run all prompts once, common prefixes shared; the plan and the last states of all rows.

    Rows are numbered group by group. Returns states [rows, hidden size].
    """
    tree = build_tree(prompts)
    device = device_of(model)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    plan = DecodePlan(lengths, max(num_rows), max_steps)
    counts = torch.tensor(num_rows, device=device)
    plan.cells = _cells(counts, plan.num_cells)

    def keep(layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        buffers = plan.empty_buffer(key), plan.empty_buffer(value)
        for index, path in enumerate(tree.paths):
            offset = 0
            for start, end in path:
                for buffer, source in zip(buffers, (key, value), strict=True):
                    buffer[index, :, offset : offset + end - start] = source[:, start:end]
                offset += end - start
        plan.add_layer(*buffers)

    states = hidden_states(
        model,
        torch.tensor([tree.token_ids], device=device),
        torch.tensor([tree.position_ids], device=device),
        make_plan(tree, device, keep),
    )[0]
    last = torch.tensor([path[-1][1] - 1 for path in tree.paths], device=device)
    return plan, states[last.repeat_interleave(counts)]


def _cells(counts: torch.Tensor, num_cells: int) -> torch.Tensor:
    """Cell of each row, for groups of `counts` rows that fill their cells from the first on."""
    group = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    return group * num_cells + torch.arange(len(group), device=counts.device) - first[group]
