"""Groups that grow: a few attempts on each bug, the rest where they can still tell something.

The first attempts decide which bugs get more, and say nothing of what more will bring. So the
later ones are peers of each other alone, with a baseline of their own: whichever groups grow,
either part is an ordinary group of its size, and unbiased for its bug as that is. (One baseline
for all would not be: a group would be large just when its first attempts came out in a certain
way.) The injector is paid by the solve rate over all attempts that were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfplay.curriculum.groups.measures import is_informative
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.curriculum.solving import Attempt, solve
from selfplay.types import SolveTask

MIN_CHANCE = 0.1
"""Of a first success among the later attempts, from which on they are made."""


def solve_in_parts(
    context: RolloutContext,
    tasks: Sequence[SolveTask],
    sizes: tuple[int, int],
    probabilities: Mapping[str, float],
    *,
    salt: object,
) -> list[list[Attempt]]:
    """(first, later) attempts on each task, the later ones where `can_matter`; in order.

    probabilities    of gold answers, by bug, where they are known
    """
    first, later = sizes
    groups = solve(context, tasks, first, salt=salt)
    if not later:
        return groups
    growing = [
        i
        for i, (task, group) in enumerate(zip(tasks, groups, strict=True))
        if can_matter(group, probabilities.get(task.bug_id), later)
    ]
    more = solve(context, [tasks[i] for i in growing], later, salt=f"{salt}/later")
    for i, attempts in zip(growing, more, strict=True):
        groups[i] = [*groups[i], *attempts]
    return groups


def can_matter(group: Sequence[Attempt], probability: float | None, later: int) -> bool:
    """Whether `later` further attempts may hold both outcomes: both were seen, or none resolved and
    a success is likely enough (or nothing is known of that). A bug that all have resolved is easy.

    At p = 0.03 four attempts hold a success with 1 - 0.97^4 = 0.115.
    """
    if is_informative(group):
        return True
    if any(attempt.outcome.resolved for attempt in group):
        return False
    return probability is None or 1.0 - (1.0 - probability) ** later >= MIN_CHANCE
