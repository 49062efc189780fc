"""Where code runs, and on what: `sandbox`, `repos`."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfplay.config.checks import above, at_least, one_of


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """On which machines sandboxes run; the run itself stays where it was started."""

    name: str = "local"
    """local: this machine alone; ray: the nodes of a Ray cluster (`cluster=ray`)."""
    address: str | None = None
    """HOST:PORT of the cluster's head; null: the one that this machine belongs to."""
    wait_s: float = 600.0
    """Seconds that a run which starts waits for the first node, and jobs when none is left."""

    def __post_init__(self) -> None:
        one_of(self, "sandbox.cluster.", "name", ("local", "ray"))
        above(self, "sandbox.cluster.", 0, "wait_s")


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Which sandbox, and how many run at once."""

    name: str = "auto"
    """Backend: auto, docker, bubblewrap or unsafe."""
    num_workers: int | None = None
    """Sandboxes that run at once; null: one for each core that this process may use, of
    a cluster as many as it has slots."""
    num_judges: int | None = None
    """Processes that validate and grade, since one interpreter serves one worker at a time; 0: none
    beside the run's own; null: one for each worker where there are 8 or more."""
    preload: bool = True
    """bubblewrap forks test runs from an interpreter that has loaded the test runner."""
    early_grading: bool = True
    """A failing test decides an attempt before the others run; false runs all, the reference."""
    runtime: str | None = None
    """What Docker runs containers with, such as gVisor's runsc; null: the engine's default."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """Other machines that run sandboxes."""

    def __post_init__(self) -> None:
        at_least(self, "sandbox.", 1, "num_workers")
        at_least(self, "sandbox.", 0, "num_judges")


@dataclass(frozen=True, kw_only=True)
class ReposConfig:
    """Which repositories."""

    train: list[str] = field(default_factory=list)
    """Names in `repos.directory`, or paths to git work trees."""
    directory: str | None = None
    """Folder of repository files; null: the `repos/` of the checkout."""
