"""What the checks of one validation share: the artifact, its layers, the runs made so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfplay.bugs.test_runs.runner import CountedRuns, ReadsTests, TestRun, passed_tests
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, FileChange, Layer, Limits


class CheckFailed(Exception):
    """A check decided against the artifact: reason code and prose. A value in disguise."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(kw_only=True)
class ValidationState:
    """One artifact under validation; later checks read what earlier ones wrote."""

    artifact: BugArtifact
    environment: Environment
    runner: ReadsTests
    limits: Limits
    bug: Layer = field(default_factory=dict)
    weakening: Layer = field(default_factory=dict)
    weakened_state: Layer = field(default_factory=dict)
    original_run: TestRun | None = None
    bug_run: TestRun | None = None
    fail_to_pass: list[str] = field(default_factory=list)
    pass_to_pass: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """Tests of other files that pass with the bug; looked for when no oracle test does."""
    runs: CountedRuns = field(init=False)

    def __post_init__(self) -> None:
        self.runs = CountedRuns(self.runner)

    def run(self, layer: Layer, *, hash_seed: int = 0, script: str | None = None) -> TestRun:
        """Run the artifact's script (or another) on original + `layer`. Raises `SandboxError`."""
        return self.runs.run(
            script or self.artifact.test_script,
            self.artifact.test_parser,
            layer,
            timeout_s=self.limits.script_timeout_s,
            hash_seed=hash_seed,
        )

    def readable(self, run: TestRun, state: str) -> TestRun:
        """`run` when it ended in time with a parsable, non-empty table, else `CheckFailed`."""
        limit = self.limits.script_timeout_s
        if run.timed_out:
            raise CheckFailed("timed_out", f"{state}: the script ran longer than {limit:g} s")
        if run.output_truncated:
            raise CheckFailed("output_truncated", f"{state}: the script printed too much")
        if not run.parser_ok:
            raise CheckFailed(
                "parser_failed", f"{state}: the parser gave no table: {run.parser_output[-300:]}"
            )
        if not run.table:
            tail = run.output[-400:].strip()
            raise CheckFailed("parser_empty", f"{state}: no test in the output; it ends: {tail}")
        return run

    @property
    def original_passes(self) -> set[str]:
        """Tests that pass on the original code."""
        assert self.original_run is not None
        return set(passed_tests(self.original_run.table))


def without(layer: Layer, paths: tuple[str, ...]) -> dict[str, FileChange]:
    """A state with some files back at their original."""
    return {path: change for path, change in layer.items() if path not in paths}
