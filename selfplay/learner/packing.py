"""Training samples packed into micro-batches that hold every shared prefix once.

A micro-batch is one row (`modeling/prefix_tree.py`): the answers of a prompt follow it as
branches, each with positions that go on after the prompt, each seeing the prompt and itself.
The prediction of a token is made at the last token of its prefix, so the prompt's last token
predicts the first token of every answer. Example, prompt (7, 8), answers (1,) and (2, 3):

    row 7 8 1 2 3   positions 0 1 2 2 3   predictors 1, 1, 3   targets 1, 2, 3

Each sample brings the predictions of all its tokens, those in a shared part too: what two episodes
were both told counts twice, as it would in rows of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Protocol

import torch

from selfplay.errors import UserError
from selfplay.modeling.prefix_tree import (
    BLOCK_TOKENS,
    Block,
    build_tree,
    common_prefix,
)


class Sample(Protocol):
    """What packing reads of a sample; `TrainingSample` is one."""

    @property
    def token_ids(self) -> tuple[int, ...]: ...
    @property
    def loss_mask(self) -> tuple[int, ...]: ...
    @property
    def logprobs(self) -> tuple[float, ...]: ...
    @property
    def advantages(self) -> tuple[float, ...]: ...
    @property
    def temperature(self) -> float: ...
    @property
    def observations(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One row of T tokens, its N trained tokens, sample after sample, and behind these M that were
    observed.

    token_ids, position_ids: int64 [1, T]. predictors (row index whose state predicts), targets:
    int64 [N + M]; temperatures: fp32 [N + M]. rollout_logprobs, advantages: fp32 [N]. samples:
    index of each trained token's sample in the step's list, int64 [N].
    """

    token_ids: torch.Tensor
    position_ids: torch.Tensor
    blocks: tuple[Block, ...]
    stops: tuple[int, ...]
    predictors: torch.Tensor
    targets: torch.Tensor
    rollout_logprobs: torch.Tensor
    advantages: torch.Tensor
    temperatures: torch.Tensor
    samples: torch.Tensor

    def to(self, device: torch.device) -> MicroBatch:
        """The same with its tensors on `device`; masks of blocks follow when they are used."""
        moved: dict[str, Any] = {
            item.name: value.to(device)
            for item in dataclasses.fields(self)
            if isinstance(value := getattr(self, item.name), torch.Tensor)
        }
        return dataclasses.replace(self, **moved)

    @property
    def num_tokens(self) -> int:
        return self.token_ids.shape[1]

    @property
    def num_trained(self) -> int:
        return len(self.rollout_logprobs)

    @property
    def num_observed(self) -> int:
        return len(self.targets) - self.num_trained


def pack(
    samples: Sequence[Sample],
    *,
    max_tokens: int,
    share_prefixes: bool = True,
    block_tokens: int = BLOCK_TOKENS,
    observed: bool = False,
) -> list[MicroBatch]:
    """Pack samples into rows of at most `max_tokens`; a longer sample gets a row of its own.

    Without `share_prefixes`, each sample brings all its tokens: the same result for more work.
    Only with `observed` are the samples' observations predicted, too, at temperature 1.

    Nothing is truncated. Samples are taken in the order of their tokens, which brings equal
    prefixes together, so the result does not depend on the order of `samples`.
    """
    if max_tokens < 1:
        raise UserError(f"learner.micro_batch_tokens={max_tokens}: must be at least 1")
    order = sorted(range(len(samples)), key=lambda index: samples[index].token_ids)
    rows: list[list[int]] = []
    size = 0
    for index in order:
        tokens = samples[index].token_ids
        if rows:
            before = samples[rows[-1][-1]].token_ids
            shared = common_prefix(before, tokens) if share_prefixes else 0
            if size + len(tokens) - shared <= max_tokens:
                rows[-1].append(index)
                size += len(tokens) - shared
                continue
        rows.append([index])
        size = len(tokens)
    return [_micro_batch(samples, row, share_prefixes, block_tokens, observed) for row in rows]


def num_trained_tokens(samples: Sequence[Sample]) -> int:
    """The denominator of a step before any token is dropped."""
    return sum(sum(sample.loss_mask) for sample in samples)


def _micro_batch(
    samples: Sequence[Sample], row: list[int], share: bool, block_tokens: int, observed: bool
) -> MicroBatch:
    sequences = [samples[index].token_ids for index in row]
    tree = build_tree(sequences, block_tokens=block_tokens, share=share)
    predictors: list[int] = []
    targets: list[int] = []
    logprobs: list[float] = []
    advantages: list[float] = []
    temperatures: list[float] = []
    owners: list[int] = []
    told: list[tuple[int, int]] = []
    for place, index in enumerate(row):
        sample = samples[index]
        if sample.loss_mask[0]:
            raise UserError("the first token of a sample cannot be trained: nothing predicts it")
        rows = tree.rows(place)
        mask = sample.loss_mask
        predictors.extend(compress(rows, mask[1:]))
        targets.extend(compress(sample.token_ids, mask))
        logprobs.extend(compress(sample.logprobs, mask))
        advantages.extend(compress(sample.advantages, mask))
        num = len(targets) - len(owners)
        temperatures.extend([sample.temperature] * num)
        owners.extend([index] * num)
        if observed:
            pairs = zip(rows[:-1], sample.token_ids[1:], strict=True)
            told.extend(compress(pairs, sample.observations[1:]))
    predictors += [predictor for predictor, _ in told]
    targets += [target for _, target in told]
    temperatures += [1.0] * len(told)
    return MicroBatch(
        token_ids=torch.tensor([tree.token_ids]),
        position_ids=torch.tensor([tree.position_ids]),
        blocks=tree.blocks,
        stops=tree.stops,
        predictors=torch.tensor(predictors, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        rollout_logprobs=torch.tensor(logprobs, dtype=torch.float32),
        advantages=torch.tensor(advantages, dtype=torch.float32),
        temperatures=torch.tensor(temperatures, dtype=torch.float32),
        samples=torch.tensor(owners, dtype=torch.long),
    )
