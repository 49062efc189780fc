"""`selfplay suite make` on programs that are known by what they do: one task each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfplay.bug_sources.reference_programs import STATEMENT, artifact_of, write_repository
from selfplay.bugs.artifact import solve_task
from selfplay.bugs.validation.validate import validate
from selfplay.commands.compose import make_repo_context, prepare_repos, sandbox_pool
from selfplay.commands.output import print_json, print_table
from selfplay.config import SuiteMakeConfig
from selfplay.corpus.suite import SuiteTask, write_suite
from selfplay.errors import InfrastructureError
from selfplay.export.sources import environment_of
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import Limits


def make_of_programs(config: SuiteMakeConfig, folders: list[Path]) -> int:
    """Write out/suite.jsonl and the repositories that it stands on, out/programs/NAME; exit code 0
    when there is a task, 1 when none, 3 when one could not be decided."""
    out = Path(config.out)
    tasks: list[SuiteTask] = []
    rows: list[tuple[str, int, str]] = []
    with sandbox_pool(config.sandbox) as pool:
        for folder in folders:
            name = folder.resolve().name
            target = (out / "programs" / name).resolve()
            cases = write_repository(folder, target)
            try:
                task, outcome = _judged(config, target, pool)
            except InfrastructureError as error:
                task, outcome = None, f"undecided: {error}"
            tasks += [task] if task else []
            rows.append((name, len(cases), outcome))
    write_suite(tasks, out / "suite.jsonl")
    if config.json:
        names = ("program", "commands", "outcome")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(f"{len(tasks)} tasks in {out}", ("program", "commands", "outcome"), rows)
    undecided = any(outcome.startswith("undecided") for _, _, outcome in rows)
    return 3 if undecided else 0 if tasks else 1


def _judged(
    config: SuiteMakeConfig, target: Path, pool: SandboxPool
) -> tuple[SuiteTask | None, str]:
    """The task of one repository, where the reference does what the commands say: a command that
    it answers otherwise fails on the original."""
    limits = Limits(min_passing_tests=1, script_timeout_s=config.script_timeout_s)
    ((_, prepared),) = prepare_repos([str(target)], config.repos, pool).items()
    artifact = artifact_of(prepared)
    report = validate(
        artifact, prepared.environment, make_repo_context(prepared, pool).runner, limits
    )
    if report.verdict != "valid":
        why = next((c.detail for c in report.checks if c.status in ("fail", "undecided")), "")
        word = "undecided: " if report.verdict == "undecided" else ""
        return None, f"{word}{report.reason}: {why}"[:300]
    task = solve_task(prepared.name, artifact, report, limits)
    environment = environment_of(prepared.spec)
    return (
        SuiteTask(
            solve_task=replace(task, problem_statement=STATEMENT),
            base_commit="",
            environment=environment,
        ),
        f"{len(task.fail_to_pass)} commands",
    )
