"""`selfplay corpus verify`: replay an export; every bug must pass the round trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.commands.compose import sandbox_pool, suite_environments
from selfplay.commands.output import print_json, print_table
from selfplay.config import ExportConfig, load_config
from selfplay.corpus.suite import read_suite
from selfplay.errors import InfrastructureError
from selfplay.export.verify import RoundTrip, verify_task
from selfplay.sandbox.base import Environment
from selfplay.types import GradeReport, SolveTask

HELP = """
keys: out=DIR (a swebench export, or a suite file), num_tasks=N, revalidate=true, sandbox=...,
      json=true
Each bug: gold patch +1, empty patch -1, test-deleting and test-editing patch -1. revalidate=true
also validates each bug once more (for planted bugs): the verdict must be valid again, and the
failing tests the same. Exit code 0 when all pass.
"""


def run(overrides: Sequence[str]) -> int:
    """Verify; 0 all pass, 1 some fail, 3 some could not be decided."""
    config = load_config(ExportConfig, "corpus", ["run=-", *overrides])
    path = Path(config.out)
    suite = read_suite(path / "suite.jsonl" if path.is_dir() else path)[: config.num_tasks]
    tasks = [task.solve_task for task in suite]
    with sandbox_pool(config.sandbox) as pool, tqdm(total=len(tasks), unit="bug") as bar:
        environments = suite_environments(suite, config.repos, pool)
        runners = {n: TestRunner(pool.sandbox, e) for n, e in environments.items()}
        fresh = {n: TestRunner(pool.sandbox, e) for n, e in environments.items()}

        def check(task: SolveTask) -> RoundTrip | str:
            def judge(solve: SolveTask, patch: str) -> GradeReport:
                return grade(solve, patch, runners[solve.repo])

            try:
                result = verify_task(task, environments[task.repo].tree, judge)
                if config.revalidate:
                    problem = second_verdict(task, environments[task.repo], fresh[task.repo])
                    problems = filter(None, (result.problem, problem))
                    result = replace(result, problem="; ".join(problems))
                return result
            except InfrastructureError as error:
                return str(error)
            finally:
                bar.update()

        results = pool.map(check, tasks)
    undecided = sum(isinstance(r, str) for r in results)
    passed = sum(isinstance(r, RoundTrip) and r.passed for r in results)
    if config.json:
        print_json(
            {
                "num_tasks": len(tasks),
                "passed": passed,
                "undecided": undecided,
                "failures": [
                    {"instance_id": t.bug_id, "problem": r if isinstance(r, str) else r.problem}
                    for t, r in zip(tasks, results, strict=True)
                    if isinstance(r, str) or not r.passed
                ],
            }
        )
    else:
        rows = [
            (t.bug_id, t.repo, "undecided" if isinstance(r, str) else r.passed,
             r if isinstance(r, str) else r.problem)
            for t, r in zip(tasks, results, strict=True)
        ]  # fmt: skip
        print_table(f"{passed} of {len(tasks)} pass", ("bug", "repo", "pass", "problem"), rows)
    if undecided:
        return 3
    return 0 if passed == len(tasks) else 1


def second_verdict(task: SolveTask, environment: Environment, runner: TestRunner) -> str:
    """What another validation says against the stored one, "" when they agree.

    Raises `InfrastructureError` when it cannot be decided.
    """
    report = validate(task.artifact, environment, runner, task.limits)
    if report.verdict == "undecided":
        raise InfrastructureError(f"{task.bug_id}: {report.reason}")
    if report.verdict != "valid":
        return f"is not valid a second time ({report.reason})"
    if set(report.fail_to_pass) != set(task.fail_to_pass):
        changed = sorted(set(report.fail_to_pass) ^ set(task.fail_to_pass))
        return f"other tests fail a second time (e.g. {changed[0]})"
    return ""
