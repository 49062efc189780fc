"""Real bugs from a repository's past: commits that change source and tests together.

The state after the commit is the original, its source changes undone are the bug, its test changes
undone are the weakening: a mined bug is an artifact like any other and enters by the same door,
the consistency validation and the round trip. Why a commit was dropped is always said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from selfplay.bug_sources.commit_files import is_test_module
from selfplay.bug_sources.commit_trees import commit_environment, place_name
from selfplay.bug_sources.commits import Commit, read_commit
from selfplay.bug_sources.oracle import Oracle, find_oracle, neighbour
from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.bugs.validation.validate import validate
from selfplay.config import MiningLimits
from selfplay.errors import InfrastructureError, PatchError, RepoError
from selfplay.repo.prepare import PreparedRepo
from selfplay.sandbox.base import Environment
from selfplay.types import (
    BugArtifact,
    Check,
    Layer,
    SolveTask,
    ValidationReport,
)

_TRAILER = re.compile(r"^(signed-off-by|co-authored-by|reviewed-by|change-id|cc)\s*:.*$", re.I)
MakeRunner = Callable[[Environment], TestRunner]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """One commit's outcome: "kept" with its task, or the reason why it was dropped."""

    commit: str
    subject: str
    outcome: str
    detail: str = ""
    task: SolveTask | None = None
    base: str = ""


class Dropped(Exception):
    """A commit is no bug that can be used. A value in disguise."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def mine_commit(
    prepared: PreparedRepo,
    sha: str,
    limits: MiningLimits,
    make_runner: MakeRunner,
    neighbours: Sequence[str] = (),
) -> Mined:
    """Judge one commit, or with it what its `neighbours` (nearest ancestors) hold of the change.

    Raises `SandboxError` when the infrastructure fails.
    """
    subject = ""
    try:
        commit = read_commit(prepared, sha)
        subject = commit.subject
        commit = with_other_half(prepared, commit, neighbours)
        check_commit(commit, limits)
        artifact, report = _Trial(prepared, commit, limits, make_runner).result()
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
    return Mined(commit=sha, subject=subject, outcome="kept", task=task, base=commit.base)


def with_other_half(prepared: PreparedRepo, commit: Commit, neighbours: Sequence[str]) -> Commit:
    """A fix without tests (or tests without a fix) with the ancestor that holds the other half."""
    wanted = _half(commit)
    for sha in neighbours if wanted else ():
        found = read_commit(prepared, sha)
        half = _half(found)
        if {wanted, half} == {"source", "test"}:
            return read_commit(prepared, commit.sha, found.base)
        if half or found.of_kind("source") or found.of_kind("test"):
            break
    return commit


def _half(commit: Commit) -> str:
    """ "source" or "test" of a commit with one of them alone, else ""."""
    source, test = bool(commit.of_kind("source")), bool(test_modules(commit))
    return "" if source == test else "source" if source else "test"


def check_commit(commit: Commit, limits: MiningLimits) -> None:
    """The checks that need no run. Raises `Dropped`."""
    sources, tests = commit.of_kind("source"), commit.of_kind("test")
    if not sources:
        raise Dropped("no_source", f"odd: {', '.join(commit.odd[:5])}" if commit.odd else "")
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
        for path in commit.of_kind("test")
        if commit.after[path].content is not None and is_test_module(path, commit.names)
    ]


test_modules.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """One way to make an artifact of a commit.

    bug         what is undone
    repaired    sources that no failing test needs back, and that the tests do need: in place
    reverted    files that the tests do not need: as before the commit in every state
    weakening   the tests' state that hides the bug
    """

    oracle: Oracle
    bug: Layer
    weakening: Layer
    repaired: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()


class _Trial:
    """The search for an artifact of one commit that is valid."""

    def __init__(
        self, prepared: PreparedRepo, commit: Commit, limits: MiningLimits, make_runner: MakeRunner
    ) -> None:
        self.commit, self.limits = commit, limits
        self._prepared, self._make_runner = prepared, make_runner
        self._runners: dict[tuple[str, ...], TestRunner] = {}

    def result(self) -> tuple[BugArtifact, ValidationReport]:
        """The artifact and its report. Raises `Dropped`."""
        candidate = self._first()
        while True:
            artifact, report = self._judge(candidate)
            failed = _failed(report)
            if failed is None:
                break
            if failed.status == "undecided":
                raise InfrastructureError(failed.detail)
            changed = self._mended(candidate, failed, report)
            if changed is None:
                raise Dropped(failed.reason, failed.detail)
            candidate = changed
        if candidate.repaired:
            return self._without_repairs(candidate) or (artifact, report)
        return artifact, report

    def _first(self) -> _Candidate:
        """What lies beside the source stays as it was before, unless the tests need it."""
        commit = self.commit
        beside = tuple(commit.of_kind("beside"))
        oracle = self._oracle(reverted=beside)
        needed: tuple[str, ...] = ()
        if beside and (oracle.deselected or oracle.keywords or not oracle.passing):
            other = self._oracle(reverted=())
            if len(other.passing) > len(oracle.passing):
                oracle, beside, needed = other, (), beside
        if oracle.timed_out:
            limit = self.limits.script_timeout_s
            raise Dropped("too_slow", f"longer than {limit:g} s after the commit")
        if not oracle.passing:
            raise Dropped("nothing_passes_after", oracle.failing)
        hidden = [*commit.of_kind("test"), *needed]
        return _Candidate(
            oracle=oracle,
            bug={path: commit.before[path] for path in commit.of_kind("source")},
            weakening={p: commit.before[p] for p in hidden if commit.after[p].content is not None},
            reverted=beside,
        )

    def _oracle(self, reverted: tuple[str, ...]) -> Oracle:
        files, limit = test_modules(self.commit), self.limits.script_timeout_s
        return find_oracle(files, self._runner(reverted), {}, limit)

    def _mended(
        self, candidate: _Candidate, failed: Check, report: ValidationReport
    ) -> _Candidate | None:
        """The next candidate after a check has failed, None when there is none."""
        bug, runner = candidate.bug, self._runner(candidate.reverted)
        idle = [path for path in bug if failed.detail.startswith(f"{path}:")]
        if failed.reason == "file_contributes_nothing" and idle and len(bug) > 1:
            rest = {path: change for path, change in bug.items() if path not in idle}
            return replace(candidate, bug=rest, repaired=(*candidate.repaired, *idle))
        none_left = failed.name == "weakening" and (
            failed.reason == "parser_empty" or not report.pass_to_pass
        )
        alone = set(candidate.oracle.files) <= set(test_modules(self.commit))
        if alone and (none_left or failed.reason == "nothing_passes"):
            known = [*candidate.oracle.files, *candidate.weakening]
            file = neighbour(candidate.oracle, known, runner, bug, self.limits.script_timeout_s)
            if file is not None:
                files = (*candidate.oracle.files, file)
                return replace(candidate, oracle=replace(candidate.oracle, files=files))
        old_tests_refused = failed.reason.startswith("tests_") and failed.name != "script"
        if failed.name == "weakening" or old_tests_refused:
            failing = report.fail_to_pass or self._failing(candidate)
            removed = weakening_layer(runner.environment.tree, sorted(failing))
            if removed and removed != candidate.weakening:
                return replace(candidate, weakening=removed)
        return None

    def _failing(self, candidate: _Candidate) -> list[str]:
        """Tests of the oracle that do not pass with the bug."""
        runner, limit = self._runner(candidate.reverted), self.limits.script_timeout_s
        script, parser = candidate.oracle.script, parser_source("pytest")
        table = runner.run(script, parser, candidate.bug, timeout_s=limit).table
        return [test for test in candidate.oracle.passing if table.get(test) != "passed"]

    def _without_repairs(
        self, candidate: _Candidate
    ) -> tuple[BugArtifact, ValidationReport] | None:
        """The same bug where idle sources are as before, if its tests pass there; else None."""
        before = {path: self.commit.before[path] for path in candidate.repaired}
        limit, runner = self.limits.script_timeout_s, self._runner(candidate.reverted)
        oracle = candidate.oracle
        run = runner.run(oracle.script, parser_source("pytest"), before, timeout_s=limit)
        if any(run.table.get(test) != "passed" for test in oracle.passing):
            return None
        reverted = (*candidate.reverted, *candidate.repaired)
        artifact, report = self._judge(replace(candidate, repaired=(), reverted=reverted))
        return None if _failed(report) else (artifact, report)

    def _judge(self, candidate: _Candidate) -> tuple[BugArtifact, ValidationReport]:
        runner = self._runner(candidate.reverted)
        artifact = make_artifact(self.commit, runner.environment, candidate)
        limits = self.limits.of_validation()
        report = validate(artifact, runner.environment, runner, limits)
        if not _failed(report) and not report.pass_to_pass:
            failed = Check(name="bug", status="fail", reason="nothing_passes")
            more = self._mended(candidate, failed, report)
            if more is not None:
                return self._judge(more)
        return artifact, report

    def _runner(self, reverted: tuple[str, ...]) -> TestRunner:
        if reverted not in self._runners:
            environment = commit_environment(self._prepared, self.commit, reverted)
            self._runners[reverted] = self._make_runner(environment)
        return self._runners[reverted]


def _failed(report: ValidationReport) -> Check | None:
    return next((c for c in report.checks if c.status in ("fail", "undecided")), None)


def make_artifact(commit: Commit, environment: Environment, candidate: _Candidate) -> BugArtifact:
    """The commit as an artifact on the state after it."""
    tree, oracle = environment.tree, candidate.oracle
    meta: dict[str, object] = {"commit": commit.sha, "base": commit.base, "origin": "mined"}
    meta |= {"reverted": list(candidate.reverted), "left_repaired": list(candidate.repaired)}
    artifact = BugArtifact(
        test_script=oracle.script,
        test_files=tuple(dict.fromkeys([*oracle.files, *candidate.weakening])),
        test_parser=parser_source("pytest"),
        bug_patch=make_patch(tree, {}, candidate.bug),
        weakening_patch=make_patch(tree, {}, candidate.weakening),
        meta=meta,
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
