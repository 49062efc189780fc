"""The agentic injector: it explores a repository with tools and writes all five files itself.

The strategies of arXiv 2512.18552: direct, removal, history, each perhaps with a target (file,
function or commit); feature_add; and combine, two valid bugs of one repository in one artifact.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from selfplay.agent.loop import AgentTask
from selfplay.bugs.artifact import BUG, SCRIPT, WEAKENING
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.config import AgentConfig
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.agentic.submission import SUBMISSION, read_submission
from selfplay.roles.agentic.workspace import open_injector
from selfplay.roles.prompts import render
from selfplay.roles.rejected import Rejected
from selfplay.sandbox.session.session import Session
from selfplay.types import BugArtifact, InjectionTask

MATERIAL = "/tmp/material"


@dataclass(kw_only=True)
class AgenticInjection:
    """One injection under way: what was handed in, or why it was turned down."""

    task: InjectionTask
    injector: AgenticInjector
    artifact: BugArtifact | None = None
    rejected: Rejected | None = None
    num_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_left = self.injector.config.num_resubmit

    def open(self) -> Session:
        """A sandbox with the original tree, its history, and the material of the task."""
        prepared = self.injector.prepared
        files = material(self.task.material)
        return open_injector(
            self.injector.runner.sandbox,
            prepared.environment,
            prepared.history,
            files,
            self.injector.config.wall_s,
        )

    def submit(self, session: Session) -> str | None:
        """Take the five files. With chances left, what is wrong is answered; else it stands."""
        try:
            self.artifact = self._read(session)
            self.rejected = None
        except Rejected as rejected:
            self.artifact, self.rejected = None, rejected
        if self.num_left == 0:
            return None
        problem = str(self.rejected) if self.rejected else self._invalid()
        if not problem:
            return None
        self.num_left -= 1
        return render("agent_refused", problem=problem, num_left=self.num_left + 1)

    def _read(self, session: Session) -> BugArtifact:
        task = self.task
        meta = {
            "repo": task.repo,
            "strategy": task.strategy,
            "path": task.target.path,
            "function": task.target.function,
            "commit": task.target.commit,
            "scaffold": "agentic",
        }
        return replace(read_submission(session), meta=meta)

    def _invalid(self) -> str:
        """The reason code and its detail; "" for a valid artifact, and where no verdict was
        reached: that is for the judge."""
        assert self.artifact is not None
        prepared, runner = self.injector.prepared, self.injector.runner
        report = validate(self.artifact, prepared.environment, runner, self.task.limits)
        failed = next((check for check in report.checks if check.status == "fail"), None)
        return f"{failed.reason}: {failed.detail}" if failed else ""


@dataclass(frozen=True, kw_only=True)
class AgenticInjector:
    """Agentic injections on one repository. Thread-safe."""

    prepared: PreparedRepo
    runner: TestRunner
    config: AgentConfig

    def begin(self, task: InjectionTask) -> AgenticInjection:
        """A new injection."""
        return AgenticInjection(task=task, injector=self)

    def prompt(self, task: InjectionTask) -> tuple[str, str]:
        """(system, user) of a task: a function of the task and of whether there is a history."""
        user = render(
            "agent_injector",
            strategy=task.strategy,
            target=task.target,
            limits=task.limits,
            submission=SUBMISSION,
            material=MATERIAL,
            num_material=len(task.material),
            has_history=self.prepared.history is not None,
        )
        return render("agent_system"), user

    def agent_task(
        self, injection: AgenticInjection, *, name: str, seed: int, temperature: float, top_p: float
    ) -> AgentTask:
        """What the loop needs to play an injection."""
        system, user = self.prompt(injection.task)
        return AgentTask(
            name=name,
            system=system,
            user=user,
            open=injection.open,
            submit=injection.submit,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
        )


def material(bugs: tuple[BugArtifact, ...]) -> dict[str, str]:
    """The files of known bugs, by their place in the sandbox."""
    files: dict[str, str] = {}
    for number, bug in enumerate(bugs, 1):
        texts = {BUG: bug.bug_patch, WEAKENING: bug.weakening_patch, SCRIPT: bug.test_script}
        files |= {f"{MATERIAL}/{number}/{name}": text for name, text in texts.items()}
    return files
