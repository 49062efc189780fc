"""A suite as questions, and answers from anywhere judged as a training run judges its own.

A question is the compact solver's prompt as chat messages; an answer is the text that a model says
to it, or a patch. Nothing of the gold patch or of the original source is in a question.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.grading.public_tests import public_patch, public_tests
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.spectrum import SpectrumRecorder
from selfplay.config import ScaffoldConfig
from selfplay.errors import UserError
from selfplay.policy.messages import MessageTokenizer
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.agentic.solver import AgenticAttempt, AgenticSolver
from selfplay.roles.compact.solver import CompactSolver, SolverPrompt
from selfplay.roles.rejected import Rejected
from selfplay.sandbox.pool import SandboxPool
from selfplay.thinking import split
from selfplay.types import SolveTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict: reward 1.0 for resolved, else 0.0; `reason` is a code of the grading, or says why
    an answer could not be read."""

    resolved: bool
    reason: str
    patch: str = ""

    @property
    def reward(self) -> float:
        """What a trainer gets."""
        return float(self.resolved)


class Exam:
    """The bugs of a suite. Thread-safe; runs of tests wait for a free worker of the pool.

    left_out    {repository whose bugs are no part of it: `num_tasks` and the `reason`}
    """

    def __init__(
        self,
        tasks: Sequence[SolveTask],
        repos: Mapping[str, PreparedRepo],
        pool: SandboxPool,
        scaffold: ScaffoldConfig,
        left_out: Mapping[str, Mapping[str, str | int]] | None = None,
    ) -> None:
        self.left_out = dict(left_out or {})
        self.tasks = {
            task.bug_id: task
            for task in tasks
            if task.repo in repos and task.repo not in self.left_out
        }
        self._lost = {t.bug_id: t.repo for t in tasks if t.repo in self.left_out}
        self.pool, self.scaffold = pool, scaffold
        self._repos = dict(repos)
        self._tokenizer = MessageTokenizer()
        self._runners = {n: TestRunner(pool.sandbox, r.environment) for n, r in repos.items()}
        self._solvers: dict[str, CompactSolver] = {}
        self._prompts: dict[str, SolverPrompt] = {}
        self._lock = threading.Lock()

    def task(self, bug_id: str) -> SolveTask:
        """A bug by its id. Raises `UserError` that names some that there are."""
        found = self.tasks.get(bug_id)
        if bug_id in self._lost:
            repo = self._lost[bug_id]
            raise UserError(
                f"instance_id: {bug_id!r}: {repo}: left out: {self.left_out[repo]['reason']}"
            )
        if found is None:
            known = ", ".join(list(self.tasks)[:3])
            raise UserError(f"instance_id: {bug_id!r} is no bug of this suite, such as {known}")
        return found

    def messages(self, bug_id: str) -> list[dict[str, str]]:
        """The question as chat messages."""
        return self._tokenizer.messages(self._prompt(bug_id).prompt_ids)

    def told(self, bug_id: str) -> dict[str, str]:
        """What else a solver may know: repository, issue text, oracle tests as a patch."""
        task = self.task(bug_id)
        tree = self._repos[task.repo].environment.tree
        patch = public_patch(tree, task, public_tests(task, self.scaffold.public_share))
        return {"repo": task.repo, "issue": task.problem_statement, "test_patch": patch}

    def judge_answer(self, bug_id: str, text: str) -> Judgement:
        """A model's text: its thoughts left out, its edit read and graded. Raises
        `InfrastructureError`: that is no verdict."""
        prompt, said = self._prompt(bug_id), split(text)[1]
        try:
            patch = self._solver(self.task(bug_id).repo).fix_patch(prompt, said)
        except Rejected as rejected:
            return Judgement(resolved=False, reason=rejected.reason)
        return self.judge_patch(bug_id, patch)

    def judge_patch(self, bug_id: str, patch: str) -> Judgement:
        """A fix patch against the tree that a solver sees. Raises `InfrastructureError`."""
        task = self.task(bug_id)
        runner = self._runners[task.repo]
        [report] = self.pool.map(lambda fix: grade(task, fix, runner), [patch])
        return Judgement(resolved=report.resolved, reason=report.reason, patch=patch)

    def attempt(self, bug_id: str) -> AgenticAttempt:
        """A sandbox of its own for a bug; `open()` starts it."""
        task = self.task(bug_id)
        agent, share = self.scaffold.agent, self.scaffold.public_share
        prepared, sandbox = self._repos[task.repo], self.pool.sandbox
        solver = AgenticSolver(prepared=prepared, sandbox=sandbox, config=agent, public_share=share)
        return solver.begin(task)

    def _solver(self, repo: str) -> CompactSolver:
        with self._lock:
            if repo not in self._solvers:
                prepared, recorder = self._repos[repo], SpectrumRecorder(self._runners[repo])
                solver = CompactSolver(prepared, self._tokenizer, self.scaffold, recorder)
                self._solvers[repo] = solver
            return self._solvers[repo]

    def _prompt(self, bug_id: str) -> SolverPrompt:
        task = self.task(bug_id)
        if bug_id not in self._prompts:
            self._prompts[bug_id] = self._solver(task.repo).prompt(task)
        return self._prompts[bug_id]


def plain(judgement: Judgement) -> dict[str, Any]:
    """As JSON."""
    return {
        "resolved": judgement.resolved,
        "reward": judgement.reward,
        "reason": judgement.reason,
        "patch": judgement.patch,
    }
