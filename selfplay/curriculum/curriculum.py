"""What is drawn and replayed: new tasks where the corpus is thin, old bugs that still teach.

The corpus is written as soon as something is known. Whatever is drawn for a round depends on the
seed and on *earlier* rounds alone (those below `before`, which were consumed when it began), so
that a round that a kill cut off is played again as it was. The number of a round is the `step`
under which its bugs and attempts are stored: where a step has one round, that is the step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfplay.bug_sources.higher_order import MAX_ORDER, Grown, bug_order, grow
from selfplay.config import CurriculumConfig
from selfplay.corpus.corpus import Corpus, Origin, store_bug
from selfplay.curriculum.injecting import Injection
from selfplay.curriculum.scaffold import RepoContext
from selfplay.curriculum.solving import Attempt, attempt_id
from selfplay.curriculum.targets import TaskSampler
from selfplay.errors import InfrastructureError
from selfplay.sandbox.pool import SandboxPool
from selfplay.seeds import derive_rng
from selfplay.types import BugArtifact, InjectionTask, SolveTask, Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Draws, replays and keeps the bugs of one run.

    folder          of the run; `artifacts/` there holds each bug's five files
    sampler         what the injector is asked for; None: `human` alone is solved, nothing injected,
                    replayed or grown (task=commits)
    shape           of a step: which earlier bugs are replayed, how many grow from failed attempts
    human           real bugs that are solved beside the model's own, `shape.human_share` of all
    on_the_table    {round: bugs that it replays}, of rounds that others may not know of yet
    """

    corpus: Corpus
    folder: Path
    sampler: TaskSampler | None
    repo_contexts: Mapping[str, RepoContext]
    shape: CurriculumConfig
    human: tuple[SolveTask, ...] = ()
    on_the_table: dict[int, frozenset[str]] = field(default_factory=dict)
    _choosing: threading.Lock = field(default_factory=threading.Lock)

    def draw(self, step: int, before: int | None = None) -> list[InjectionTask]:
        """The injection tasks of a round; `before`: None is `step` itself."""
        before = step if before is None else before
        if self.sampler is None:
            return []

        def known_bugs(repo: str) -> list[BugArtifact]:
            bugs = self.corpus.bugs(repo)
            return [b.task.artifact for b in bugs if b.step < before and b.parent is None]

        corpus, size, wanted = self.corpus, self.shape.group_size, self.sampler.wanted
        lessons = wanted.kinds and corpus.lessons(
            before_step=before, group_size=size, value=wanted.kinds
        )
        worth = wanted.places and corpus.worth_by_function(
            before_step=before, group_size=size, value=wanted.places
        )
        return self.sampler.draw(
            step,
            corpus.counts_by_function(before_step=before),
            known_bugs,
            lessons or {},
            worth or {},
            corpus.counts_by_strategy(before_step=before),
        )

    def keep_bugs(
        self, injections: Iterable[Injection], step: int
    ) -> tuple[dict[str, SolveTask], set[str]]:
        """Store valid bugs: (those that are new, by id; ids that an earlier step or another bug of
        this one already had). A bug that is found twice in a step is stored once."""
        new: dict[str, SolveTask] = {}
        duplicates: set[str] = set()
        for injection in injections:
            task = injection.outcome.solve_task
            if task is None or task.bug_id in new or task.bug_id in duplicates:
                continue
            if self._store(task, injection, step):
                new[task.bug_id] = task
            else:
                duplicates.add(task.bug_id)
        return new, duplicates

    def _store(self, task: SolveTask, injection: Injection, step: int) -> bool:
        return store_bug(
            self.corpus,
            self.folder,
            task,
            origin="model",
            strategy=injection.task.strategy,
            target=injection.task.target,
            step=step,
            tree=self.repo_contexts[task.repo].prepared.environment.tree,
        )

    def keep_probabilities(self, probabilities: Mapping[str, float], step: int) -> None:
        """Store how likely the solver of this step was to write each bug's gold answer."""
        self.corpus.add_probabilities(probabilities, step=step)

    def replays(self, step: int, num_new: int, before: int | None = None) -> list[SolveTask]:
        """What is solved beside `num_new` new bugs: higher-order bugs that nobody has tried, then
        bugs that the solver neither always nor never solves, the least attempted first; none that
        another round replays whose attempts do not count yet."""
        before = step if before is None else before
        missing = self.shape.min_solve_groups - num_new
        if missing <= 0 or self.sampler is None:
            return []
        tried = self.corpus.replay_candidates(
            before_step=before,
            low=self.shape.replay_low,
            high=self.shape.replay_high,
            max_replays=self.shape.max_replays,
        )
        human = {task.bug_id for task in self.human}
        tried = [task for task in tried if task.bug_id not in human]
        children = self.corpus.untried_children(before_step=before)
        with self._choosing:
            for number in [n for n in self.on_the_table if n < before]:
                del self.on_the_table[number]
            taken = {b for n, bugs in self.on_the_table.items() if n != step for b in bugs}
            groups = num_new + missing
            free = [
                [task for task in tasks if task.bug_id not in taken][: int(part * groups)]
                for tasks, part in (
                    (children, self.shape.higher_order_share),
                    (tried, self.shape.replay_share),
                )
            ]
            chosen = [task for tasks in free for task in tasks][:missing]
            self.on_the_table[step] = frozenset(task.bug_id for task in chosen)
        return chosen

    def human_bugs(self, step: int, num_others: int, before: int | None = None) -> list[SolveTask]:
        """Real bugs beside `num_others` of the model's own, those tried in the fewest rounds first;
        from then on they are bugs of the corpus. With a share of 0.2, two beside eight."""
        before = step if before is None else before
        share, attempts = self.shape.human_share, self.corpus.attempts
        number = round(share / (1.0 - share) * num_others)
        if self.sampler is None:
            number = self.shape.num_tasks
        tried = {
            task.bug_id: len({a["step"] for a in attempts(task.bug_id) if a["step"] < before})
            for task in self.human
        }
        order = list(self.human)
        derive_rng(step, "human").shuffle(order)
        chosen = sorted(order, key=lambda task: tried[task.bug_id])[:number]
        for task in chosen:
            origin = self.origin_of(task)
            store_bug(
                self.corpus,
                self.folder,
                task,
                origin=origin,
                strategy=origin,
                target=Target(),
                step=step,
                given=True,
                tree=self.repo_contexts[task.repo].prepared.environment.tree,
            )
        return chosen

    def origin_of(self, human: SolveTask) -> Origin:
        """Of a bug of `human`: out of a history, or a task of whatever kind that was given."""
        is_mined = self.sampler is not None or human.artifact.meta.get("origin") == "mined"
        return "mined" if is_mined else "given"

    def keep_attempts(self, groups: Iterable[Sequence[Attempt]], step: int) -> None:
        """Store the attempts of a step on each bug, and with them its solve rate."""
        for group in groups:
            bug_id = group[0].task.bug_id
            attempts = [
                {
                    "episode_id": attempt_id(step, bug_id, i),
                    "resolved": attempt.outcome.resolved,
                    "patch": attempt.outcome.patch,
                    "reason": attempt.outcome.reason,
                    "errored": attempt.outcome.errored,
                }
                for i, attempt in enumerate(group)
            ]
            self.corpus.add_attempts(bug_id, attempts, step=step)

    def grow(
        self,
        groups: Iterable[Sequence[Attempt]],
        step: int,
        pool: SandboxPool,
        before: int | None = None,
    ) -> int:
        """Store at most `higher_order` second-order bugs of a round's failed attempts; how many.

        One attempt of each group is tried, the first whose patch applied and did not resolve. A
        fault of the machine loses the bug and nothing else.
        """
        if self.sampler is None:
            return 0
        failed = [(i, group[i]) for group in groups if (i := _first_failed(group)) is not None]
        failed = failed[: 2 * self.shape.higher_order]
        before = step if before is None else before
        results = pool.map(lambda pair: self._grown(pair[1], before), failed)
        num_stored = 0
        for (index, attempt), found in zip(failed, results, strict=True):
            parent = self.corpus.bug(attempt.task.bug_id)
            if found.task is None or num_stored == self.shape.higher_order or parent is None:
                continue
            num_stored += store_bug(
                self.corpus,
                self.folder,
                found.task,
                origin="model",
                strategy=parent.strategy,
                target=parent.target,
                step=step,
                parent=parent.task.bug_id,
                parent_episode=attempt_id(step, parent.task.bug_id, index),
                tree=self.repo_contexts[attempt.task.repo].prepared.environment.tree,
            )
        return num_stored

    def _grown(self, attempt: Attempt, before: int) -> Grown:
        task = attempt.task
        known = self.corpus.failing_sets(task.repo, before_step=before)
        try:
            return grow(task, attempt.outcome.patch, self.repo_contexts[task.repo].runner, known)
        except InfrastructureError as error:
            log.warning("a higher-order bug was lost: %s", error)
            return Grown(reason="infrastructure")


def _first_failed(group: Sequence[Attempt]) -> int | None:
    """Index of the first judged attempt with a patch that did not resolve its task."""
    if not group or bug_order(group[0].task.artifact) >= MAX_ORDER:
        return None
    for i, attempt in enumerate(group):
        outcome = attempt.outcome
        if outcome.patch and not outcome.resolved and not outcome.errored:
            return i
    return None
