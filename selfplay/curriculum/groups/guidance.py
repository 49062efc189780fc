"""Gold answers as peers: what can be learnt from a repair that is known.

The injector of a bug knows its repair. With `curriculum.show_gold` the gold answer joins the
attempts on a new bug as one more that resolved it (mixed-policy GRPO, arXiv 2504.14945): the rarer
a bug is resolved, the more it weighs. The log-probabilities are the policy's own, as if it had
sampled the answer, so the ratio of the loss is 1 and the gradient that of its likelihood.

With `curriculum.gold_counts=expected` it stands for the attempts at it that are to be expected, G p
of a group of G, and those that were sampled leave the group for it. On average the learner then
takes the step that sampling alone would teach, without the noise of which of a few attempts
happened to be the gold one (Rao-Blackwell: an expectation over what is known instead of a draw).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from selfplay.curriculum.groups.screening import probability
from selfplay.curriculum.solving import solver_group
from selfplay.types import PeerGroup, Trajectory


def guided(
    groups: Sequence[PeerGroup],
    step: int,
    golds: Mapping[str, Trajectory | None],
    counts: str = "one",
) -> tuple[PeerGroup, ...]:
    """The groups of a step, those on bugs of `golds` with the gold answer and its reward 1.

    Example: rewards (-1, -1, -1) become (-1, -1, -1, 1), with advantages (-1/2, -1/2, -1/2, 3/2).
    """
    answers = {solver_group(step, bug_id): gold for bug_id, gold in golds.items()}
    join = _as_expected if counts == "expected" else _as_one_more
    return tuple(
        join(group, gold) if (gold := answers.get(group.group_id)) is not None else group
        for group in groups
    )


def _as_one_more(group: PeerGroup, gold: Trajectory) -> PeerGroup:
    return replace(group, trajectories=(*group.trajectories, gold), rewards=(*group.rewards, 1.0))


def _as_expected(group: PeerGroup, gold: Trajectory) -> PeerGroup:
    """Two failures and a gold answer of probability 1/4 become the failures, which count 9/8 each,
    and the gold answer, which counts 3/4."""
    others = [
        (trajectory, reward)
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
        if trajectory.token_ids != gold.token_ids
    ]
    size, expected = len(group.rewards), probability(gold)
    each = size * (1.0 - expected) / max(1, len(others))
    return replace(
        group,
        trajectories=(*(trajectory for trajectory, _ in others), gold),
        rewards=(*(reward for _, reward in others), 1.0),
        counts=(*(each for _ in others), size * expected),
    )
