"""Real bugs from a repository's past: commits that change source and tests together.

The state after the commit is the original, its source changes undone are the bug, its test changes
undone are the weakening: a mined bug is an artifact like any other and enters by the same door,
the consistency validation and the round trip. Why a commit was dropped is always said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from selfplay.bug_sources.commits import Commit, commit_environment, place_name, read_commit
from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_runs.runner import TestRunner, failed_tests, passed_tests
from selfplay.bugs.test_runs.scripts import parser_source, pytest_script
from selfplay.bugs.validation.checks_run import OTHER_SEED
from selfplay.bugs.validation.validate import validate
from selfplay.config import MiningLimits
from selfplay.errors import PatchError, RepoError
from selfplay.repo.prepare import PreparedRepo
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, Layer, SolveTask, ValidationReport

MAX_TRIMMED = 3
_TRAILER = re.compile(r"^(signed-off-by|co-authored-by|reviewed-by|change-id|cc)\s*:.*$", re.I)
_TEST_MODULE = re.compile(r"^(test_.*|.*_test|tests?)\.py$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """One commit's outcome: "kept" with its task, or the reason why it was dropped."""

    commit: str
    subject: str
    outcome: str
    detail: str = ""
    task: SolveTask | None = None
    parent: str = ""


class Dropped(Exception):
    """A commit is no bug that can be used. A value in disguise."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def mine_commit(
    prepared: PreparedRepo,
    sha: str,
    limits: MiningLimits,
    make_runner: Callable[[Environment], TestRunner],
) -> Mined:
    """Judge one commit. Raises `SandboxError` when the infrastructure fails."""
    subject, parent = "", ""
    try:
        commit = read_commit(prepared, sha)
        subject, parent = commit.message.split("\n")[0], commit.parent
        check_commit(commit, limits)
        runner = make_runner(commit_environment(prepared, commit))
        artifact, report = _validated(commit, runner, limits)
    except Dropped as why:
        return Mined(commit=sha, subject=subject, outcome=why.reason, detail=why.detail)
    except (PatchError, RepoError, UnicodeError) as error:
        return Mined(commit=sha, subject=subject, outcome="unreadable", detail=str(error))
    task = SolveTask(
        bug_id=f"{prepared.name}-{sha[:12]}",
        repo=place_name(prepared.name, sha),
        artifact=artifact,
        fail_to_pass=report.fail_to_pass,
        pass_to_pass=report.pass_to_pass,
        problem_statement=problem_statement(commit.message),
        failure_output=report.failure_output,
        limits=limits.of_validation(),
    )
    return Mined(commit=sha, subject=subject, outcome="kept", task=task, parent=parent)


def check_commit(commit: Commit, limits: MiningLimits) -> None:
    """The checks that need no run. Raises `Dropped`."""
    sources, tests = commit.sources, commit.tests
    if commit.odd:
        raise Dropped("odd_files", ", ".join(commit.odd[:5]))
    if not sources:
        raise Dropped("no_source")
    if not tests:
        raise Dropped("no_tests")
    if not test_modules(commit):
        raise Dropped("no_test_module", ", ".join(tests[:5]))
    if len(sources) > limits.max_files:
        raise Dropped("too_many_files", f"{len(sources)} source files")
    lines = sum(_num_lines(commit, path) for path in sources)
    if lines > limits.max_lines:
        raise Dropped("too_many_lines", f"{lines} lines of source")
    if all(commit.before[path].content is None for path in sources):
        raise Dropped("only_new_files", "all source files are new: nothing was broken")


def test_modules(commit: Commit) -> list[str]:
    """The changed test files that a runner collects and that are there after the commit."""
    return [
        path
        for path in commit.tests
        if commit.after[path].content is not None and _TEST_MODULE.match(PurePosixPath(path).name)
    ]


test_modules.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


def _validated(
    commit: Commit, runner: TestRunner, limits: MiningLimits
) -> tuple[BugArtifact, ValidationReport]:
    """The artifact and its report. Files that the failing tests do not need stay repaired."""
    targets = stable_targets(commit, runner, limits)
    bug = {path: commit.before[path] for path in commit.sources}
    trimmed: list[str] = []
    while True:
        artifact = make_artifact(commit, runner.environment, bug, targets, trimmed)
        report = validate(artifact, runner.environment, runner, limits.of_validation())
        failed = next((c for c in report.checks if c.status in ("fail", "undecided")), None)
        if failed is None:
            return artifact, report
        idle = [path for path in bug if failed.detail.startswith(f"{path}:")]
        again = failed.reason == "file_contributes_nothing" and idle and len(bug) > 1
        if not again or len(trimmed) == MAX_TRIMMED:
            raise Dropped(failed.reason, failed.detail)
        trimmed += idle
        bug = {path: change for path, change in bug.items() if path not in idle}


def stable_targets(commit: Commit, runner: TestRunner, limits: MiningLimits) -> list[str]:
    """The changed test files, or only their tests that pass where some fail. Raises `Dropped`."""
    files = test_modules(commit)
    parser = parser_source("pytest")
    runs = [
        runner.run(
            pytest_script(files), parser, {}, timeout_s=limits.script_timeout_s, hash_seed=seed
        )
        for seed in (0, OTHER_SEED)
    ]
    if any(run.timed_out for run in runs):
        raise Dropped("too_slow", f"longer than {limits.script_timeout_s:g} s after the commit")
    bad = {test for run in runs for test in failed_tests(run.table)}
    good = [t for t in passed_tests(runs[0].table) if runs[1].table.get(t) == "passed"]
    if not good:
        tail = runs[0].output.strip().splitlines()[-1:] or [""]
        raise Dropped("nothing_passes_after", tail[0][:200])
    return good if bad else files


def make_artifact(
    commit: Commit,
    environment: Environment,
    bug: Layer,
    targets: list[str],
    trimmed: list[str],
) -> BugArtifact:
    """The commit as an artifact on the state after it."""
    tree = environment.tree
    weakening = {p: commit.before[p] for p in commit.tests if commit.after[p].content is not None}
    files = dict.fromkeys([*test_modules(commit), *weakening])
    artifact = BugArtifact(
        test_script=pytest_script(targets),
        test_files=tuple(files),
        test_parser=parser_source("pytest"),
        bug_patch=make_patch(tree, {}, bug),
        weakening_patch=make_patch(tree, {}, weakening),
        meta={"commit": commit.sha, "origin": "mined", "left_repaired": trimmed},
    )
    artifact_id(artifact)  # raises PatchError for what cannot be written down
    return artifact


def problem_statement(message: str) -> str:
    """The commit message without trailers."""
    lines = [line.rstrip() for line in message.strip().splitlines() if not _TRAILER.match(line)]
    return "\n".join(lines).strip()


def _num_lines(commit: Commit, path: str) -> int:
    """Lines that differ, counted as the larger side of what is not shared at both ends."""
    old = (commit.before[path].content or b"").splitlines()
    new = (commit.after[path].content or b"").splitlines()
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    return len(set(old) ^ set(new))
