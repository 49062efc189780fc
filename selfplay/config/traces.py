"""The whole configuration of `selfplay traces`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from selfplay.config.checks import above, at_least
from selfplay.config.commands import SandboxedCommand, SeveralRepos


@dataclass(frozen=True, kw_only=True)
class TracesConfig(SeveralRepos, SandboxedCommand):
    """`selfplay traces`: what repositories' tests run, as datasets."""

    out: str = MISSING
    """Folder of the datasets."""
    num_tests: int | None = None
    """Tests of each repository, drawn; null: all."""
    seed: int = 0
    """Of the draw of tests."""
    max_events: int = 2000
    """Events that are recorded of one test."""
    max_bytes: int = 200_000
    """Bytes of the values that are recorded of one test."""
    max_seconds: float = 5.0
    """Seconds of one test under tracing; a test that needs more is left out."""
    include_tests: bool = False
    """Record the frames of test files, too."""
    check: bool = False
    """Record what is kept once more, and tell how much of it is the same."""

    def __post_init__(self) -> None:
        at_least(self, "", 1, "num_tests", "max_events", "max_bytes")
        above(self, "", 0, "max_seconds")
