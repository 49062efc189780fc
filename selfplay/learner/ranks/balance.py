"""A step's samples divided among ranks, so that the fullest rank has as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from selfplay.learner.packing import Sample
from selfplay.modeling.prefix_tree import common_prefix

S = TypeVar("S", bound=Sample)


def divide(samples: Sequence[S], num_parts: int) -> list[list[S]]:
    """`num_parts` lists that hold every sample once; some are empty where samples are few.

    In the order of their tokens, equal prompts stay together, and a part costs what it adds to a
    packed row: a prefix shared with the sample before is free. Of all cuts of that order the
    result is one whose costliest part is cheapest. Example, 2 parts, prompt P of 10 tokens:
    P+1, P+2, P+3 and Q of 12 tokens -> (P+1, P+2, P+3: 13 tokens), (Q: 12 tokens).
    """
    ordered = sorted(samples, key=lambda sample: sample.token_ids)
    sizes = [len(sample.token_ids) for sample in ordered]
    added = [
        size - (common_prefix(ordered[i - 1].token_ids, ordered[i].token_ids) if i else 0)
        for i, size in enumerate(sizes)
    ]
    low, high = max(sizes, default=0), sum(added)
    while low < high:
        middle = (low + high) // 2
        if len(_cuts(sizes, added, middle)) <= num_parts:
            high = middle
        else:
            low = middle + 1
    cuts = _cuts(sizes, added, low)
    stops = [*cuts[1:], len(ordered)] if cuts else []
    parts = [ordered[start:stop] for start, stop in zip(cuts, stops, strict=True)]
    return parts + [[] for _ in range(num_parts - len(parts))]


def _cuts(sizes: Sequence[int], added: Sequence[int], limit: int) -> list[int]:
    """Where parts begin that hold at most `limit` tokens each, filled one after the other."""
    starts: list[int] = []
    room = 0
    for index, (size, more) in enumerate(zip(sizes, added, strict=True)):
        if starts and more <= room:
            room -= more
        else:
            starts.append(index)
            room = limit - size
    return starts
