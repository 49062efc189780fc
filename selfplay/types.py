"""The records that flow through the system, in the order in which they come to be.

    RepoSpec -> InjectionTask -> Episode -> BugArtifact -> ValidationReport -> SolveTask x n
    -> Episode x n -> GradeReport x n -> rewards -> peer groups -> advantages -> TrainingSample

All records are frozen, slotted and keyword-only. Nothing here imports torch, vllm or docker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Role = Literal["injector", "solver"]
Strategy = Literal["direct", "removal", "history", "feature_add", "combine"]
TestStatus = Literal["passed", "failed"]
TestTable = Mapping[str, TestStatus]
"""{test id: "passed" | "failed"}, as the parser of an artifact prints it. Absent means missing."""

CheckStatus = Literal["pass", "fail", "undecided", "not_run"]
Verdict = Literal["valid", "invalid", "undecided"]
EpisodeStatus = Literal["completed", "truncated", "errored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One changed file of a `Layer`: new content, or `None` when the layer deletes the file."""

    content: bytes | None
    executable: bool = False


Layer = Mapping[str, FileChange]
"""A state of the code: POSIX path relative to the repository's root -> change against the original
tree. Layers are composed by `{**below, **above}`; the original tree itself is never written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a bug is wanted: a function of a file, and for the history strategy a past commit.

    What is empty is the injector's to choose; `Target()` leaves it everything.
    """

    path: str = ""
    function: str = ""
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Control parameters of one injection (arXiv 2512.18552); defaults are those of `validate`."""

    min_passing_tests: int = 5
    """Tests that must pass on the original."""
    min_changed_files: int = 1
    """Files that the bug patch must change."""
    min_failing_tests: int = 1
    """Tests that must fail with the bug."""
    script_timeout_s: float = 90.0
    """Seconds of one run of the test script."""
    inverse_hunks: bool = False
    """Each hunk of the bug patch must have a part in the failures, not just each file."""

    def limits(self) -> Limits:
        """These alone, of a part of the configuration that holds more."""
        return Limits(**{item.name: getattr(self, item.name) for item in fields(Limits)})


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionTask:
    """What the controller asks of the injector. `material`: the valid bugs of the same repository
    that the strategy "combine" puts together. `kinds`: of bug, the most wanted first; () for any.
    """

    task_id: str
    repo: str
    strategy: Strategy
    target: Target
    limits: Limits = Limits()
    material: tuple[BugArtifact, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def group_id(self) -> str:
        """The peer group of its episodes: the id without its last part, which counts the tasks."""
        return self.task_id.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class BugArtifact:
    """The five files of a bug (docs/formats.md), as text (UTF-8 with surrogateescape)."""

    test_script: str
    test_files: tuple[str, ...]
    test_parser: str
    bug_patch: str
    weakening_patch: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one consistency check; `reason` is a short stable code, `detail` is prose."""

    name: str
    status: CheckStatus
    reason: str = ""
    detail: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """The consistency validation of one artifact (docs/validation.md), in interface order."""

    verdict: Verdict
    checks: tuple[Check, ...]
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    flaky: tuple[str, ...] = ()
    num_runs: int = 0
    failure_output: str = ""
    """Tail of the oracle tests' output on the buggy tree: what a solver running them would see."""

    @property
    def reason(self) -> str:
        """Reason code of the check that decided against the artifact, "" when valid."""
        return next((c.reason for c in self.checks if c.status in ("fail", "undecided")), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveTask:
    """A validated artifact as the solver's task; test ids as in SWE-bench."""

    bug_id: str
    repo: str
    artifact: BugArtifact
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    problem_statement: str = ""
    failure_output: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeReport:
    """The verdict on one fix patch (docs/validation.md)."""

    resolved: bool
    reward: int
    fail_to_pass: Mapping[str, str]
    pass_to_pass: Mapping[str, str]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Tokens [start, end) of a completion were sampled by weights `version` (None: unknown)."""

    version: int | None
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the policy sampled for one prompt: `len(token_ids) == len(logprobs)`.

    The end-of-turn token is part of `token_ids` when it was sampled (finish_reason "stop").
    `policy_version` is the oldest that had a part in it; `spans` tell them apart where weights
    changed while it was sampled (empty: one version made it all). `problem`: why the engine gave no
    answer to this request alone, such as `content_filter`; `errored`: by no fault of the model.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length"]
    policy_version: int
    spans: tuple[VersionSpan, ...] = ()
    problem: str = ""
    errored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The tokens `start` to `end` (exclusive) of a trajectory, sampled by one policy version."""

    start: int
    end: int
    policy_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """Aligned per-token lists of one episode; what was not sampled has loss mask 0, logprob 0.

    `turns` are the sampled stretches in order, one for each completion; `policy_version` is the
    oldest of theirs; the log-probabilities are of the distribution at `temperature`. Example: a
    prompt of 2 tokens, an answer of 1, an observation of 3 and an answer of 2 have the mask
    (0, 0, 1, 0, 0, 0, 1, 1) and the turns 2-3 and 6-8.

    `earlier`: where the model's chat template rewrote earlier turns, the tokens up to there, as
    they were when they were sampled; each is a sample of its own with the same advantage.
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int
    turns: tuple[Turn, ...] = ()
    temperature: float = 1.0
    earlier: tuple[Trajectory, ...] = ()

    @property
    def pieces(self) -> tuple[Trajectory, ...]:
        """All of the episode's tokens, in the order in which they were sampled."""
        return (*self.earlier, self)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What stands before the first sampled token of this piece; all of it where none was."""
        return self.token_ids[: self.loss_mask.index(1)] if 1 in self.loss_mask else self.token_ids

    @property
    def num_sampled(self) -> int:
        """Sampled tokens of all pieces."""
        return sum(sum(piece.loss_mask) for piece in self.pieces)

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.loss_mask) == len(self.logprobs)
        assert not any(piece.earlier for piece in self.earlier)
        if self.turns:  # lines of older runs have none
            cuts = [0, *(cut for turn in self.turns for cut in (turn.start, turn.end))]
            assert cuts == sorted(cuts)
            assert sum(self.loss_mask) == sum(turn.end - turn.start for turn in self.turns)
            assert all(all(self.loss_mask[turn.start : turn.end]) for turn in self.turns)
            assert self.policy_version == min(turn.policy_version for turn in self.turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One attempt of one role.

    Completed and truncated episodes have a reward; errored ones (infrastructure) have none and
    stay out of loss and baseline. `group_id` names the peers that share a baseline: the solver's
    attempts on one bug, or the injector's episodes of one repository, strategy and step.
    """

    episode_id: str
    group_id: str
    role: Role
    repo: str
    task_id: str
    bug_id: str | None
    status: EpisodeStatus
    reward: float | None
    reason: str
    trajectory: Trajectory | None
    answer: str
    policy_version: int
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """What the learner sees: aligned tokens, loss mask, rollout logprobs and advantages.

    `advantages[i]` belongs to the prediction of `token_ids[i]`; it is read only where
    `loss_mask[i] == 1`. Samples with equal leading tokens of mask 0 share that prefix when packed.
    `temperature` is that of the distribution that was sampled, which the learner then computes.
    `observations`: 1 where a token is one that the environment told between two answers (() for
    nowhere), see `learner/advantages.py`.
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantages: tuple[float, ...]
    policy_version: int
    temperature: float = 1.0
    observations: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        num = len(self.token_ids)
        assert num == len(self.loss_mask) == len(self.logprobs) == len(self.advantages)
        assert len(self.observations) in (0, num)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGroup:
    """Episodes that share a baseline, as the learner sees them; errored ones are already out.

    `weight` scales the advantages of the whole group (the loss weight of its role). `role` names
    the metrics of its kind; it decides nothing. `counts`: how many attempts each trajectory stands
    for, not always a whole number; () for one each.
    """

    group_id: str
    trajectories: tuple[Trajectory, ...]
    rewards: tuple[float, ...]
    weight: float = 1.0
    role: str = ""
    counts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.trajectories) == len(self.rewards)
        assert len(self.counts) in (0, len(self.rewards))
