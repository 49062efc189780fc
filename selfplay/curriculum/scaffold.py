"""How a policy works on tasks: the one protocol of all scaffolds, and what they share.

A scaffold turns tasks of either role into rollouts, each with an answer that can be read: five
files of a bug, or a fix patch. What follows is the same for all (`injecting.py`, `solving.py`).
A new scaffold is a class of this protocol in a file of its own, and its name in
`commands/compose.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from selfplay.agent.loop import OnTurn
from selfplay.bugs.apart import grade_apart, validate_apart
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.config import PolicyConfig, ScaffoldConfig
from selfplay.repo.prepare import PreparedRepo
from selfplay.sampling import Policy, SampleRequest
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.processes import Processes
from selfplay.seeds import derive_seed
from selfplay.types import (
    BugArtifact,
    Completion,
    EpisodeStatus,
    GradeReport,
    InjectionTask,
    Limits,
    Role,
    SolveTask,
    Strategy,
    Trajectory,
    ValidationReport,
)

T = TypeVar("T")
Task = TypeVar("Task", InjectionTask, SolveTask)
Verdict = TypeVar("Verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoContext:
    """A prepared repository, the runner of its tests, and the processes that judge beside this one,
    if any: `validate` and `grade` are the functions of `bugs/`, wherever they run."""

    prepared: PreparedRepo
    runner: TestRunner
    processes: Processes | None = None

    def validate(self, artifact: BugArtifact, limits: Limits) -> ValidationReport:
        """Raises `SandboxError` where the process that validates died, twice."""
        environment = self.prepared.environment
        if self.processes is None:
            return validate(artifact, environment, self.runner, limits)
        return self.processes.call(validate_apart, self.runner, artifact, environment, limits)

    def grade(
        self, task: SolveTask, fix_patch: str, seconds: Mapping[str, float] | None
    ) -> GradeReport:
        """Raises `SandboxError` when the infrastructure fails."""
        if self.processes is None:
            return grade(task, fix_patch, self.runner, seconds)
        environment = self.prepared.environment
        return self.processes.call(grade_apart, self.runner, task, fix_patch, environment, seconds)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the policy is sampled; `seed` is the run's."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 80
    seed: int = 0

    def request(
        self, role: Role, prompt_ids: tuple[int, ...], num_samples: int, *key: object
    ) -> SampleRequest:
        """What to sample for a role that answers in one turn; `key` makes its seed."""
        return SampleRequest(
            prompt_ids=prompt_ids,
            num_samples=num_samples,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=derive_seed(self.seed, *key, role),
        )


@dataclass(kw_only=True)
class Clock:
    """Seconds that were waited for the policy; those of rounds that overlap add up."""

    policy_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is done meanwhile."""
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.policy_s += time.monotonic() - began


@dataclass(frozen=True, kw_only=True)
class RolloutContext:
    """What both phases of a step need: who plays, how, where, and on how many workers.

    `public_share`: part of the failing tests that a solver is shown (`bugs/grading`).
    `early_grading`: failures are decided early, but where a part is hidden: whether an attempt
    fits the shown part alone takes a whole run. `clock` counts the seconds of the engine.
    """

    policy: Policy
    scaffold: Scaffold
    repo_contexts: Mapping[str, RepoContext]
    pool: SandboxPool
    sampling: Sampling
    public_share: float = 1.0
    early_grading: bool = True
    clock: Clock = field(default_factory=Clock, compare=False)

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """The policy's answers (`Policy.sample`). Raises `PolicyError`."""
        with self.clock.running():
            return self.policy.sample(requests)

    def seconds_of(self, repo: str) -> Mapping[str, float] | None:
        """Measured durations of a repository's tests, for `grade`; None: no early verdicts."""
        if not self.early_grading or self.public_share < 1.0:
            return None
        return self.repo_contexts[repo].prepared.profile.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What was sampled for one task, before it is judged. `info` goes into the episode's record;
    `trajectory` is None when nothing was sampled."""

    trajectory: Trajectory | None
    answer: str
    status: EpisodeStatus
    policy_version: int
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """What a rollout came to.

    read   the bug's five files or the fix patch; may run tests. Raises `Rejected` for an answer
           that is none, `InfrastructureError` where the machine is at fault
    key    answers to one task with equal keys say the same, and are read and judged once
    undo   (prompt, answer) of a solver that is shown the changed function alone and takes the
           change back; None for an answer that changes nothing, or where that cannot be written
    """

    rollout: Rollout
    read: Callable[[], T]
    key: Hashable
    undo: Callable[[], tuple[tuple[int, ...], tuple[int, ...]] | None] | None = None


class Scaffold(Protocol):
    """How both roles work. Answers come in the order of the tasks, one list for each.

    strategies   those that its injector can follow
    targeted     whether its injector is told where to plant a bug, or chooses by itself
    num_open     rollouts that may be under way at once; None: as many as the policy takes
    """

    @property
    def strategies(self) -> tuple[Strategy, ...]: ...

    @property
    def targeted(self) -> bool: ...

    @property
    def num_open(self) -> int | None: ...

    def inject(
        self, context: RolloutContext, tasks: Sequence[InjectionTask], num_samples: int
    ) -> list[list[Answer[BugArtifact]]]:
        """Roll out every task `num_samples` times. Raises `PolicyError`."""
        ...

    def solve(
        self, context: RolloutContext, tasks: Sequence[SolveTask], num_samples: int, salt: object
    ) -> list[list[Answer[str]]]:
        """The same for solvers; `salt` separates repeated draws (the step)."""
        ...

    @classmethod
    def open(
        cls,
        config: ScaffoldConfig,
        policy: Policy,
        repo_contexts: Mapping[str, RepoContext],
        on_turn: OnTurn | None,
    ) -> Scaffold:
        """The scaffold of a run; `on_turn` sees the turns of episodes that have several."""
        ...

    @classmethod
    def scripted(cls) -> Policy:
        """A policy that plays both roles without a model."""
        ...

    @classmethod
    def longest(cls, config: ScaffoldConfig, policy: PolicyConfig) -> int:
        """Tokens of the longest episode that can come."""
        ...


def judge_once(
    pool: SandboxPool,
    tasks: Sequence[Task],
    answers: Sequence[Sequence[Answer[T]]],
    judge: Callable[[Task, Answer[T]], Verdict],
    wanted: Collection[tuple[int, Hashable]] | None = None,
    otherwise: Verdict | None = None,
) -> list[list[Verdict]]:
    """`judge` of every answer, in order; equal answers to one task are judged once.

    wanted    (number of the task, key) of those that are judged, others are `otherwise`; None: all
    """
    distinct = {
        (i, answer.key): (task, answer)
        for i, (task, group) in enumerate(zip(tasks, answers, strict=True))
        for answer in group
        if wanted is None or (i, answer.key) in wanted
    }
    judged = pool.map(lambda pair: judge(*pair), distinct.values())
    verdicts = dict(zip(distinct, judged, strict=True))
    if otherwise is not None:
        for i, group in enumerate(answers):
            for answer in group:
                verdicts.setdefault((i, answer.key), otherwise)
    return [[verdicts[(i, answer.key)] for answer in group] for i, group in enumerate(answers)]
