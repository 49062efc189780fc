"""Ragged groups of training samples."""

from __future__ import annotations

from hypothesis import strategies as st

from selfplay.types import TrainingSample


def sample(
    prompt: list[int],
    answer: list[int],
    advantage: float = 1.0,
    logprob: float = -2.0,
    mask: list[int] | None = None,
    temperature: float = 1.0,
) -> TrainingSample:
    """A prompt with mask 0 and an answer with mask 1 (or `mask`)."""
    answer_mask = mask or [1] * len(answer)
    num = len(answer)
    return TrainingSample(
        token_ids=(*prompt, *answer),
        loss_mask=(*[0] * len(prompt), *answer_mask),
        logprobs=(*[0.0] * len(prompt), *[logprob] * num),
        advantages=(*[0.0] * len(prompt), *[advantage * m for m in answer_mask]),
        policy_version=0,
        temperature=temperature,
    )


tokens = st.integers(0, 5)
"""Few different tokens, so that prefixes collide often."""


@st.composite
def ragged_groups(draw: st.DrawFn) -> list[TrainingSample]:
    """Groups of answers to random prompts, some prompts sharing a beginning, some equal answers."""
    system = draw(st.lists(tokens, max_size=8))
    samples: list[TrainingSample] = []
    for _ in range(draw(st.integers(1, 4))):
        shared = system if draw(st.booleans()) else []
        prompt = [*shared, *draw(st.lists(tokens, min_size=1, max_size=10))]
        for _ in range(draw(st.integers(1, 4))):
            answer = draw(st.lists(tokens, min_size=1, max_size=6))
            mask = draw(
                st.lists(st.integers(0, 1), min_size=len(answer), max_size=len(answer)).filter(any)
            )
            advantage = draw(st.sampled_from([-1.5, -0.5, 0.5, 1.5]))
            logprob = draw(st.sampled_from([-4.0, -2.5, -1.5]))
            temperature = draw(st.sampled_from([1.0, 0.6]))
            samples.append(sample(prompt, answer, advantage, logprob, mask, temperature))
    return samples
