"""The whole configuration of each command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from selfplay.config.curriculum import CurriculumConfig, EvalConfig, InjectorConfig, RewardConfig
from selfplay.config.learner import LearnerConfig
from selfplay.config.policy import PolicyConfig
from selfplay.config.sandbox import ReposConfig, SandboxConfig
from selfplay.config.scaffold import ScaffoldConfig
from selfplay.metrics import MetricsConfig


@dataclass(kw_only=True)
class TrainConfig:
    """`selfplay train`: one self-play run.

    `max_minutes`: this start plays no step that would not be over by then, with time left for the
    evaluation after training; the same command goes on for as long again.
    """

    name: str = "train"
    runs_dir: str = "runs"
    steps: int = 150
    max_minutes: float | None = None
    seed: int = 0
    resume: str = "auto"
    json: bool = False
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    scaffold: ScaffoldConfig = field(default_factory=ScaffoldConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)
    injector: InjectorConfig = field(default_factory=InjectorConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)


@dataclass(kw_only=True)
class WarmstartConfig:
    """`selfplay warmstart`: a supervised start in both roles from validated procedural bugs.

    `injector_share`: part of the bugs that also teach the injector; all teach the solver.
    `num_bare` repairs without tests of the code of `sources`: stdlib, installed packages,
    directories.
    """

    out: str = MISSING
    seed: int = 0
    json: bool = False
    num_bugs: int = 800
    max_bugs_per_function: int = 4
    injector_share: float = 1.0
    sources: list[str] = field(default_factory=list)
    num_bare: int = 0
    epochs: float = 1.0
    learning_rate: float = 1e-3
    batch_tokens: int = 8192
    held_out_fraction: float = 0.05
    rank: int = 16
    max_minutes: float = 60.0
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    scaffold: ScaffoldConfig = field(default_factory=ScaffoldConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)
    injector: InjectorConfig = field(default_factory=InjectorConfig)


@dataclass(kw_only=True)
class InjectConfig:
    """`selfplay inject`: N injection episodes; `repo` is a name, a path, or a list of them.

    `n` tries of each repository: 8, or without bound where `num_bugs` ends the work.
    """

    repo: Any = MISSING
    n: int | None = None
    num_bugs: int | None = None
    seed: int = 0
    out: str = "runs/inject"
    json: bool = False
    source: str = "policy"
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    scaffold: ScaffoldConfig = field(default_factory=ScaffoldConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)
    injector: InjectorConfig = field(default_factory=InjectorConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)

    @property
    def num_tries(self) -> int | None:
        """Tries of each repository, None: no bound."""
        return self.n or (None if self.num_bugs else 8)


@dataclass(kw_only=True)
class EvaluateConfig:
    """`selfplay evaluate`: the solver on the tasks of one suite file, or of a run's corpus."""

    suite: str = MISSING
    out: str | None = None
    seed: int = 0
    json: bool = False
    num_tasks: int | None = None
    num_samples: int = 8
    checkpoint: str | None = None
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    scaffold: ScaffoldConfig = field(default_factory=ScaffoldConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)


@dataclass(kw_only=True)
class ValidateConfig:
    """`selfplay validate` and, with `patch`, `selfplay grade`."""

    repo: str = MISSING
    artifact: str = MISSING
    json: bool = False
    min_passing_tests: int = 5
    min_changed_files: int = 1
    min_failing_tests: int = 1
    script_timeout_s: float = 90.0
    inverse_hunks: bool = False
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)


@dataclass(kw_only=True)
class GradeConfig(ValidateConfig):
    """`selfplay grade`: one fix patch against one artifact."""

    patch: str = MISSING


@dataclass(kw_only=True)
class RepoConfig:
    """`selfplay repos prepare` and `selfplay mine`."""

    repo: str = MISSING
    json: bool = False
    refresh: bool = False
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)


@dataclass(kw_only=True)
class MineConfig:
    """`selfplay mine`: real bug-fix commits of one repository's history as a suite."""

    repo: str = MISSING
    out: str = "runs/mined.jsonl"
    json: bool = False
    max_commits: int | None = None
    max_tasks: int | None = None
    max_files: int = 6
    max_lines: int = 300
    script_timeout_s: float = 60.0
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)


@dataclass(kw_only=True)
class ExportConfig:
    """`selfplay export` and `selfplay corpus verify` (which reads `out`)."""

    run: str = MISSING
    format: str = "swebench"
    out: str = MISSING
    json: bool = False
    step: int | None = None
    num_tasks: int | None = None
    revalidate: bool = False
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    repos: ReposConfig = field(default_factory=ReposConfig)


@dataclass(kw_only=True)
class EpisodeConfig:
    """`selfplay episode show`: stored episodes, turn by turn."""

    run: str = MISSING
    id: str | None = None
    max_lines: int = 30
    json: bool = False


@dataclass(kw_only=True)
class DoctorConfig:
    """`selfplay doctor`."""

    json: bool = False
