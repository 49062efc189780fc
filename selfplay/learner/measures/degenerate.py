"""Degenerate answers: a policy that fell into a loop says the same few tokens over and over.

The tokens of a loop are certain under the policy, so that a reward on them sharpens or floods the
update without saying anything of the answer. They leave loss and denominator, are counted, and
too many raise an alarm. (Its companion, gibberish - single tokens of very low probability - is
told from the log-probabilities, in `loss.py`.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from selfplay.config import RepetitionConfig
from selfplay.types import TrainingSample

log = logging.getLogger(__name__)

ALARM_SHARE = 0.05
"""Share of a step's answer tokens in loops that is worth a warning."""


def looping(
    token_ids: Sequence[int], loss_mask: Sequence[int], config: RepetitionConfig
) -> set[int]:
    """Positions of the tokens of loops, without the first round of each.

    Both the repetition and what it repeats must be sampled in one stretch: a prompt that repeats
    itself, or an answer that quotes it, is no loop. Example with tokens=4, period=2: in the
    sampled 7 5 6 5 6 5 6 the last four repeat what stands two before them, so {3, 4, 5, 6}.
    """
    found: set[int] = set()
    if not config.repetition_tokens:
        return found
    longest = config.repetition_period
    for start, end in _runs(torch.tensor(loss_mask, dtype=torch.bool)):
        ids = torch.tensor(token_ids[start:end])
        for period in range(1, min(longest, len(ids) - config.repetition_tokens) + 1):
            for low, high in _runs(ids[period:] == ids[:-period]):
                if high - low >= config.repetition_tokens:
                    found.update(range(start + period + low, start + period + high))
    return found


def without_loops(
    samples: Sequence[TrainingSample], config: RepetitionConfig
) -> tuple[tuple[TrainingSample, ...], dict[str, float]]:
    """The samples with the tokens of loops taken out of the loss mask, and what was taken."""
    kept: list[TrainingSample] = []
    num_dropped = num_samples = 0
    for sample in samples:
        loop = looping(sample.token_ids, sample.loss_mask, config)
        if loop:
            mask = tuple(0 if i in loop else m for i, m in enumerate(sample.loss_mask))
            sample = replace(sample, loss_mask=mask)
            num_dropped += len(loop)
            num_samples += 1
        kept.append(sample)
    total = sum(sum(sample.loss_mask) for sample in kept) + num_dropped
    if num_dropped > ALARM_SHARE * total:
        log.warning(
            "%d of %d answer tokens are loops (%d answers): the policy degenerates; lower "
            "learner.learning_rate or resume from an earlier checkpoint",
            num_dropped,
            total,
            num_samples,
        )
    return tuple(kept), {
        "num_dropped_repetition": float(num_dropped),
        "num_looping_samples": float(num_samples),
    }


def _runs(flags: torch.Tensor) -> list[tuple[int, int]]:
    """Half-open ranges in which the flags, bool [N], are set."""
    padded = torch.zeros(len(flags) + 2, dtype=torch.int8)
    padded[1:-1] = flags
    steps = padded.diff()
    starts = (steps == 1).nonzero().flatten().tolist()
    return list(zip(starts, (steps == -1).nonzero().flatten().tolist(), strict=True))
