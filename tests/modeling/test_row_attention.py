"""The attention of GPUs against the tree attention of CPUs, on a CPU, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as flex

from selfplay.modeling import row_attention
from selfplay.modeling.attention import TreePlan
from selfplay.modeling.prefix_tree import PrefixTree, build_tree, visible
from selfplay.modeling.row_attention import (
    BLOCK,
    FlexKernel,
    RowPlan,
    block_mask,
    choose_kernel,
    make_plan,
    padded_length,
)
from tests.policy.test_prefix_tree import seen, sequences

long_sequences = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 150), st.integers(1, 90)), min_size=1, max_size=6
).map(lambda parts: [(first,) * one + (3 + n,) * two for n, (first, one, two) in enumerate(parts)])
Tensors = list[torch.Tensor]


@contextmanager
def eager_flex() -> Iterator[None]:
    """flex_attention as written, uncompiled; it refuses gradients on CPUs for no lack of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "_validate_device", lambda *_: None)
        patch.setattr(row_attention, "compiled_flex", lambda: flex.flex_attention)
        patch.setattr(row_attention, "LENGTHS", (BLOCK,))  # uncompiled, padding costs its square
        yield


def results(
    plan: TreePlan | RowPlan, num: int, dtype: torch.dtype, key_heads: int = 2
) -> tuple[torch.Tensor, Tensors]:
    """Output, and gradients of queries, keys and values."""
    generator = torch.Generator().manual_seed(num)
    inputs = [
        torch.randn(1, heads, num, 16, generator=generator).to(dtype).requires_grad_()
        for heads in (6, key_heads, key_heads)
    ]
    with eager_flex():
        query, key, value = inputs
        out = plan.attend(0, query, key, value, 0.3)
        out.backward(torch.randn(out.shape, generator=generator).to(dtype))  # type: ignore[no-untyped-call]
    return out.detach(), [tensor.grad for tensor in inputs if tensor.grad is not None]


def assert_equal_to_tree(tree: PrefixTree, kernel: str, dtype: torch.dtype) -> None:
    num = len(tree.token_ids)
    want, wanted = results(TreePlan(tree.blocks), num, dtype)
    got, gotten = results(RowPlan(tree.stops, kernel=kernel), num, dtype)
    limit = 1e-5 if dtype == torch.float32 else 2e-2
    for one, two in zip([got, *gotten], [want, *wanted], strict=True):
        assert one.shape == two.shape
        assert float((one - two).float().norm()) <= limit * float(two.float().norm())


@settings(deadline=None)
@given(sequences, st.booleans())
def test_stops_say_who_sees_whom(found: list[tuple[int, ...]], share: bool) -> None:
    tree = build_tree(found, block_tokens=4, share=share)
    assert torch.equal(visible(torch.tensor(tree.stops)), seen(tree))


@settings(max_examples=12, deadline=None)
@given(long_sequences, st.booleans(), st.sampled_from(["flex", "dense"]))
def test_kernels_equal_the_tree_attention(
    found: list[tuple[int, ...]], share: bool, kernel: str
) -> None:
    tree = build_tree(found, share=share)
    assert_equal_to_tree(tree, kernel, torch.float32)


@pytest.mark.parametrize("kernel", ["flex", "dense", "causal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_sequence_is_causal_attention(kernel: str, dtype: torch.dtype) -> None:
    assert_equal_to_tree(build_tree([tuple(range(300))]), kernel, dtype)


@pytest.mark.parametrize("kernel", ["flex", "dense"])
def test_in_bf16_they_agree_within_its_precision(kernel: str) -> None:
    tree = build_tree([(1,) * 140 + (n,) * 33 for n in range(5)])
    assert_equal_to_tree(tree, kernel, torch.bfloat16)


@settings(max_examples=20, deadline=None)
@given(long_sequences)
def test_blocks_that_are_skipped_hold_nothing_and_whole_ones_everything(
    found: list[tuple[int, ...]],
) -> None:
    kernel = FlexKernel(build_tree(found).stops, torch.device("cpu"))
    mask = kernel._mask
    num = mask.kv_indices.shape[-1]
    stops = torch.tensor([*build_tree(found).stops])
    stops = torch.cat([stops, torch.arange(len(stops), num * BLOCK) + 1])
    squares = visible(stops).view(num, BLOCK, num, BLOCK).transpose(1, 2)
    for query in range(num):
        some = mask.kv_indices[0, 0, query, : mask.kv_num_blocks[0, 0, query]].tolist()
        whole = mask.full_kv_indices[0, 0, query, : mask.full_kv_num_blocks[0, 0, query]].tolist()
        assert not set(some) & set(whole)
        for key in range(num):
            square = squares[query, key]
            assert bool(square.any()) <= (key in some or key in whole)
            assert (key in whole) <= bool(square.all())


def test_a_long_prompt_costs_no_masked_work() -> None:
    tree = build_tree([(1,) * 1024 + (n,) * 64 for n in range(2, 10)])
    mask = block_mask(torch.tensor([*tree.stops, *range(1537, 2049)], dtype=torch.int32),
                      torch.device("cpu"))  # fmt: skip
    computed = int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum())
    assert int(mask.kv_num_blocks.sum()) == 16  # the diagonal alone
    assert computed == 8 * 9 // 2 + 4 * (8 + 1) + 4


def test_padding_costs_a_block_for_each_block() -> None:
    mask = FlexKernel(build_tree([(1,) * 100]).stops, torch.device("cpu"))._mask
    assert int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) == 2048 // BLOCK


@pytest.mark.parametrize("gradients", [False, True])
def test_a_run_compiles_a_handful_of_times(gradients: bool) -> None:
    """Rows of all lengths up to a micro-batch, here of 2,048 tokens instead of 8,192."""
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(1)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(flex.flex_attention, dynamic=False, fullgraph=True, backend=count)
    with pytest.MonkeyPatch.context() as patch, torch.set_grad_enabled(gradients):
        patch.setattr(flex, "_validate_device", lambda *_: None)
        patch.setattr(row_attention, "compiled_flex", lambda: compiled)
        patch.setattr(row_attention, "LENGTHS", (512, 2048))
        for num in (40, 129, 200, 256, 300, 400, 512, 600, 700, 900, 1200):
            tree = build_tree([(1,) * (num // 2), (1,) * (num // 3) + (2,) * (num - num // 2)])
            rows = len(tree.stops)
            query, key = torch.randn(1, 2, rows, 4), torch.randn(1, 1, rows, 4)
            query.requires_grad_(gradients)
            FlexKernel(tree.stops, torch.device("cpu"))(query, key, key, 0.3)
    assert len(graphs) == 2
    assert {padded_length(num) for num in range(1, 16385)} == {2048, 8192, 16384}


def test_choice_of_plan_and_kernel() -> None:
    tree, chain = build_tree([(1, 2), (1, 3)]), build_tree([(1, 2, 3)])
    query, key = torch.zeros(1, 4, 3, 16), torch.zeros(1, 2, 3, 16)
    assert isinstance(make_plan(tree, torch.device("cpu")), TreePlan)
    assert isinstance(make_plan(tree, torch.device("cuda")), RowPlan)
    assert choose_kernel(chain.stops, query, key) == "causal"
    assert choose_kernel(tree.stops, query, key) == "dense"


def test_without_a_compiler_the_dense_kernel_is_taken_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> object:
        raise RuntimeError("no Triton\nand more")

    row_attention.flex_works.cache_clear()
    monkeypatch.setattr(row_attention, "compiled_flex", broken)
    for _ in range(2):
        assert not row_attention.flex_works((4, 2, 16), torch.float32, torch.device("cpu"))
    row_attention.flex_works.cache_clear()
    assert [r.message.count("no Triton") for r in caplog.records] == [1]


def test_the_trial_of_flex_is_unseen_by_recomputed_activations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch.utils.checkpoint import checkpoint

    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(row_attention, "compiled_flex", lambda: flex.flex_attention)
    row_attention.flex_works.cache_clear()
    found = []

    def layer(value: torch.Tensor) -> torch.Tensor:
        device = torch.device("cpu")
        found.append(row_attention.flex_works((4, 2, 16), torch.float32, device))
        return (value * value).sin()

    value = torch.ones(3, requires_grad=True)
    checkpoint(layer, value, use_reentrant=False).sum().backward()
    with torch.inference_mode():
        row_attention.flex_works.cache_clear()
        layer(torch.ones(3))
    row_attention.flex_works.cache_clear()
    assert found == [True, True, True]
