"""Third phase of a round: failed attempts become second-order bugs, to be solved in later steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from selfplay.bug_sources.higher_order import MAX_ORDER, Grown, bug_order, grow
from selfplay.corpus.corpus import Corpus, store_bug
from selfplay.curriculum.contexts import RolloutContext
from selfplay.curriculum.solving import Attempt
from selfplay.errors import InfrastructureError
from selfplay.run_dir import RunDir

log = logging.getLogger(__name__)


def grow_bugs(
    context: RolloutContext,
    corpus: Corpus,
    run_dir: RunDir,
    limit: int,
    groups: Sequence[Sequence[Attempt]],
    step: int,
) -> int:
    """Store at most `limit` second-order bugs of this step's failed attempts; their number.

    One attempt of each group is tried, the first whose patch applied and did not resolve. A fault
    of the machine loses the bug and nothing else.
    """
    chosen = [
        (f"step{step}/solver/{group[0].task.bug_id}/{i}", group[i])
        for group in groups
        if (i := _failed(group)) is not None
    ][: 2 * limit]
    num_stored = 0
    results = context.pool.map(lambda pair: _grown(context, corpus, pair[1], step), chosen)
    for (episode_id, attempt), found in zip(chosen, results, strict=True):
        if found.task is None or num_stored == limit:
            continue
        parent = corpus.bug(attempt.task.bug_id)
        if parent is None:
            continue
        num_stored += store_bug(
            corpus,
            run_dir.path,
            found.task,
            origin="model",
            strategy=parent.strategy,
            seed=parent.seed,
            step=step,
            parent=parent.task.bug_id,
            parent_episode=episode_id,
            tree=context.repo_contexts[attempt.task.repo].prepared.environment.tree,
        )
    return num_stored


def _failed(group: Sequence[Attempt]) -> int | None:
    """Index of the first judged attempt with a patch that did not resolve its task."""
    if not group or bug_order(group[0].task.artifact) >= MAX_ORDER:
        return None
    for i, attempt in enumerate(group):
        verdict = attempt.outcome
        if verdict.patch and not verdict.resolved and not verdict.errored:
            return i
    return None


def _grown(context: RolloutContext, corpus: Corpus, attempt: Attempt, step: int) -> Grown:
    runner = context.repo_contexts[attempt.task.repo].runner
    known = corpus.failing_sets(attempt.task.repo, before_step=step)
    try:
        return grow(attempt.task, attempt.outcome.patch, runner, known)
    except InfrastructureError as error:
        log.warning("a higher-order bug was lost: %s", error)
        return Grown(reason="infrastructure")
