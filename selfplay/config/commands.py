"""The whole configuration of each command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from selfplay.config.checks import above, at_least, one_of, share
from selfplay.config.curriculum import (
    CurriculumConfig,
    EvalConfig,
    InjectorConfig,
    RewardConfig,
    TaskConfig,
    check_limits,
)
from selfplay.config.learner import LearnerConfig, SupervisedConfig
from selfplay.config.metrics import MetricsConfig
from selfplay.config.policy import PolicyConfig, SplitConfig
from selfplay.config.sandbox import ReposConfig, SandboxConfig
from selfplay.config.scaffold import ScaffoldConfig
from selfplay.errors import UserError
from selfplay.types import Limits


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command takes."""

    json: bool = False
    """Print the result as one JSON document."""


@dataclass(frozen=True, kw_only=True)
class SandboxedCommand(Command):
    """What every command takes that runs code of repositories."""

    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    """Where code runs."""
    repos: ReposConfig = field(default_factory=ReposConfig)
    """Which repositories."""


@dataclass(frozen=True, kw_only=True)
class PlayingCommand(SandboxedCommand):
    """What every command takes in which a policy answers."""

    seed: int = 0
    """Of all draws."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """Which weights answer."""
    scaffold: ScaffoldConfig = field(default_factory=ScaffoldConfig)
    """How the roles work."""


@dataclass(frozen=True, kw_only=True)
class SeveralRepos:
    """What commands take that go through several repositories."""

    repo: Any = MISSING
    """A name, a path, or a list of them."""

    @property
    def names(self) -> list[str]:
        """The repositories that are meant."""
        names = [self.repo] if isinstance(self.repo, str) else [str(name) for name in self.repo]
        if not names:
            raise UserError("repo=[]: name at least one repository")
        return names


@dataclass(frozen=True, kw_only=True)
class TrainConfig(PlayingCommand, TaskConfig):
    """`selfplay train`: one run, of self-play or on tasks that are given."""

    name: str = "train"
    """Name of the run."""
    runs_dir: str = "runs"
    """Folder of the runs; this one is written to runs_dir/name."""
    steps: int = 150
    """Steps of the run; one that is resumed may have more."""
    max_minutes: float | None = None
    """This start plays no step that would not be over by then, with time left for the evaluation
    after training; the same command goes on for as long again. null: no bound."""
    resume: str = "auto"
    """auto goes on with a run that is there, never refuses."""
    dry_run: bool = False
    """Tell what would happen, with devices, memory, tokens and disk; start and write nothing."""
    devices: str = "auto"
    """GPUs that are there: auto, cpu (use none), or for a dry run fake:8 or fake:8x80 (GiB)."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """GPUs of the learner and of vLLM servers."""
    injector: InjectorConfig = field(default_factory=InjectorConfig)
    """What is asked of the injector."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Rewards of both roles."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    """Shape of one step."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """GRPO."""
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    """Held-out evaluation before and after training."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """Sinks beside metrics.jsonl."""

    def __post_init__(self) -> None:
        TaskConfig.__post_init__(self)
        one_of(self, "", "resume", ("auto", "never"))
        if self.commits is not None and self.curriculum.human_suite is not None:
            raise UserError("curriculum.human_suite: task=commits plays real bugs alone; name them "
                            "all in commits=")  # fmt: skip
        if self.curriculum.gold_counts == "expected":
            self._check_expected()

    def _check_expected(self) -> None:
        """The probability of an answer is that of its being sampled, and the learner reads how
        many attempts it stands for."""
        policy, advantage = self.policy, self.learner.advantage
        for value, fits in (
            (f"learner.advantage={advantage}", advantage == "mean"),
            (f"policy.top_p={policy.top_p:g}", policy.top_p == 1),
            (f"policy.temperature={policy.temperature:g}", policy.temperature > 0),
        ):
            if not fits:
                raise UserError(
                    f"curriculum.gold_counts=expected with {value}: needs learner.advantage=mean, "
                    "policy.top_p=1 and a temperature above 0; or set it to one"
                )


@dataclass(frozen=True, kw_only=True)
class WarmstartConfig(PlayingCommand, SupervisedConfig):
    """`selfplay warmstart`: a supervised start from validated procedural bugs, repairs of other
    code, and traces."""

    out: str = MISSING
    """Folder of examples, corpus, adapter and record."""
    num_bugs: int = 800
    """Procedural bugs to learn from; 0 with num_bare or traces: these alone."""
    max_bugs_per_function: int = 4
    """Bugs of one function."""
    injector_share: float = 1.0
    """Part of the bugs that also teach the injector; all teach the solver."""
    sources: list[str] = field(default_factory=list)
    """Code that is broken and repaired as text: stdlib, installed packages, directories."""
    num_bare: int = 0
    """Repairs of the code of `sources`, whose tests are not run."""
    traces: int = 0
    """Lessons from traces (docs/traces.md): what comes of a line or a call, scratchpads."""
    trace_data: str | None = None
    """Folder that `selfplay traces` wrote; null: the tests of repos.train are recorded to
    out/traces."""
    held_out_fraction: float = 0.05
    """Part of the functions whose examples are held out."""
    rank: int = 16
    """Rank of the adapter."""
    injector: InjectorConfig = field(default_factory=InjectorConfig)
    """Limits that a bug must meet."""

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        share(self, "", "injector_share", "held_out_fraction")
        at_least(self, "", 1, "max_bugs_per_function", "rank")
        at_least(self, "", 0, "num_bugs", "num_bare", "traces")
        if bool(self.sources) != (self.num_bare > 0):
            raise UserError("sources=[...] and num_bare=N belong together: give both or neither")
        if self.trace_data is not None and not self.traces:
            raise UserError("trace_data=DIR needs traces=N: how many lessons are made of it")
        if not self.num_bugs + self.num_bare + self.traces:
            raise UserError("num_bugs=0 leaves nothing to learn from; add num_bare=N or traces=N")


@dataclass(frozen=True, kw_only=True)
class InjectConfig(SeveralRepos, PlayingCommand):
    """`selfplay inject`: N injection episodes, or procedural bugs."""

    n: int | None = None
    """Tries of each repository; null: 8, or without bound where `num_bugs` ends the work."""
    num_bugs: int | None = None
    """Bugs that end the work, with source=procedural or rebuild; null: no such end."""
    out: str = "runs/inject"
    """Folder of bugs and episodes."""
    source: str = "policy"
    """policy; or without any model procedural (mutations) or rebuild (modules taken away)."""
    level: str = "bodies"
    """source=rebuild: what goes: bodies of a module, its file, or bodies of a whole package."""
    injector: InjectorConfig = field(default_factory=InjectorConfig)
    """What is asked of the injector."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    """How functions are drawn."""

    def __post_init__(self) -> None:
        one_of(self, "", "source", ("policy", "procedural", "rebuild"))
        one_of(self, "", "level", ("bodies", "file", "package"))
        at_least(self, "", 1, "n", "num_bugs")
        if self.source == "policy" and (len(self.names) != 1 or self.num_bugs):
            raise UserError("several repositories and num_bugs= need source=procedural or rebuild")

    @property
    def num_tries(self) -> int | None:
        """Tries of each repository, None: no bound."""
        return self.n or (None if self.num_bugs else 8)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(PlayingCommand):
    """`selfplay evaluate`: the solver on the tasks of one suite file, or of a run's corpus."""

    suite: str = MISSING
    """A suite file, a run directory, tasks of others (docs/formats.md, "Suites of others"), or
    questions about outputs (docs/traces.md)."""
    out: str | None = None
    """File of the result; null: it is only shown."""
    num_tasks: int | None = None
    """Only the first tasks of the suite; null: all."""
    num_samples: int = 8
    """Attempts on each task; 0: only the probability of its gold answer."""
    checkpoint: str | None = None
    """A run directory or exported weights; null: as `policy` says."""

    def __post_init__(self) -> None:
        at_least(self, "", 1, "num_tasks")
        at_least(self, "", 0, "num_samples")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig(SandboxedCommand, Limits):
    """`selfplay validate`: the consistency validation of one artifact."""

    repo: str = MISSING
    """A name or a path."""
    artifact: str = MISSING
    """Directory with the five files of a bug."""

    def __post_init__(self) -> None:
        check_limits(self, "")


@dataclass(frozen=True, kw_only=True)
class GradeConfig(ValidateConfig):
    """`selfplay grade`: one fix patch against one artifact."""

    patch: str = MISSING
    """File with the fix patch."""


@dataclass(frozen=True, kw_only=True)
class RepoConfig(SandboxedCommand):
    """`selfplay repos prepare`: one repository made ready."""

    repo: str = MISSING
    """A name or a path."""
    refresh: bool = False
    """Prepare it again, whatever the cache holds."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Command):
    """`selfplay compare A B`: what changed between two evaluations."""

    a: str = MISSING
    """The first: a result of `evaluate`, or a run directory."""
    b: str = MISSING
    """The second."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig(SandboxedCommand):
    """`selfplay serve`: the bugs of a suite as an environment behind HTTP."""

    suite: str = MISSING
    """As of `evaluate`."""
    num_tasks: int | None = None
    """Only the first tasks of the suite; null: all."""
    host: str = "127.0.0.1"
    """Address to listen at; any but loopback's is open to whoever reaches it."""
    port: int = 8000
    """Port to listen at; 0: any that is free."""
    max_episodes: int = 64
    """Episodes that may be open at once."""
    idle_s: float = 600.0
    """Seconds after which an episode that nobody uses is ended."""
    max_steps: int = 128
    """Commands of one episode."""
    scaffold: ScaffoldConfig = field(default_factory=ScaffoldConfig)
    """What a question may hold, and the bounds of commands (`scaffold.agent`)."""

    def __post_init__(self) -> None:
        at_least(self, "", 1, "num_tasks", "max_episodes", "max_steps")
        above(self, "", 0, "idle_s")
        if not 0 <= self.port < 1 << 16:
            raise UserError(f"port={self.port}: must be between 0 and 65535")


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig(Command):
    """`selfplay episode show`: stored episodes, turn by turn."""

    run: str = MISSING
    """Run directory, or the folder of `selfplay inject`."""
    id: str | None = None
    """Part of the ids of the episodes that are meant; null: all."""
    max_lines: int = 30
    """Lines of one turn that are shown."""

    def __post_init__(self) -> None:
        at_least(self, "", 2, "max_lines")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Command):
    """`selfplay report`: runs as one HTML page."""

    run: Any = MISSING
    """Run directory, or a list of them: runs that are compared."""
    out: str | None = None
    """File of the page; null: report.html in the directory of the run, of several beside it."""
    max_mb: float = 5.0
    """Size of the page; texts of the oldest bugs and episodes are left out beyond it."""

    def __post_init__(self) -> None:
        at_least(self, "", 2, "max_mb")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Command):
    """`selfplay doctor`: what works on this machine."""
