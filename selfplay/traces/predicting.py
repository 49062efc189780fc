"""A policy asked what calls give, answer by answer; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selfplay.errors import SelfplayError
from selfplay.sampling import Policy, SampleRequest, ServedPolicy, sample_what_can_be
from selfplay.seeds import derive_seed
from selfplay.traces.answers import answer_in, is_literal, same_value
from selfplay.traces.asking import PREDICT
from selfplay.traces.suites import OutputQuestion
from selfplay.types import Completion

CHUNK = 16
"""Questions that an engine in this process is asked at once."""
TURNS = 4
"""Questions that servers are given at once, for each request that keeps them busy."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How questions are asked; `seed` is the evaluation's."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Answer number `sample` to a question; `said` is the value that was read in it. `reason`:
    resolved, wrong_value, no_literal, cut_off, or why the engine gave no answer."""

    question: OutputQuestion
    sample: int
    prompt_ids: tuple[int, ...]
    completion: Completion
    said: str
    reason: str

    @property
    def resolved(self) -> bool:
        """Whether it is the value."""
        return self.reason == RESOLVED


RESOLVED = "resolved"


def predict(
    policy: Policy,
    questions: Sequence[OutputQuestion],
    missing: Mapping[str, Sequence[int]],
    asking: Asking,
    on_prediction: Callable[[Prediction], None],
    on_progress: Callable[[int], object] = lambda num: None,
) -> SelfplayError | None:
    """Ask for the samples that are `missing` ({question id: numbers}); each answer is handed on at
    once. Where the engine answers nothing more, why."""
    todo = [question for question in questions if missing.get(question.id)]
    on_progress(len(questions) - len(todo))
    width = policy.max_concurrency if isinstance(policy, ServedPolicy) else 0
    size = max(CHUNK, TURNS * width)
    for start in range(0, len(todo), size):
        chunk = todo[start : start + size]
        requests = [_request(policy, q, missing[q.id], asking) for q in chunk]
        groups, error = sample_what_can_be(policy, requests)
        for question, request, group in zip(chunk, requests, groups, strict=False):
            for sample, completion in zip(missing[question.id], group, strict=False):
                on_prediction(judged(question, sample, request.prompt_ids, completion))
        if error is not None:
            return error
        on_progress(len(chunk))
    return None


def _request(
    policy: Policy, question: OutputQuestion, samples: Sequence[int], asking: Asking
) -> SampleRequest:
    return SampleRequest(
        prompt_ids=policy.tokenizer.render(PREDICT, question.text),
        num_samples=len(samples),
        max_new_tokens=asking.max_new_tokens,
        temperature=asking.temperature,
        top_p=asking.top_p,
        seed=derive_seed(asking.seed, "prediction", question.id, samples[0]),
    )


def judged(
    question: OutputQuestion, sample: int, prompt_ids: tuple[int, ...], completion: Completion
) -> Prediction:
    """The verdict on an answer. Of one that was cut off, the last line was not finished."""
    text = completion.text
    cut = completion.finish_reason == "length"
    if cut:
        text = text.rpartition("\n")[0]
    said = answer_in(text, question.function, is_whole=not cut)
    if completion.problem:
        reason = completion.problem
    elif cut and not said:
        reason = "cut_off"
    elif same_value(said, question.output):
        reason = RESOLVED
    else:
        known = is_literal(said) or not is_literal(question.output)
        reason = "wrong_value" if known else "no_literal"
    return Prediction(
        question=question,
        sample=sample,
        prompt_ids=prompt_ids,
        completion=completion,
        said=said,
        reason=reason,
    )
