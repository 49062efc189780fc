"""Where code runs, and on what: `sandbox`, `repos`."""

from __future__ import annotations

from dataclasses import dataclass, field


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
