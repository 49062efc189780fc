"""The sampler on a tiny random model: log-probabilities, determinism, batching, stragglers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.errors import PolicyError
from selfplay.policy.decoding import prefill
from selfplay.policy.static_decoding import StaticSampler, shape_of
from selfplay.policy.transformers import TransformersPolicy, make_batches
from selfplay.sampling import SampleRequest
from selfplay.types import Completion
from tests.learner.tiny import VOCABULARY, tiny_model

END = 3


class PlainTokenizer:
    """Ids as text; the sampler needs no more."""

    end_of_turn_id = END

    def render(self, system: str, user: str) -> tuple[int, ...]:
        return self.encode(f"{system} {user}")

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split())

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(str(token) for token in token_ids if token != END)


@pytest.fixture(scope="module")
def policy() -> TransformersPolicy:
    return TransformersPolicy(tiny_model(), PlainTokenizer(), version=7)


def with_static_decoding(policy: TransformersPolicy) -> TransformersPolicy:
    """What is done on a GPU, without one."""
    policy._static = StaticSampler(policy.model, END)
    return policy


def reference_logprobs(
    prompt: Sequence[int], answer: Completion, temperature: float
) -> torch.Tensor:
    """By one full forward pass of the unchanged model code."""
    model = tiny_model()
    ids = torch.tensor([[*prompt, *answer.token_ids]])
    with torch.no_grad():
        logp = torch.log_softmax(model(ids).logits[0] / temperature, dim=-1)
    num = len(answer.token_ids)
    rows = logp[len(prompt) - 1 : len(prompt) - 1 + num]
    return rows.gather(1, torch.tensor(answer.token_ids).unsqueeze(1)).squeeze(1)


requests = st.lists(
    st.builds(
        SampleRequest,
        prompt_ids=st.lists(st.integers(4, 7), min_size=1, max_size=9).map(tuple),
        num_samples=st.integers(1, 5),
        max_new_tokens=st.integers(1, 12),
        temperature=st.sampled_from([1.0, 0.6, 2.0]),
        top_p=st.sampled_from([1.0, 0.8]),
        seed=st.integers(0, 99),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=15, deadline=None)
@given(requests, st.sampled_from([1, 60, 24_000]), st.booleans())
def test_logprobs_equal_a_full_forward_pass(
    asked: list[SampleRequest], batch_tokens: int, static: bool
) -> None:
    policy = TransformersPolicy(
        tiny_model(), PlainTokenizer(), version=7, batch_tokens=batch_tokens
    )
    if static:
        policy = with_static_decoding(policy)
    answers = policy.sample(asked)
    assert [len(group) for group in answers] == [request.num_samples for request in asked]
    for request, group in zip(asked, answers, strict=True):
        for answer in group:
            want = reference_logprobs(request.prompt_ids, answer, request.temperature)
            torch.testing.assert_close(torch.tensor(answer.logprobs), want, rtol=1e-4, atol=1e-4)
            stopped = answer.token_ids[-1] == END
            assert END not in answer.token_ids[:-1]
            assert answer.finish_reason == ("stop" if stopped else "length")
            assert stopped or len(answer.token_ids) == request.max_new_tokens
            assert answer.policy_version == 7
            assert "3" not in answer.text.split()


def test_equal_calls_give_equal_answers(policy: TransformersPolicy) -> None:
    asked = [
        SampleRequest(prompt_ids=(5, 6, index), num_samples=4, max_new_tokens=10, seed=index)
        for index in range(4, 8)
    ]
    first = policy.sample(asked)
    assert policy.sample(asked) == first
    other = [
        SampleRequest(prompt_ids=r.prompt_ids, num_samples=4, max_new_tokens=10, seed=r.seed + 1)
        for r in asked
    ]
    assert policy.sample(other) != first
    assert len({answer.token_ids for group in first for answer in group}) > 8


def test_first_tokens_follow_the_model(policy: TransformersPolicy) -> None:
    num = 4000
    prompt = (5, 9, 11)
    (answers,) = policy.sample(
        [SampleRequest(prompt_ids=prompt, num_samples=num, max_new_tokens=2, seed=5)]
    )
    with torch.no_grad():
        logits = tiny_model()(torch.tensor([prompt])).logits[0, -1]
    want = torch.softmax(logits, dim=-1)
    first = torch.tensor([answer.token_ids[0] for answer in answers])
    share = torch.bincount(first, minlength=VOCABULARY) / num
    assert torch.allclose(share, want, atol=0.03)


def test_finished_rows_are_dropped_and_buffers_shrink() -> None:
    model = tiny_model()
    policy = TransformersPolicy(model, PlainTokenizer())
    with torch.no_grad():
        plan, _ = prefill(policy.model, [(5, 6), (7, 8, 9)], [4, 4], 6)
        alive = torch.tensor([True, True, True, False, True, True, True, True])
        assert plan.keep_rows(alive) is plan
        smaller = plan.keep_rows(torch.tensor([False, False, False, True, False, True, False]))
    assert smaller is not plan
    assert (smaller.num_groups, smaller.num_cells) == (1, 2)
    assert smaller.cells.tolist() == [0, 1]


def test_batches_respect_the_budget_and_share_prompts() -> None:
    asked = [
        SampleRequest(prompt_ids=(4,) * 10, num_samples=3, max_new_tokens=5),
        SampleRequest(prompt_ids=(5,) * 4, num_samples=2, max_new_tokens=5),
        SampleRequest(prompt_ids=(4,) * 10, num_samples=1, max_new_tokens=5),
        SampleRequest(prompt_ids=(6,) * 4, num_samples=40, max_new_tokens=5),
    ]
    batches = list(make_batches(asked, 100))
    assert [[(len(g.prompt), len(g.rows)) for g in batch] for batch in batches] == [
        [(4, 2)],
        [(4, 16)],
        [(4, 16)],
        [(4, 8), (10, 4)],
    ]
    assert sum(len(group.rows) for batch in make_batches(asked, 10**6) for group in batch) == 46


@pytest.mark.parametrize(
    "bad", [SampleRequest(prompt_ids=()), SampleRequest(prompt_ids=(4,), max_new_tokens=0)]
)
def test_impossible_requests(policy: TransformersPolicy, bad: SampleRequest) -> None:
    with pytest.raises(PolicyError, match="needs a prompt"):
        policy.sample([bad])


def test_broken_weights_are_a_policy_error() -> None:
    model: Any = tiny_model()
    policy = TransformersPolicy(model, PlainTokenizer())
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(PolicyError, match="not finite"):
        policy.sample([SampleRequest(prompt_ids=(4, 5))])


def test_ids_outside_the_vocabulary_are_a_policy_error(policy: TransformersPolicy) -> None:
    with pytest.raises(PolicyError, match="sampling failed"):
        policy.sample([SampleRequest(prompt_ids=(VOCABULARY + 4,))])


def test_no_requests(policy: TransformersPolicy) -> None:
    assert policy.sample([]) == []


def test_static_decoding_is_reproducible_stops_and_reuses_what_it_holds() -> None:
    policy = with_static_decoding(TransformersPolicy(tiny_model(), PlainTokenizer()))
    assert policy._static is not None
    long = [SampleRequest(prompt_ids=(5, n), num_samples=3, max_new_tokens=90) for n in range(4, 9)]
    first = policy.sample(long)
    assert policy.sample(long[:1]) != first
    assert policy.sample(long) == first
    assert len(policy._static._states) == 2
    greedy = [SampleRequest(prompt_ids=(5, 6, 7), temperature=0.0, max_new_tokens=70)]
    plain = TransformersPolicy(tiny_model(), PlainTokenizer()).sample(greedy)[0][0]
    static = policy.sample(greedy)[0][0]
    assert static.token_ids == plain.token_ids
    assert static.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


def test_static_decoding_ends_when_all_rows_have(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    policy = with_static_decoding(TransformersPolicy(model, PlainTokenizer()))
    calls = []
    decoder = model.get_decoder()
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda **k: calls.append(1) or forward(**k))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[END] = 1e-3
    asked = SampleRequest(prompt_ids=(5,), num_samples=8, max_new_tokens=4096, seed=1)
    ends = [len(answer.token_ids) for answer in policy.sample([asked])[0]]
    assert max(ends) < 1500 and len(calls) <= max(ends) + 16


def test_static_decoding_refuses_broken_weights() -> None:
    model = tiny_model()
    policy = with_static_decoding(TransformersPolicy(model, PlainTokenizer()))
    with torch.no_grad():
        model.lm_head.weight[0] = float("nan")
    with pytest.raises(PolicyError, match="not finite"):
        policy.sample([SampleRequest(prompt_ids=(5, 6), max_new_tokens=3)])


def test_shapes_are_few_and_near() -> None:
    asked = [SampleRequest(prompt_ids=(1,), max_new_tokens=80)]
    shapes = {shape_of([(1,) * 600] * n, [8] * n, asked).groups for n in range(1, 65)}
    assert len(shapes) <= 20
    assert all(
        shape_of([(1,)] * n, [1] * n, asked).groups <= max(8, 1.25 * n) for n in range(1, 65)
    )
