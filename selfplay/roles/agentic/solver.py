"""The agentic solver: it repairs a sealed tree with tools; its tree is the answer.

The prompt is a function of `TaskView`: the oracle test patch, or an issue in plain words. The fix
patch is what the tree differs by from the sealed one, whatever the model says (docs/validation.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfplay.agent.loop import AgentTask
from selfplay.bugs.grading.public_tests import public_patch, public_tests
from selfplay.bugs.leaks import is_leaky
from selfplay.bugs.patches.diffs import check_path
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.sealing import Sealed, seal
from selfplay.config import AgentConfig
from selfplay.errors import PatchError
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.agentic.reference import reference_helper
from selfplay.roles.agentic.workspace import open_solver
from selfplay.roles.prompts import render
from selfplay.sandbox.base import Helper, Sandbox
from selfplay.sandbox.session.server import CLIENT
from selfplay.sandbox.session.session import Session
from selfplay.types import FileChange, SolveTask

TESTS = "/tmp/tests.diff"
MAX_PATCH_CHARACTERS = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """All that a solver's prompt may depend on."""

    oracle_patch: str
    problem_statement: str
    may_ask: bool = False
    """Whether a reference program can be run."""


@dataclass(kw_only=True)
class AgenticAttempt:
    """One attempt under way; `patch` is set when the solver hands in its tree."""

    task: SolveTask
    solver: AgenticSolver
    sealed: Sealed
    view: TaskView
    helper: Helper | None = None
    patch: str | None = None

    def open(self) -> Session:
        """A sandbox with the sealed tree and, unless the task is an issue, the tests as a diff."""
        files = {} if self.view.problem_statement else {TESTS: self.view.oracle_patch}
        return open_solver(
            self.solver.sandbox,
            self.sealed,
            files,
            self.solver.config.wall_s,
            self.helper,
        )

    def submit(self, session: Session) -> str | None:
        """Take the tree; the episode ends."""
        self.patch = self.fix_patch(session)
        return None

    def fix_patch(self, session: Session) -> str:
        """The patch from the sealed tree to the session's, "" when they are the same.

        What git does not take, caches and left-overs are no part of it.
        """
        changes = session.read_changes()
        tree = self.solver.prepared.environment.tree
        state: dict[str, FileChange] = {
            path: change
            for path, change in changes.layer.items()
            if path in self.sealed.layer or (is_plain(path) and not is_leaky(path))
        }
        return make_patch(tree, self.sealed.layer, state)


@dataclass(frozen=True, kw_only=True)
class AgenticSolver:
    """Agentic attempts on bugs of one repository. Thread-safe."""

    prepared: PreparedRepo
    sandbox: Sandbox
    config: AgentConfig
    public_share: float = 1.0

    def view(self, task: SolveTask) -> TaskView:
        """What a solver of this task may know."""
        tree = self.prepared.environment.tree
        shown = public_tests(task, self.public_share)
        return TaskView(
            oracle_patch=public_patch(tree, task, shown),
            problem_statement=task.problem_statement.strip(),
        )

    def begin(self, task: SolveTask) -> AgenticAttempt:
        """A new attempt."""
        environment, num_runs = self.prepared.environment, self.config.max_reference_runs
        sealed = seal(environment, task.artifact)
        helper = reference_helper(task, environment.tree, sealed, num_runs)
        view = replace(self.view(task), may_ask=helper is not None)
        return AgenticAttempt(task=task, solver=self, sealed=sealed, view=view, helper=helper)

    def agent_task(
        self, attempt: AgenticAttempt, *, name: str, seed: int, temperature: float, top_p: float
    ) -> AgentTask:
        """What the loop needs to play an attempt."""
        return AgentTask(
            name=name,
            system=render("agent_system"),
            user=show(attempt.view),
            open=attempt.open,
            submit=attempt.submit,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
        )


def show(view: TaskView) -> str:
    """The task as the model reads it. A long test patch is cut; all of it lies in the sandbox."""
    patch = view.oracle_patch.encode("utf-8", "replace").decode()
    return render(
        "agent_solver",
        issue=view.problem_statement,
        patch=patch[:MAX_PATCH_CHARACTERS],
        num_cut=max(0, len(patch) - MAX_PATCH_CHARACTERS),
        tests=TESTS,
        reference=CLIENT if view.may_ask else "",
    )


def is_plain(path: str) -> bool:
    """Whether a patch can name this path."""
    try:
        check_path(path)
    except PatchError:
        return False
    return True
