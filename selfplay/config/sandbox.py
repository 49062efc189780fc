"""Where code runs, and on what: `sandbox`, `repos`."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfplay.config.checks import at_least


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Which sandbox, and how many run at once."""

    name: str = "auto"
    """Backend: auto, docker, bubblewrap or unsafe."""
    num_workers: int | None = None
    """Sandboxes that run at once; null: one for each core."""
    preload: bool = True
    """bubblewrap forks test runs from an interpreter that has loaded the test runner."""
    early_grading: bool = True
    """A failing test decides an attempt before the others run; false runs all, the reference."""
    runtime: str | None = None
    """What Docker runs containers with, such as gVisor's runsc; null: the engine's default."""

    def __post_init__(self) -> None:
        at_least(self, "sandbox.", 1, "num_workers")


@dataclass(frozen=True, kw_only=True)
class ReposConfig:
    """Which repositories."""

    train: list[str] = field(default_factory=list)
    """Names in `repos.directory`, or paths to git work trees."""
    directory: str | None = None
    """Folder of repository files; null: the `repos/` of the checkout."""
