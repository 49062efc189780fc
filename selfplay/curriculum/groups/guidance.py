"""Gold answers as peers: what a solver that never repairs a bug can learn from it.

The injector of a bug knows its repair. With `curriculum.show_gold` the gold answer joins the
attempts on a new bug as one more that resolved it (mixed-policy GRPO, arXiv 2504.14945): the rarer
a bug is resolved, the more it weighs. The log-probabilities are the policy's own, as if it had
sampled the answer, so the ratio of the loss is 1 and the gradient that of its likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from selfplay.curriculum.solving import solver_group
from selfplay.types import PeerGroup, Trajectory


def guided(
    groups: Sequence[PeerGroup], step: int, golds: Mapping[str, Trajectory | None]
) -> tuple[PeerGroup, ...]:
    """The groups of a step, those on bugs of `golds` with the gold answer and its reward 1.

    Example: rewards (-1, -1, -1) become (-1, -1, -1, 1), with advantages (-1/2, -1/2, -1/2, 3/2).
    """
    answers = {solver_group(step, bug_id): gold for bug_id, gold in golds.items()}
    return tuple(
        replace(g, trajectories=(*g.trajectories, gold), rewards=(*g.rewards, 1.0))
        if (gold := answers.get(g.group_id)) is not None
        else g
        for g in groups
    )
