"""The configuration: dataclasses for each part and each command, and how they are loaded."""

from selfplay.config.commands import (
    CompareConfig,
    DoctorConfig,
    EpisodeConfig,
    EvaluateConfig,
    GradeConfig,
    InjectConfig,
    RepoConfig,
    ReportConfig,
    ServeConfig,
    TrainConfig,
    ValidateConfig,
    WarmstartConfig,
)
from selfplay.config.curriculum import (
    AlarmsConfig,
    CurriculumConfig,
    EvalConfig,
    InjectorConfig,
    RewardConfig,
)
from selfplay.config.datasets import (
    ExportConfig,
    MineConfig,
    MiningLimits,
    SuiteMakeConfig,
    TracesConfig,
)
from selfplay.config.learner import (
    LearnerConfig,
    LossConfig,
    RepetitionConfig,
    SupervisedConfig,
    TrainerConfig,
)
from selfplay.config.loading import GONE, load_config, read_config, to_yaml
from selfplay.config.metrics import MetricsConfig
from selfplay.config.policy import OpenAIConfig, PolicyConfig, SplitConfig, VLLMConfig
from selfplay.config.sandbox import ClusterConfig, ReposConfig, SandboxConfig
from selfplay.config.scaffold import AgentConfig, AgentLimits, FeedbackConfig, ScaffoldConfig

__all__ = [
    "GONE",
    "AgentConfig",
    "AgentLimits",
    "AlarmsConfig",
    "ClusterConfig",
    "CompareConfig",
    "CurriculumConfig",
    "DoctorConfig",
    "EpisodeConfig",
    "EvalConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FeedbackConfig",
    "GradeConfig",
    "InjectConfig",
    "InjectorConfig",
    "LearnerConfig",
    "LossConfig",
    "MetricsConfig",
    "MineConfig",
    "MiningLimits",
    "OpenAIConfig",
    "PolicyConfig",
    "RepetitionConfig",
    "RepoConfig",
    "ReportConfig",
    "ReposConfig",
    "RewardConfig",
    "SandboxConfig",
    "ScaffoldConfig",
    "ServeConfig",
    "SplitConfig",
    "SuiteMakeConfig",
    "SupervisedConfig",
    "TracesConfig",
    "TrainConfig",
    "TrainerConfig",
    "VLLMConfig",
    "ValidateConfig",
    "WarmstartConfig",
    "load_config",
    "read_config",
    "to_yaml",
]
