"""Which tokens of an episode its environment told: what `learner.observation_weight` learns from.

To predict what a tool or a test will say is to know what code does when it runs (code world models,
arXiv 2510.02387). An episode's own answers show nothing of it; what it was told between them does.
"""

from __future__ import annotations

from collections.abc import Sequence


def observation_mask(loss_mask: Sequence[int]) -> tuple[int, ...]:
    """1 for each token that was told between two sampled ones, but for the first of each stretch.

    That first one is the chat template's: it ends the turn of an answer that was cut, and to learn
    it would be to learn to stop there. The prompt, and what no answer followed, is told to nobody.
    `loss_mask` is the trajectory's, before anything is left out of it. Example: the mask
    0 0 1 1 0 0 0 1 0 gives 0 0 0 0 0 1 1 0 0.
    """
    if 1 not in loss_mask:
        return (0,) * len(loss_mask)
    first = loss_mask.index(1)
    last = len(loss_mask) - 1 - loss_mask[::-1].index(1)
    return tuple(
        int(first < i < last and not told and not loss_mask[i - 1])
        for i, told in enumerate(loss_mask)
    )
