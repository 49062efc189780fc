"""Gold answers as peers: what a solver that never repairs a bug can learn from it.

The injector of a bug knows its repair. With `curriculum.show_gold` the gold answer joins the
attempts on a new bug as one more that resolved it (mixed-policy GRPO, arXiv 2504.14945): the rarer
a bug is resolved, the more it weighs. The log-probabilities are the policy's own, as if it had
sampled the answer, so the ratio of the loss is 1 and the gradient that of its likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from selfplay.types import PeerGroup, Trajectory


def guided(
    groups: Sequence[PeerGroup], golds: Mapping[str, Trajectory | None]
) -> tuple[PeerGroup, ...]:
    """The groups, those of `golds` ({group id: gold answer}) with that answer and its reward 1.

    Example: rewards (-1, -1, -1) become (-1, -1, -1, 1), with advantages (-1/2, -1/2, -1/2, 3/2).
    """
    return tuple(
        replace(g, trajectories=(*g.trajectories, gold), rewards=(*g.rewards, 1.0))
        if (gold := golds.get(g.group_id)) is not None
        else g
        for g in groups
    )
