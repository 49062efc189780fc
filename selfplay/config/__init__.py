"""The configuration: dataclasses for each part and each command, and how they are loaded."""

from selfplay.config.commands import (
    DoctorConfig,
    EpisodeConfig,
    EvaluateConfig,
    ExportConfig,
    GradeConfig,
    InjectConfig,
    MineConfig,
    RepoConfig,
    TrainConfig,
    ValidateConfig,
    WarmstartConfig,
)
from selfplay.config.curriculum import (
    CurriculumConfig,
    EvalConfig,
    InjectorConfig,
    RewardConfig,
)
from selfplay.config.learner import (
    LearnerConfig,
)
from selfplay.config.loading import (
    find_conf_dir,
    load_config,
    read_config,
    to_yaml,
)
from selfplay.config.policy import (
    OpenAIConfig,
    PolicyConfig,
    VLLMConfig,
)
from selfplay.config.sandbox import (
    ReposConfig,
    SandboxConfig,
)
from selfplay.config.scaffold import (
    AgentConfig,
    ScaffoldConfig,
)

__all__ = [
    "AgentConfig",
    "CurriculumConfig",
    "DoctorConfig",
    "EpisodeConfig",
    "EvalConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GradeConfig",
    "InjectConfig",
    "InjectorConfig",
    "LearnerConfig",
    "MineConfig",
    "OpenAIConfig",
    "PolicyConfig",
    "RepoConfig",
    "ReposConfig",
    "RewardConfig",
    "SandboxConfig",
    "ScaffoldConfig",
    "TrainConfig",
    "VLLMConfig",
    "ValidateConfig",
    "WarmstartConfig",
    "find_conf_dir",
    "load_config",
    "read_config",
    "to_yaml",
]
