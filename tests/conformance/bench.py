"""Plays cases: repositories prepared once, one runner for each, and a verdict in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import make_patch, normal_layer, read_file, reverse_patch
from selfplay.bugs.sealing import sealed_layer
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs import scripts
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.spec import find_repos_dir, load_spec
from selfplay.sandbox.base import Job, RunResult, Sandbox
from selfplay.sandbox.select import PLAIN, open_sandbox
from selfplay.types import BugArtifact, FileChange, Layer, Limits, SolveTask, ValidationReport

from .case import GOLD, ArtifactCase, Case, Edits, FixCase, LookCase, Patch
from .looks import look
from .projects import PROJECTS

BACKENDS = {
    "bubblewrap": ("bubblewrap", PLAIN),
    "forked": ("bubblewrap", SandboxConfig()),
    "docker": ("docker", PLAIN),
}
"""The two sandboxes, and bubblewrap with test runs forked from a loaded interpreter."""


class Bench:
    """One sandbox with every repository of the suite. Thread-safe.

    early    fixes are refused by their first failing test (`bugs/grading/early.py`)
    """

    def __init__(self, sandbox: Sandbox, *, early: bool = False) -> None:
        self.sandbox = sandbox
        self._early = early
        self._prepared: dict[str, PreparedRepo] = {}
        self._runners: dict[str, TestRunner] = {}
        self._tasks: dict[str, SolveTask] = {}
        self._lock = RLock()

    def forget(self) -> None:
        """Run everything anew: no cached run, no validated bug is kept."""
        self._runners.clear()
        self._tasks.clear()

    @property
    def num_runs(self) -> int:
        """Test runs since the last `forget`, without those on failing machines."""
        return sum(runner.num_runs for runner in self._runners.values())

    def verdict(self, case: Case) -> str:
        """What the system says of a case, in the words of `Case.want`."""
        if isinstance(case, ArtifactCase):
            return verdict_of(self.report(case))
        if isinstance(case, FixCase):
            return self._graded(case)
        assert isinstance(case, LookCase)
        project = PROJECTS[case.repo]
        return look(case, self.artifact(case.repo), project, self.prepared(case.repo), self.sandbox)

    def report(self, case: ArtifactCase) -> ValidationReport:
        """The validation of an artifact case."""
        runner = self.runner(case.repo)
        if case.fault_at is not None:
            failing = FailingSandbox(self.sandbox, case.fault_at)
            runner = TestRunner(failing, runner.environment)
        artifact, limits = self.artifact(case.repo, case), Limits(**case.limits)
        return validate(artifact, runner.environment, runner, limits)

    def prepared(self, repo: str) -> PreparedRepo:
        """A repository of the suite; discovery runs once on a machine."""
        with self._lock:
            if repo not in self._prepared:
                spec = load_spec(PROJECTS[repo].spec, find_repos_dir())
                self._prepared[repo] = prepare(spec, self.sandbox)
            return self._prepared[repo]

    def runner(self, repo: str) -> TestRunner:
        """The runner that all cases of a repository share, with its cached runs."""
        with self._lock:
            if repo not in self._runners:
                self._runners[repo] = TestRunner(self.sandbox, self.prepared(repo).environment)
            return self._runners[repo]

    def artifact(self, repo: str, case: ArtifactCase | None = None) -> BugArtifact:
        """The sound artifact of a repository, changed as a case says."""
        case = case or ArtifactCase(name="sound", repo=repo, want="valid")
        project, tree = PROJECTS[repo], self.prepared(repo).environment.tree
        files = project.test_files if case.test_files is None else case.test_files
        weakening = case.weakening
        if weakening is None:
            broken = project.broken if case.hides is None else case.hides
            weakening = make_patch(tree, {}, weakening_layer(tree, broken))
        return BugArtifact(
            test_script=case.script or project.script,
            test_files=files,
            test_parser=case.parser or scripts.parser_source(project.runner),
            bug_patch=as_patch(tree, {}, project.planted if case.bug is None else case.bug),
            weakening_patch=as_patch(tree, {}, weakening),
        )

    def task(self, repo: str) -> SolveTask:
        """The solver's task of a repository: its sound bug, validated."""
        with self._lock:
            if repo not in self._tasks:
                self._tasks[repo] = self._make_task(repo)
            return self._tasks[repo]

    def _make_task(self, repo: str) -> SolveTask:
        case = ArtifactCase(name="sound", repo=repo, want="valid")
        report, artifact = self.report(case), self.artifact(repo)
        assert report.verdict == "valid", report
        assert report.fail_to_pass == PROJECTS[repo].broken, report
        return SolveTask(
            bug_id=artifact_id(artifact),
            repo=repo,
            artifact=artifact,
            fail_to_pass=report.fail_to_pass,
            pass_to_pass=report.pass_to_pass,
        )

    def _graded(self, case: FixCase) -> str:
        limits = Limits(script_timeout_s=case.timeout_s)
        task = dataclasses.replace(self.task(case.repo), limits=limits)
        runner = self.runner(case.repo)
        if case.fault_at is not None:
            failing = FailingSandbox(self.sandbox, case.fault_at)
            runner = TestRunner(failing, runner.environment)
        tree = runner.environment.tree
        sealed = sealed_layer(tree, task.artifact)
        if case.earlier is not None:
            grade(task, as_patch(tree, sealed, case.earlier), runner)
        try:
            gold = case.fix == GOLD
            fix = reverse_patch(task.artifact.bug_patch) if gold else case.fix
            seconds = self.prepared(case.repo).profile.seconds if self._early else None
            report = grade(task, as_patch(tree, sealed, fix), runner, seconds)
        except SandboxError:
            return "errored"
        assert report.resolved == (report.reward == 1) == (report.reason == "")
        return report.reason or "resolved"


class FailingSandbox:
    """A sandbox that works for a while: then its machine is gone."""

    name = "failing"

    def __init__(self, inner: Sandbox, num_runs: int) -> None:
        self._inner, self._left = inner, num_runs

    def run(self, job: Job) -> RunResult:
        if not self._left:
            raise SandboxError("the engine does not answer")
        self._left -= 1
        return self._inner.run(job)

    def close(self) -> None:
        pass


def verdict_of(report: ValidationReport) -> str:
    """A validation's outcome in the words of `Case.want`."""
    decided = next((check for check in report.checks if check.status != "pass"), None)
    if decided is None:
        return report.verdict
    place = f"{decided.name}/{decided.reason}"
    return place if report.verdict == "invalid" else f"{report.verdict} {place}"


def as_patch(tree: Path, below: Layer, change: Patch) -> str:
    """A patch from edits of state `below`; the text of a patch is taken as it is."""
    if isinstance(change, str):
        return change
    return make_patch(tree, below, normal_layer(tree, {**below, **edited(tree, below, change)}))


def edited(tree: Path, below: Layer, edits: Edits) -> Layer:
    """The files that edits of a state change."""
    layer: dict[str, FileChange] = {}
    for path, edit in edits.items():
        text = edit
        if callable(edit):
            before = read_file(tree, below, path)
            assert before is not None, f"{path}: is not there"
            text = edit(before.decode())
        assert text is None or isinstance(text, str)
        layer[path] = FileChange(content=None if text is None else text.encode())
    return layer


@contextmanager
def open_bench(backend: str, *, early: bool = False) -> Iterator[Bench]:
    """A bench on one of `BACKENDS`."""
    sandbox = open_sandbox(*BACKENDS[backend])
    try:
        yield Bench(sandbox, early=early)
    finally:
        sandbox.close()
