"""The layout of prefix trees, by value and by property."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from selfplay.modeling.prefix_tree import PrefixTree, build_tree, common_prefix

sequences = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=12).map(tuple), min_size=1, max_size=9
)


def seen(tree: PrefixTree) -> torch.Tensor:
    """The whole attention mask that the blocks stand for, bool [tokens, tokens]."""
    num = len(tree.token_ids)
    mask = torch.zeros(num, num, dtype=torch.bool)
    for block in tree.blocks:
        for start, end in block.visible:
            mask[block.start : block.end, start:end] = True
        mask[block.start : block.end, block.start : block.end] = block.mask
    return mask


def test_worked_example() -> None:
    tree = build_tree([(1, 2, 3), (1, 2, 4), (1, 2, 4, 5)])
    assert tree.token_ids == (1, 2, 3, 4, 5)
    assert tree.position_ids == (0, 1, 2, 2, 3)
    assert [tree.rows(index) for index in range(3)] == [[0, 1, 2], [0, 1, 3], [0, 1, 3, 4]]


def test_common_prefix() -> None:
    assert common_prefix((1, 2, 3), (1, 2, 4)) == 2
    assert common_prefix((1,), (1, 2)) == 1
    assert common_prefix((), (1,)) == 0


@given(sequences, st.sampled_from([1, 2, 5, 256]))
def test_each_sequence_is_on_its_path_and_sees_exactly_its_prefix(
    found: list[tuple[int, ...]], block_tokens: int
) -> None:
    tree = build_tree(found, block_tokens=block_tokens)
    mask = seen(tree)
    for index, sequence in enumerate(found):
        rows = tree.rows(index)
        assert tuple(tree.token_ids[row] for row in rows) == sequence
        assert [tree.position_ids[row] for row in rows] == list(range(len(sequence)))
        for length, row in enumerate(rows, 1):
            assert torch.nonzero(mask[row]).flatten().tolist() == rows[:length]


@given(sequences, st.sampled_from([1, 2, 5, 256]))
def test_blocks_cover_the_row_once_and_stay_small(
    found: list[tuple[int, ...]], block_tokens: int
) -> None:
    tree = build_tree(found, block_tokens=block_tokens)
    prefixes = {sequence[:end] for sequence in found for end in range(1, len(sequence) + 1)}
    assert len(tree.token_ids) == len(prefixes)
    spans = sorted((block.start, block.end) for block in tree.blocks)
    assert [row for start, end in spans for row in range(start, end)] == list(range(len(prefixes)))
    assert all(end - start <= block_tokens for start, end in spans)
