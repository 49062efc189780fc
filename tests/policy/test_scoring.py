"""The probability of a given answer is that of the answer had it been sampled."""

from __future__ import annotations

import pytest

from selfplay.errors import PolicyError
from selfplay.policy.scoring import answer_logprobs
from selfplay.policy.transformers import TransformersPolicy
from selfplay.sampling import SampleRequest, ScoreRequest, ScoringPolicy
from tests.learner.tiny import tiny_model

from .test_transformers import PlainTokenizer, reference_logprobs

PROMPTS = ((5, 6, 7, 8, 9), (5, 6, 7, 8, 10, 11), (12, 13))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_score_is_the_sum_of_what_the_sampler_told(temperature: float) -> None:
    policy = TransformersPolicy(tiny_model(), PlainTokenizer())
    assert isinstance(policy, ScoringPolicy)
    asked = [
        SampleRequest(
            prompt_ids=prompt, num_samples=3, max_new_tokens=6, temperature=temperature, seed=1
        )
        for prompt in PROMPTS
    ]
    pairs = [
        (prompt, answer)
        for prompt, group in zip(PROMPTS, policy.sample(asked), strict=True)
        for answer in group
    ]
    requests = [
        ScoreRequest(prompt_ids=prompt, answer_ids=answer.token_ids, temperature=temperature)
        for prompt, answer in pairs
    ]
    wanted = [reference_logprobs(p, a, temperature).tolist() for p, a in pairs]
    for found, values, (_, answer) in zip(policy.score(requests), wanted, pairs, strict=True):
        assert found == pytest.approx(values, abs=1e-4)
        assert answer.logprobs == pytest.approx(values, abs=1e-4)
    for row_tokens in (1, 12):  # a row for each, and a few in a row: the same
        scored = answer_logprobs(policy.model, requests[::-1], row_tokens)
        for found, values in zip(scored, wanted[::-1], strict=True):
            assert found == pytest.approx(values, abs=1e-4)


def test_nothing_is_no_answer() -> None:
    policy = TransformersPolicy(tiny_model(), PlainTokenizer())
    assert policy.score([]) == []
    with pytest.raises(PolicyError, match="a prompt and an answer"):
        policy.score([ScoreRequest(prompt_ids=(1,), answer_ids=())])
