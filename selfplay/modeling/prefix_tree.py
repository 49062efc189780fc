"""Many token sequences laid out in one row, every shared prefix once.

A causal model's state at a token depends on the token's prefix alone, so sequences with equal
leading tokens can share them exactly, in forward and backward: the prompt of a group of answers,
the system prompt of all groups, and even the first tokens of equal answers. The layout is the
depth-first order of the compressed prefix tree. Example, three sequences:

    (1,2,3) (1,2,4) (1,2,4,5)  ->  row 1 2 3 4 5, positions 0 1 2 2 3, paths 0-3 / 0-2,3-4 / 0-2,3-5

Attention works on blocks: a run of query tokens that sees some key ranges whole and itself
through a mask. Long shared prefixes therefore cost no masked-out work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

Span = tuple[int, int]
"""Half-open range of row indices."""

_STRIDE = 64
BLOCK_TOKENS = 256
"""Queries of the largest block, unless told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Queries `start:end` of the row; they see `visible` whole and themselves through `mask`.

    mask: bool [end - start, end - start], True where the key is seen.
    """

    start: int
    end: int
    visible: tuple[Span, ...]
    mask: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixTree:
    """The row, the position of each token in its own sequence, and where each sequence lies."""

    token_ids: tuple[int, ...]
    position_ids: tuple[int, ...]
    blocks: tuple[Block, ...]
    stops: tuple[int, ...]
    """The row after the last that sees each token."""
    paths: tuple[tuple[Span, ...], ...]

    def rows(self, index: int) -> list[int]:
        """Row indices of the tokens of sequence `index`, in its order."""
        return [row for start, end in self.paths[index] for row in range(start, end)]


@dataclass(slots=True)
class _Node:
    """A run of tokens without branches; `stop` is the end of the whole subtree in the row."""

    start: int
    end: int = 0
    stop: int = 0
    parent: _Node | None = None
    children: list[_Node] = field(default_factory=list)

    def path(self) -> list[Span]:
        above = self.parent.path() if self.parent else []
        return _joined([*above, (self.start, self.end)])


def common_prefix(left: Sequence[int], right: Sequence[int], start: int = 0) -> int:
    """Number of equal leading tokens; those before `start` are known to be equal."""
    limit = min(len(left), len(right))
    index = start
    while index + _STRIDE <= limit and (
        left[index : index + _STRIDE] == right[index : index + _STRIDE]
    ):
        index += _STRIDE
    while index < limit and left[index] == right[index]:
        index += 1
    return index


def build_tree(
    sequences: Sequence[Sequence[int]], *, block_tokens: int = BLOCK_TOKENS, share: bool = True
) -> PrefixTree:
    """Lay out `sequences` (none empty); no block holds more than `block_tokens` queries, and with 0
    there are none (`stops` say it all).

    Without `share`, each sequence lies in the row by itself.
    """
    assert sequences and all(len(sequence) for sequence in sequences)
    forest = _Forest(block_tokens)
    if share:
        return forest.tree(forest.add(sequences))
    return forest.tree([forest.add([sequence])[0] for sequence in sequences])


def visible(stops: torch.Tensor) -> torch.Tensor:
    """Whether query q of a row sees key k, told from the keys' `stops`, bool [queries, keys]."""
    rows = torch.arange(len(stops), device=stops.device)
    return (rows.unsqueeze(1) >= rows) & (rows.unsqueeze(1) < stops)


class _Forest:
    """Trees side by side in one row."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self.tokens: list[int] = []
        self._positions: list[int] = []
        self._stops: list[int] = []
        self._blocks: list[Block] = []

    def add(self, sequences: Sequence[Sequence[int]]) -> list[tuple[Span, ...]]:
        """Append a tree; the path of each sequence."""
        order = sorted(range(len(sequences)), key=lambda index: tuple(sequences[index]))
        builder = _Builder([tuple(sequences[index]) for index in order], len(self.tokens))
        root = builder.build()
        self.tokens += builder.tokens
        self._positions += builder.positions
        self._stops += builder.stops
        if self._block_tokens:
            _make_blocks([root], (), self._block_tokens, self._blocks)
        paths: list[tuple[Span, ...]] = [()] * len(sequences)
        for index, node in zip(order, builder.last_node, strict=True):
            paths[index] = tuple(node.path())
        return paths

    def tree(self, paths: Sequence[tuple[Span, ...]]) -> PrefixTree:
        return PrefixTree(
            token_ids=tuple(self.tokens),
            position_ids=tuple(self._positions),
            blocks=tuple(self._blocks),
            stops=tuple(self._stops),
            paths=tuple(paths),
        )


class _Builder:
    """Builds nodes in depth-first order over lexicographically sorted sequences."""

    def __init__(self, ordered: list[tuple[int, ...]], first_row: int) -> None:
        self._ordered = ordered
        self._first_row = first_row
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.stops: list[int] = []
        self.last_node: list[_Node] = [_Node(0)] * len(ordered)

    def build(self) -> _Node:
        """Work through an explicit stack: a tree of answers may be deeper than Python's."""
        root = _Node(0)
        stack: list[tuple[_Node, int, int, int]] = [(root, 0, len(self._ordered), 0)]
        nodes: list[_Node] = []
        while stack:
            node, low, high, depth = stack.pop()
            nodes.append(node)
            first, last = self._ordered[low], self._ordered[high - 1]
            # Sorted: what the first and the last have in common, all between them have, too.
            common = common_prefix(first, last, depth)
            node.start = self._first_row + len(self.tokens)
            self.tokens.extend(first[depth:common])
            self.positions.extend(range(depth, common))
            node.end = self._first_row + len(self.tokens)
            # Those that end here are the shortest, so they come first.
            while low < high and len(self._ordered[low]) == common:
                self.last_node[low] = node
                low += 1
            pending = []
            while low < high:
                split = low + 1
                token = self._ordered[low][common]
                while split < high and self._ordered[split][common] == token:
                    split += 1
                child = _Node(0, parent=node)
                node.children.append(child)
                pending.append((child, low, split, common))
                low = split
            stack.extend(reversed(pending))  # the first child is laid out next
        for node in reversed(nodes):
            node.stop = node.children[-1].stop if node.children else node.end
        for node in nodes:
            self.stops.extend([node.stop] * (node.end - node.start))
        return root


def _make_blocks(
    siblings: list[_Node], path: tuple[Span, ...], limit: int, blocks: list[Block]
) -> None:
    """Small subtrees side by side become one block; a large node becomes blocks of its own."""
    pending: list[_Node] = []
    for node in siblings:
        if node.stop - node.start <= limit:
            if pending and node.stop - pending[0].start > limit:
                blocks.append(_subtree_block(pending, path))
                pending = []
            pending.append(node)
            continue
        if pending:
            blocks.append(_subtree_block(pending, path))
            pending = []
        for start in range(node.start, node.end, limit):
            end = min(start + limit, node.end)
            visible = tuple(_joined([*path, (node.start, start)]))
            mask = torch.ones(end - start, end - start, dtype=torch.bool).tril_()
            blocks.append(Block(start=start, end=end, visible=visible, mask=mask))
        below = tuple(_joined([*path, (node.start, node.end)]))
        _make_blocks(node.children, below, limit, blocks)
    if pending and pending[-1].stop > pending[0].start:
        blocks.append(_subtree_block(pending, path))


def _subtree_block(nodes: list[_Node], path: tuple[Span, ...]) -> Block:
    """One block for whole subtrees: each token sees its ancestors inside the block and itself."""
    start, end = nodes[0].start, nodes[-1].stop
    mask = torch.zeros(end - start, end - start, dtype=torch.bool)
    stack = list(reversed(nodes))
    while stack:
        node = stack.pop()
        low, high = node.start - start, node.end - start
        parent = node.parent
        # A parent outside the block is in `path`. Inside, its last token sees its ancestors and
        # itself alone: that row of the mask is what all of this node's tokens see above them.
        if parent is not None and parent.end > start and parent.end > parent.start:
            mask[low:high] |= mask[parent.end - start - 1]
        mask[low:high, low:high] = torch.ones(high - low, high - low, dtype=torch.bool).tril_()
        stack.extend(reversed(node.children))
    return Block(start=start, end=end, visible=path, mask=mask)


def _joined(spans: list[Span]) -> list[Span]:
    """Without empty spans; neighbours that touch become one."""
    result: list[Span] = []
    for start, end in spans:
        if start == end:
            continue
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result
