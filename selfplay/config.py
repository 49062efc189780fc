"""Hydra configuration made into typed dataclasses, once, at the entry point.

Every command composes `conf/<command>.yaml` with the overrides of the command line and merges the
result into the dataclass below strictly, so that a misspelt key is an error. Nothing past the
entry point sees a DictConfig.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from selfplay.agent_config import AgentConfig
from selfplay.engine_config import OpenAIConfig, VLLMConfig
from selfplay.errors import UserError
from selfplay.learner_config import LearnerConfig
from selfplay.metrics import MetricsConfig
from selfplay.types import Limits

T = TypeVar("T")


@dataclass(kw_only=True)
class PolicyConfig:
    """Which weights answer, and how they are sampled (temperature 1, top-p 1 while training).

    `engine`: transformers, vllm, openai or scripted.
    """

    engine: str = "transformers"
    model: str = "smollm2-135m"
    adapter: str | None = "default"
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 80
    batch_tokens: int = 24_000
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    openai: OpenAIConfig = field(default_factory=OpenAIConfig)


@dataclass(kw_only=True)
class ScaffoldConfig:
    """How the roles work: `kind` is compact (one turn) or agentic (tools in a sandbox).

    The other keys are the compact scaffold's: what a prompt may hold. `public_share`: part of the
    failing tests that a solver is shown; it is graded on all of them.
    """

    kind: str = "compact"
    max_prompt_tokens: int = 640
    max_functions: int = 2
    max_function_lines: int = 36
    max_oracle_files: int = 2
    max_oracle_s: float = 3.0
    public_share: float = 1.0
    agent: AgentConfig = field(default_factory=AgentConfig)


@dataclass(kw_only=True)
class SandboxConfig:
    """Backend (auto, docker, bubblewrap, unsafe) and how many run at once (None: all cores).

    `preload`: bubblewrap forks test runs from an interpreter that has loaded the test runner.
    `runtime`: what Docker runs containers with, such as gVisor's runsc (None: its default).
    """

    name: str = "auto"
    num_workers: int | None = None
    preload: bool = True
    runtime: str | None = None


@dataclass(kw_only=True)
class ReposConfig:
    """Names in `repos/` or paths to git work trees, for training and for held-out evaluation."""

    train: list[str] = field(default_factory=list)
    directory: str | None = None


@dataclass(kw_only=True)
class InjectorConfig:
    """Strategies with their weights, and the limits that an artifact must meet.

    `temperature` is that of the injector's answers (null: `policy.temperature`). `inverse_hunks`:
    each hunk of the bug must have a part in the failures, not just each file.
    """

    strategies: dict[str, float] = field(default_factory=dict)
    temperature: float | None = None
    min_passing_tests: int = 5
    min_changed_files: int = 1
    min_failing_tests: int = 1
    script_timeout_s: float = 90.0
    inverse_hunks: bool = False

    def limits(self) -> Limits:
        """The limits of an injection task."""
        return Limits(
            min_passing_tests=self.min_passing_tests,
            min_changed_files=self.min_changed_files,
            min_failing_tests=self.min_failing_tests,
            script_timeout_s=self.script_timeout_s,
            inverse_hunks=self.inverse_hunks,
        )


@dataclass(kw_only=True)
class RewardConfig:
    """Injector reward (solve_rate, consistency, band, power) and its parameters; solver reward
    (resolved, similarity, partial)."""

    injector: str = "solve_rate"
    solver: str = "resolved"
    alpha: float = 0.8
    low: float = 0.1
    high: float = 0.6
    a: float = 1.0
    b: float = 1.0


@dataclass(kw_only=True)
class CurriculumConfig:
    """Shape of one step.

    `num_groups` injector peer groups (repository x strategy) of `seeds_per_group` prompts, each
    sampled `samples_per_seed` times; every valid bug gets `group_size` solver attempts; bugs of
    earlier steps are replayed until `min_solve_groups` groups are on the table. Of the failed
    attempts of a step, at most `higher_order` become second-order bugs (0: none). `adaptive_kinds`:
    kinds of bug that the solver fixes some of are asked for more often (compact scaffold).
    """

    num_groups: int = 2
    seeds_per_group: int = 2
    samples_per_seed: int = 2
    group_size: int = 8
    min_solve_groups: int = 6
    higher_order: int = 2
    max_bugs_per_function: int = 4
    adaptive_kinds: bool = True
    replay_low: float = 0.05
    replay_high: float = 0.7
    max_idle_steps: int = 5


@dataclass(kw_only=True)
class EvalConfig:
    """Held-out evaluation before and after training; `suite=null` leaves it out.

    Temperature 1 and top-p 0.95 are the published settings.
    """

    suite: str | None = None
    num_tasks: int | None = None
    num_samples: int = 8
    temperature: float = 1.0
    top_p: float = 0.95


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


def find_conf_dir() -> Path:
    """The `conf/` beside the package, or `$SELFPLAY_CONF`."""
    chosen = os.environ.get("SELFPLAY_CONF")
    conf = Path(chosen) if chosen else Path(__file__).resolve().parent.parent / "conf"
    if not conf.is_dir():
        raise UserError(f"no configuration directory at {conf}; set SELFPLAY_CONF to a conf/")
    return conf


def load_config(schema: type[T], name: str, overrides: Sequence[str]) -> T:
    """Compose `conf/<name>.yaml` with overrides into `schema`. Raises `UserError` with one line."""
    try:
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
        with initialize_config_dir(str(find_conf_dir().resolve()), version_base="1.3"):
            composed = compose(config_name=name, overrides=list(overrides))
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise UserError(f"{name}: missing {', '.join(f'{key}=...' for key in missing)}")
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{name}: {'; '.join(lines[:3])}") from None
    assert isinstance(config, schema)
    return config


def read_config(schema: type[T], file: Path) -> T:
    """What `to_yaml` has written. Raises `UserError` where it does not fit this version."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(file)))
    except (OSError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: {str(error).splitlines()[0]}") from None
    assert isinstance(config, schema)
    return config


def to_yaml(config: object) -> str:
    """The resolved configuration as YAML, for `config.yaml` of the run directory."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
