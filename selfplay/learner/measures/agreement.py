"""Whether an engine in other processes samples from the weights that are trained.

A server can hold another model under the same name, leave out layers of an adapter
(`--lora-target-modules`), or take none of it, all without a word (vLLM issues 34186 and 55193):
what it answers is then trained on as if it were the learner's. A few sampled tokens tell.
"""

from __future__ import annotations

from typing import Any

from selfplay.errors import UserError
from selfplay.learner.measures.mismatch import Mismatch, measure_mismatch
from selfplay.sampling import Policy, SampleRequest
from selfplay.types import Trajectory

MAX_KL = 0.1
"""Nats a token, KL(engine, learner). Equal weights in bf16 are 0.001 to 0.002 apart, the default
model and its adapter 0.9, with the half of the adapter alone 0.55 (`docs/learner_scale.md`)."""
_NUM_SAMPLES, _NUM_TOKENS = 4, 24
_SYSTEM, _QUESTION = "You repair code.", "def f(x):\n    return x + 1\n"


def check_agreement(policy: Policy, model: Any, remedy: str) -> Mismatch:
    """Sample a little and score it by `model`. `UserError` with the remedy where they disagree."""
    prompt = policy.tokenizer.render(_SYSTEM, _QUESTION)
    request = SampleRequest(prompt_ids=prompt, num_samples=_NUM_SAMPLES, max_new_tokens=_NUM_TOKENS)
    (answers,) = policy.sample([request])
    found = measure_mismatch(
        model,
        [
            Trajectory(
                token_ids=prompt + answer.token_ids,
                loss_mask=(0,) * len(prompt) + (1,) * len(answer.token_ids),
                logprobs=(0.0,) * len(prompt) + answer.logprobs,
                policy_version=answer.policy_version,
                temperature=request.temperature,
            )
            for answer in answers
        ],
    )
    if found.kl > MAX_KL:
        raise UserError(
            f"the servers sample from other weights than are trained: KL {found.kl:.2f} nats a "
            f"token on {found.num_tokens} tokens, at most {MAX_KL} is expected; {remedy}"
        )
    return found
