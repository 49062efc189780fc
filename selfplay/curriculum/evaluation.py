"""Solver evaluation: every task of a suite attempted n times, resolved or not, and the probability
of exactly its gold answer, where policy and scaffold can tell: without sampling noise.

Nothing that concerns one task or one answer ends it, and what was judged is handed on at once
(`on_attempt`), so that it can go on from there (`known`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from selfplay.bug_sources.commit_trees import split_name
from selfplay.curriculum.groups.screening import gold_trajectories, probability
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.curriculum.solving import Attempt, solve
from selfplay.errors import InfrastructureError, SelfplayError, UserError
from selfplay.sampling import Policy, SampleRequest, ServedPolicy, sample_what_can_be
from selfplay.statistics import NUM_RESAMPLES, Interval, bootstrap_mean, bootstrap_pass_at_k
from selfplay.types import Completion, SolveTask

log = logging.getLogger(__name__)

CHUNK = 16
"""Tasks for each call of `solve`, at the least: small enough for a living progress bar, large
enough that fixes which run into their time limit do not keep all workers waiting."""
LeftOut = Mapping[str, str | int]
"""Of a repository whose bugs are no part of an evaluation: `num_tasks` and the `reason`."""
_NOT_ASKED = "not asked: the engine answers nothing more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of attempt number `sample` on a task. Errored: no verdict, to be tried again.
    `share`: as of `SolveOutcome`."""

    instance_id: str
    sample: int
    resolved: bool
    errored: bool
    reason: str
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What is attempted. `function`: tasks of one function are resampled together ("": each by
    itself)."""

    instance_id: str
    repo: str
    function: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore(Tried):
    """One task: c of n judged attempts resolved it; errored ones are counted apart. `share`: mean
    of the attempts whose share of passing tests is known, None where there is none. `p_gold`:
    probability of exactly the gold answer at temperature 1, None where nobody can tell."""

    num_judged: int
    num_resolved: int
    num_errored: int
    share: float | None = None
    p_gold: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Its line in the document."""
        return {
            "instance_id": self.instance_id,
            "repo": self.repo,
            "n": self.num_judged,
            "resolved": self.num_resolved,
            "errored": self.num_errored,
            **({"function": self.function} if self.function else {}),
            **({} if self.share is None else {"test_share": self.share}),
            **({} if self.p_gold is None else {"p_gold": self.p_gold}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of a suite with pass@1 and pass@n, 95 % bootstrap intervals over tasks (of functions,
    where tasks have one, and their tasks). `by_repo`:
    pass@1 with an interval over repositories and their tasks. `stopped`: why attempts are
    missing. `left_out`: {repository whose tasks are not among the scores: how many, and why}."""

    scores: tuple[TaskScore, ...]
    num_samples: int
    pass_at_1: Interval
    pass_at_n: Interval
    by_repo: Interval
    reasons: dict[str, int]
    stopped: SelfplayError | None = None
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document that `evaluate json=true` and `summary.json` hold."""
        return {
            "num_tasks": len(self.scores),
            "num_samples": self.num_samples,
            **(self._rates() if self.num_samples else {}),
            **({} if self.p_gold is None else {"p_gold": self.p_gold.to_json()}),
            "num_errored": sum(s.num_errored for s in self.scores),
            "reasons": self.reasons,
            **(
                {"left_out": {k: dict(v) for k, v in self.left_out.items()}}
                if self.left_out
                else {}
            ),
            "tasks": [score.to_json() for score in self.scores],
        } | ({} if self.test_share is None else {"test_share": self.test_share.to_json()})

    def _rates(self) -> dict[str, Any]:
        return {
            "pass@1": self.pass_at_1.to_json(),
            f"pass@{self.num_samples}": self.pass_at_n.to_json(),
            "pass@1_by_repo": self.by_repo.to_json(),
        }

    @property
    def p_gold(self) -> Interval | None:
        """Mean over the tasks whose gold answer's probability is known, with an interval."""
        known = [score.p_gold for score in self.scores if score.p_gold is not None]
        return bootstrap_mean(known, NUM_RESAMPLES, seed=0) if known else None

    @property
    def test_share(self) -> Interval | None:
        """Mean over the tasks whose share is known, with an interval over these."""
        shares = [score.share for score in self.scores if score.share is not None]
        return bootstrap_mean(shares, NUM_RESAMPLES, seed=0) if shares else None


def unnoted(judged: Judged, attempt: Attempt) -> None:
    """Keeps nothing of an attempt."""


def evaluate(
    context: RolloutContext,
    tasks: Sequence[SolveTask],
    num_samples: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    known: Sequence[Judged] = (),
    on_attempt: Callable[[Judged, Attempt], None] = unnoted,
    lost: Mapping[str, str] | None = None,
    weighed: Sequence[SolveTask] = (),
) -> Evaluation:
    """Attempt each task `num_samples` times, those that are `known` counted in; 0 times, as those
    that are `weighed` alone, leaves the probabilities of the gold answers.

    Draws depend on the context's seed, not on the step, so that two evaluations of one policy are
    the same. `lost` names repositories that are not there, and why. Where the engine answers
    nothing more, the result says so (`stopped`).
    """
    work = _Work(
        context=replace(context, policy=_Kept(context.policy)),
        num_samples=num_samples,
        found={(j.instance_id, j.sample): j for j in known if j.sample < num_samples},
        on_attempt=on_attempt,
        on_progress=lambda done: on_progress(done, len(tasks) + len(weighed)),
        unattempted={task.bug_id for task in weighed},
    )
    for task in tasks:
        if task.repo in (lost or {}):
            work.give_up(task, f"infrastructure: repository: {(lost or {})[task.repo]}")
    work.run([task for task in (*tasks, *weighed) if task.repo not in (lost or {})])
    tried = [Tried(instance_id=task.bug_id, repo=task.repo) for task in (*tasks, *weighed)]
    return summary(tried, num_samples, work.found, work.error, work.p_gold)


class _Kept:
    """The policy, whose errors end nothing: what it did not answer is marked (`_NOT_ASKED`)."""

    def __init__(self, inner: Policy) -> None:
        self.inner = inner
        self.version = inner.version
        self.error: SelfplayError | None = None

    @property
    def tokenizer(self) -> Any:
        return self.inner.tokenizer

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        groups: list[list[Completion]] = [[] for _ in requests]
        if self.error is None:
            groups, error = sample_what_can_be(self.inner, requests)
            self.error = self.error or error
        none = Completion(
            token_ids=(), logprobs=(), text="", finish_reason="stop",
            policy_version=self.version, problem=_NOT_ASKED, errored=True,
        )  # fmt: skip
        return [
            [*group, *[none] * (request.num_samples - len(group))]
            for group, request in zip(groups, requests, strict=True)
        ]


@dataclass(kw_only=True)
class _Work:
    """An evaluation under way: `found` is {(task, sample): verdict}, `p_gold` {task: its value}."""

    context: RolloutContext
    num_samples: int
    found: dict[tuple[str, int], Judged]
    on_attempt: Callable[[Judged, Attempt], None]
    on_progress: Callable[[int], None]
    unattempted: Set[str] = frozenset()
    p_gold: dict[str, float] = field(default_factory=dict)
    num_done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def error(self) -> SelfplayError | None:
        """Why the engine answers nothing more."""
        policy = self.context.policy
        return policy.error if isinstance(policy, _Kept) else None

    def run(self, tasks: Sequence[SolveTask]) -> None:
        """Attempt what is missing: chunks of tasks, or tasks at once where servers answer them."""
        waiting: dict[int, list[SolveTask]] = {}
        for task in tasks:
            waiting.setdefault(len(self._missing(task)), []).append(task)
        for num, group in sorted(waiting.items(), reverse=True):
            workers = self._workers(num)
            size = 1 if workers else max(CHUNK, 8 * self.context.pool.num_workers)
            chunks = [group[i : i + size] for i in range(0, len(group), size)]
            with ThreadPoolExecutor(max(1, workers)) as threads:
                for _ in threads.map(lambda chunk: self._attempt(chunk), chunks):
                    pass

    def give_up(self, task: SolveTask, reason: str) -> None:
        """Nothing can be attempted on a task."""
        log.warning("%s: %s", task.bug_id, reason)
        for sample in self._missing(task):
            self.found[task.bug_id, sample] = Judged(
                instance_id=task.bug_id, sample=sample, resolved=False, errored=True, reason=reason
            )
        self._done(1)

    def _workers(self, num_missing: int) -> int:
        """Tasks that keep servers busy; 0 where the engine takes batches of one caller."""
        engine = self._engine
        if not num_missing or not isinstance(engine, ServedPolicy):
            return 0
        width = self.context.scaffold.num_open or engine.max_concurrency
        return max(1, width // num_missing)

    @property
    def _engine(self) -> Policy:
        policy = self.context.policy
        return policy.inner if isinstance(policy, _Kept) else policy

    def _missing(self, task: SolveTask) -> list[int]:
        """Numbers of the attempts that have no verdict."""
        if task.bug_id in self.unattempted:
            return []
        found = (self.found.get((task.bug_id, i)) for i in range(self.num_samples))
        return [i for i, judged in enumerate(found) if judged is None or judged.errored]

    def _attempt(self, tasks: Sequence[SolveTask]) -> None:
        """Attempt tasks with equally many missing samples."""
        if self.error is not None:
            return
        missing = [self._missing(task) for task in tasks]
        num = len(missing[0])
        self._weigh([task for task in tasks if task.bug_id not in self.p_gold])
        if not num:
            self._done(len(tasks))
            return
        first = self.num_samples - num
        salt = "evaluation" if not first else f"evaluation from {first}"
        try:
            groups = solve(self.context, tasks, num, salt=salt)
        except (UserError, InfrastructureError) as error:
            if len(tasks) == 1:
                self.give_up(tasks[0], f"infrastructure: {error}")
                return
            for task in tasks:  # one of them cannot be attempted
                self._attempt([task])
            return
        for task, numbers, group in zip(tasks, missing, groups, strict=True):
            for sample, attempt in zip(numbers, group, strict=True):
                self._keep(task, sample, attempt)
        self._done(len(tasks))

    def _weigh(self, tasks: Sequence[SolveTask]) -> None:
        """Probabilities of the gold answers; what cannot be told is left out, and ends nothing."""
        sampling = replace(self.context.sampling, temperature=1.0)
        context = replace(self.context, policy=self._engine, sampling=sampling)
        try:
            gold = gold_trajectories(context, tasks)
        except (UserError, InfrastructureError) as error:
            if len(tasks) > 1:
                for task in tasks:
                    self._weigh([task])
            else:
                log.warning("%s: probability of its gold answer: %s", tasks[0].bug_id, error)
            return
        with self.lock:
            self.p_gold |= {bug_id: probability(answer) for bug_id, answer in gold.items()}

    def _keep(self, task: SolveTask, sample: int, attempt: Attempt) -> None:
        outcome = attempt.outcome
        if _NOT_ASKED in outcome.reason:
            return
        judged = Judged(
            instance_id=task.bug_id,
            sample=sample,
            resolved=outcome.resolved,
            errored=outcome.errored,
            reason=outcome.reason,
            share=outcome.share,
        )
        with self.lock:
            self.found[task.bug_id, sample] = judged
            self.on_attempt(judged, attempt)

    def _done(self, num: int) -> None:
        with self.lock:
            self.num_done += num
            self.on_progress(self.num_done)


def _mean_share(group: Iterator[Judged]) -> float | None:
    shares = [judged.share for judged in group if judged.share is not None]
    return sum(shares) / len(shares) if shares else None


def summary(
    tasks: Sequence[Tried],
    num_samples: int,
    found: Mapping[tuple[str, int], Judged],
    stopped: SelfplayError | None,
    p_gold: Mapping[str, float] | None = None,
) -> Evaluation:
    """The scores of verdicts by (instance_id, sample)."""

    def group(task: Tried) -> Iterator[Judged]:
        numbers = ((task.instance_id, sample) for sample in range(num_samples))
        return (found[key] for key in numbers if key in found)

    scores = tuple(
        TaskScore(
            instance_id=task.instance_id,
            repo=task.repo,
            num_judged=sum(not j.errored for j in group(task)),
            num_resolved=sum(j.resolved for j in group(task)),
            num_errored=sum(j.errored for j in group(task)),
            function=task.function,
            share=_mean_share(group(task)),
            p_gold=(p_gold or {}).get(task.instance_id),
        )
        for task in tasks
    )
    judged_ones = [s for s in scores if s.num_judged]
    counts = [(s.num_judged, s.num_resolved) for s in judged_ones]
    reasons: dict[str, int] = {}
    for judged in (j for task in tasks for j in group(task)):
        reason = "resolved" if judged.resolved else judged.reason.split(":")[0]
        reasons[reason] = reasons.get(reason, 0) + 1
    smallest = min((n for n, _ in counts), default=num_samples)
    alike = [s.function for s in judged_ones]
    clusters = alike if all(alike) else None
    return Evaluation(
        scores=scores,
        num_samples=num_samples,
        pass_at_1=bootstrap_pass_at_k(counts, k=1, clusters=clusters),
        pass_at_n=bootstrap_pass_at_k(counts, k=min(num_samples, smallest), clusters=clusters),
        by_repo=bootstrap_pass_at_k(
            counts, k=1, clusters=[split_name(s.repo)[0] for s in judged_ones]
        ),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
        stopped=stopped,
    )
