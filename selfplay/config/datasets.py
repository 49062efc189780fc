"""The whole configuration of the commands that make data: of repositories, and of runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from selfplay.config.checks import above, at_least, one_of
from selfplay.config.commands import SandboxedCommand, SeveralRepos
from selfplay.config.policy import PolicyConfig
from selfplay.errors import UserError
from selfplay.types import Limits

FORMATS = ("swebench", "swesmith", "harbor", "verifiers", "sft", "dpo", "hf")


@dataclass(frozen=True, kw_only=True)
class MiningLimits:
    """What a commit may change at most, and how long its tests may run."""

    max_files: int = 6
    """Source files that the commit changes."""
    max_lines: int = 300
    """Lines that the commit changes in them."""
    script_timeout_s: float = 60.0
    """Seconds of one run of its tests."""

    def of_validation(self) -> Limits:
        """One changed file, one test that fails, one that passes."""
        return Limits(
            min_passing_tests=1,
            min_changed_files=1,
            min_failing_tests=1,
            script_timeout_s=self.script_timeout_s,
        )


@dataclass(frozen=True, kw_only=True)
class MineConfig(SandboxedCommand, MiningLimits):
    """`selfplay mine`: real bug-fix commits of one repository's history as a suite."""

    repo: str = MISSING
    """A name or a path, of a repository with its history."""
    out: str = "runs/mined.jsonl"
    """Suite file that is written."""
    max_commits: int | None = None
    """Commits that are looked at, the newest first; null: all."""
    max_tasks: int | None = None
    """Bugs that end the work; null: none do."""

    def __post_init__(self) -> None:
        at_least(self, "", 1, "max_files", "max_lines", "max_commits", "max_tasks")
        above(self, "", 0, "script_timeout_s")


@dataclass(frozen=True, kw_only=True)
class SuiteMakeConfig(SandboxedCommand):
    """`selfplay suite make`: programs with tests become a suite."""

    programs: str = MISSING
    """Folder in QuixBugs' layout, or of programs known by what they do (docs/formats.md)."""
    out: str = MISSING
    """Folder of the suite and of the history that it stands on."""
    script_timeout_s: float = 60.0
    """Seconds of one run of a program's tests."""

    def __post_init__(self) -> None:
        above(self, "", 0, "script_timeout_s")


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


@dataclass(frozen=True, kw_only=True)
class ExportConfig(SandboxedCommand):
    """`selfplay export`, and `selfplay corpus verify`, which reads what `out` holds."""

    run: str = MISSING
    """Run directory."""
    format: str = "swebench"
    """swebench, swesmith, harbor, verifiers, sft, dpo or hf."""
    problem_statement: str = "none"
    """Issue texts of bugs that have none: none, template (made of the failing tests alone, left
    out where it would give something of the gold patch or of the oracle tests away), or model (by
    `policy`, an OpenAI-compatible server, under the same check; else the template's)."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """problem_statement=model: the server that is asked."""
    out: str = MISSING
    """Folder of the export."""
    parquet: bool = False
    """The lines of the export once more in out/parquet, which the package datasets loads."""
    step: int | None = None
    """format=hf: step of the checkpoint; null: the newest."""
    num_tasks: int | None = None
    """corpus verify: only the first tasks; null: all."""
    revalidate: bool = False
    """corpus verify: also validate each bug once more."""
    kept: str | None = None
    """corpus verify: a suite file of the bugs that pass, of other formats in this project's."""

    def __post_init__(self) -> None:
        one_of(self, "", "format", FORMATS)
        one_of(self, "", "problem_statement", ("none", "template", "model"))
        if self.parquet and self.format == "hf":
            raise UserError("parquet=true: format=hf has no lines")
