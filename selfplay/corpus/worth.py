"""What each bug was worth to its solver: whether its first group of attempts held both outcomes, or
how likely that was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfplay.corpus.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class BugWorth:
    """One bug of which something is known.

    kind          of bug that was asked for
    function      "path::function" where it was asked for
    rate          share of its first attempts that resolved it, None where there were none
    worth         1 where the first group held both outcomes, else the chance of it, else 0
    is_screened   the probability of its gold answer is known
    """

    strategy: str
    kind: str | None
    repo: str
    function: str
    rate: float | None
    worth: float
    is_screened: bool


def worth_of_bugs(database: Database, before_step: int, group_size: int) -> Iterator[BugWorth]:
    """Of the bugs of steps before `before_step`, in a fixed order."""
    rows = database.read(
        "SELECT b.strategy, json_extract(b.task, '$.artifact.meta.hint'), b.repo, "
        "b.path || '::' || b.function, AVG(a.resolved), MAX(p.probability) "
        "FROM bugs b LEFT JOIN attempts a ON a.bug_id = b.bug_id AND a.step = b.step "
        "AND NOT a.errored LEFT JOIN probabilities p ON p.bug_id = b.bug_id "
        "WHERE b.step < ?1 GROUP BY b.bug_id ORDER BY b.step, b.bug_id",
        (before_step,),
    )
    for strategy, kind, repo, function, rate, probability in rows:
        if rate is None and probability is None:
            continue
        chance = 0.0 if probability is None else chance_of_both(probability, group_size)
        yield BugWorth(
            strategy=strategy,
            kind=kind,
            repo=repo,
            function=function,
            rate=rate,
            worth=1.0 if rate is not None and 0.0 < rate < 1.0 else chance,
            is_screened=probability is not None,
        )


def chance_of_both(probability: float, group_size: int) -> float:
    """That a group of attempts, each resolved with this probability, holds both outcomes: of two at
    0.5, one half."""
    return 1.0 - probability**group_size - (1.0 - probability) ** group_size
