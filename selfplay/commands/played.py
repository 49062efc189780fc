"""What a run plays on: its own repositories with the real bugs beside them, or given tasks alone.

Which tasks `task=commits` has is settled when the run first starts, and kept in `tasks.json`: a
resumed run needs the same ones, or it would not draw the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from selfplay.bugs.sealing import seal
from selfplay.commands.compose import prepare_repos
from selfplay.commands.output import say
from selfplay.commands.suites import prepare_suite, read_tasks
from selfplay.config import TrainConfig
from selfplay.corpus.suite import SuiteTask, read_suite
from selfplay.errors import PatchError, UserError
from selfplay.export.sources import keep_environments, keep_prepared
from selfplay.export.statement import problem_statement
from selfplay.repo.prepare import PreparedRepo
from selfplay.run_dir import RunDir
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import SolveTask

RECORD = "tasks.json"


@dataclass(frozen=True, kw_only=True)
class Played:
    """`trained`: the repositories that the injector works on, () where nothing is injected.
    `human`: the tasks that were given. `repos` are those of both."""

    repos: dict[str, PreparedRepo]
    trained: tuple[str, ...]
    human: tuple[SolveTask, ...]


def open_played(config: TrainConfig, run_dir: RunDir, pool: SandboxPool) -> Played:
    """Prepare it all; where the repositories came from is kept in the run directory."""
    if config.task == "commits":
        return given_tasks(config, run_dir, pool)
    repos = prepare_repos(config.repos.train, config.repos, pool)
    keep_prepared(run_dir.path, repos.values())
    suite = config.curriculum.human_suite
    human = [] if suite is None else read_suite(Path(suite))
    return Played(
        repos=repos | prepare_suite(human, config.repos, pool),
        trained=tuple(repos),
        human=tuple(task.solve_task for task in human),
    )


def given_tasks(config: TrainConfig, run_dir: RunDir, pool: SandboxPool) -> Played:
    """The tasks of `commits`, those left out whose repository cannot be had or whose patches do not
    fit it. Raises `UserError` where none is left."""
    tasks = _read(config)
    stored = run_dir.read_json(RECORD)
    if stored is not None:
        known = {task.solve_task.bug_id: task for task in tasks}
        gone = [name for name in stored["tasks"] if name not in known]
        if gone:
            raise UserError(
                f"commits={config.commits}: no longer holds {gone[0]}, which the run began with"
            )
        tasks = [known[name] for name in stored["tasks"]]
    problems: dict[str, str] = {}
    repos = prepare_suite(tasks, config.repos, pool, problems)
    buildable = [task for task in tasks if task.solve_task.repo in repos]
    found = pool.map(lambda task: _misfit(task.solve_task, repos), buildable)
    why = {
        task.solve_task.bug_id: problems[task.solve_task.repo]
        for task in tasks
        if task.solve_task.repo not in repos
    }
    why |= {t.solve_task.bug_id: m for t, m in zip(buildable, found, strict=True) if m}
    kept = [task for task in tasks if task.solve_task.bug_id not in why]
    for name, reason in why.items():
        say(f"left out: {name}: {reason}")
    if not kept or (stored is not None and why):
        few = "some of its tasks can no longer" if kept else "none of its tasks can"
        name, reason = next(iter(why.items()))
        raise UserError(f"commits={config.commits}: {few} be played here; {name}: {reason}")
    if stored is None:
        names = [task.solve_task.bug_id for task in kept]
        run_dir.write_json(RECORD, {"tasks": names, "left_out": why})
    keep_environments(run_dir.path, {t.solve_task.repo: t.environment for t in kept})
    say(f"{len(kept)} tasks of {config.commits}" + (f", {len(why)} left out" if why else ""))
    needed = {task.solve_task.repo for task in kept}
    return Played(
        repos={name: repo for name, repo in repos.items() if name in needed},
        trained=(),
        human=tuple(with_issue(task.solve_task, config.issue) for task in kept),
    )


def with_issue(task: SolveTask, kind: str) -> SolveTask:
    """A task with the issue text that `kind` (`TaskConfig.issue`) asks for."""
    text = task.problem_statement
    if kind == "subject":
        text = next((line.strip() for line in text.splitlines() if line.strip()), "")
    elif kind == "template":
        text = problem_statement(task)
    elif kind == "none":
        text = ""
    return replace(task, problem_statement=text)


def _read(config: TrainConfig) -> list[SuiteTask]:
    assert config.commits is not None
    try:
        tasks = read_tasks(Path(config.commits))
    except UserError as error:
        raise UserError(f"commits={config.commits}: {error}") from None
    if not tasks:
        raise UserError(f"commits={config.commits}: holds no task; `selfplay mine` writes some")
    return tasks


def _misfit(task: SolveTask, repos: dict[str, PreparedRepo]) -> str:
    """Why a task's patches cannot be put on its repository; "" where they can."""
    try:
        seal(repos[task.repo].environment, task.artifact)
    except PatchError as error:
        return f"its patches do not fit the source ({error})"
    return ""
