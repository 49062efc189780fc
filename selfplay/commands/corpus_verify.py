"""`selfplay corpus verify`: replay an export; every bug must pass the round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfplay import __version__
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.commands.compose import sandbox_pool
from selfplay.commands.output import print_json, print_table, say
from selfplay.commands.suites import Problems, read_tasks, suite_environments
from selfplay.config import ExportConfig
from selfplay.corpus.suite import SuiteTask, to_line, write_suite
from selfplay.errors import InfrastructureError, UserError
from selfplay.export.verify import verify_task
from selfplay.files import (
    append_json_lines,
    encode_json,
    make_folder,
    read_json_lines,
    repair_json_lines,
)
from selfplay.sandbox.base import Environment
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import GradeReport, SolveTask

HELP = """
keys: out=DIR (a swebench export, a run directory, or a suite file, of others too), num_tasks=N,
      revalidate=true, kept=FILE (a suite of those that pass), sandbox=..., json=true
Each bug: gold patch +1, empty patch -1, test-deleting and test-editing patch -1. revalidate=true
also validates each bug once more (for planted bugs): the verdict must be valid again, and the
failing tests the same. Each result is written to FILE.verified at once: a command that was killed
goes on there; one that ended starts anew. Exit code 0 when all pass, 1 when some do not, 3 when
nothing is worse than undecided (a repository that is gone, a fault of the machine).
"""
Row = dict[str, Any]
"""instance_id, repo, verdict ("passed", "failed", "undecided"), problem, key (what was judged)."""
CONFIG, SCHEMA = "corpus", ExportConfig


def run(config: ExportConfig) -> int:
    """Verify; 0 all pass, 1 some fail, 3 some could not be decided."""
    path = Path(config.out)
    kept = kept_file(config.kept, path) if config.kept else None
    found = read_tasks(path)
    suite = found[: config.num_tasks]
    left_out = len(found) - len(suite)
    say(f"{len(suite)} tasks" + (f", {left_out} left out by num_tasks" if left_out else ""))
    stored = Progress(progress_file(path), config.revalidate)
    rows = {task.solve_task.bug_id: row for task in suite if (row := stored.row(task))}
    todo = [task for task in suite if task.solve_task.bug_id not in rows]
    if rows:
        say(f"{len(rows)} judged before")
    with sandbox_pool(config.sandbox) as pool, tqdm(total=len(todo), unit="bug") as bar:
        for task, row in zip(todo, judged(todo, config, pool), strict=True):
            rows[row["instance_id"]] = row
            stored.keep(task, row)
            bar.update()
    if kept:
        write_suite([t for t in suite if rows[t.solve_task.bug_id]["verdict"] == "passed"], kept)
    stored.end()
    return report(config, [rows[task.solve_task.bug_id] for task in suite], left_out)


def kept_file(name: str, read: Path) -> Path:
    """Where the bugs that pass are written. Raises `UserError` before any work is done."""
    path = Path(name)
    if path.is_dir() or path.resolve() == read.resolve():
        raise UserError(f"kept={name}: is {'a directory' if path.is_dir() else 'the suite itself'}")
    try:
        make_folder(path.parent)
    except OSError as error:
        raise UserError(f"kept={name}: cannot be written ({error.strerror})") from None
    return path


def judged(tasks: Sequence[SuiteTask], config: ExportConfig, pool: SandboxPool) -> Iterator[Row]:
    """One row a task, in order. What cannot be opened or run is "undecided" for its tasks alone."""
    problems: Problems = {}
    environments = suite_environments(tasks, config.repos, pool, problems)
    runners = {n: TestRunner(pool.sandbox, e) for n, e in environments.items()}
    fresh = {n: TestRunner(pool.sandbox, e) for n, e in environments.items()}

    def judge(solve: SolveTask, patch: str) -> GradeReport:
        return grade(solve, patch, runners[solve.repo])

    def check(suite_task: SuiteTask) -> Row:
        task = suite_task.solve_task
        if task.repo in problems:
            return row_of(task, "undecided", problems[task.repo])
        try:
            environment = environments[task.repo]
            trip = verify_task(task, environment.tree, judge)
            if config.revalidate:
                problem = second_verdict(task, environment, fresh[task.repo])
                trip = replace(trip, problem="; ".join(filter(None, (trip.problem, problem))))
            return row_of(task, "passed" if trip.passed else "failed", trip.problem)
        except InfrastructureError as error:
            return row_of(task, "undecided", str(error))

    yield from pool.imap(check, tasks)


def row_of(task: SolveTask, verdict: str, problem: str) -> Row:
    """The stored form of one result."""
    return {
        "instance_id": task.bug_id, "repo": task.repo, "verdict": verdict, "problem": problem,
    }  # fmt: skip


def progress_file(path: Path) -> Path:
    """`FILE.verified` beside a suite, or `verified.jsonl` in a directory."""
    return path / "verified.jsonl" if path.is_dir() else path.with_name(f"{path.name}.verified")


class Progress:
    """Results of a command that may have been killed; where nothing can be written, none."""

    def __init__(self, file: Path, revalidate: bool) -> None:
        self._file, self._revalidate = file, revalidate
        self._rows: dict[str, Row] = {}
        self._off = False
        if file.is_file():
            repair_json_lines(file, file.with_name(f"{file.name}.torn"))
            lines = [line for _, line in read_json_lines(file)]
            if not any(line.get("ended") for line in lines):
                self._rows = {line["key"]: line for line in lines}
            else:
                file.unlink()

    def row(self, task: SuiteTask) -> Row | None:
        """What was decided of a task before."""
        row = self._rows.get(self._key(task))
        return row if row and row["verdict"] != "undecided" else None

    def keep(self, task: SuiteTask, row: Mapping[str, Any]) -> None:
        """Write a result at once."""
        self._append({**row, "key": self._key(task)})

    def end(self) -> None:
        """All is judged: the next command starts anew."""
        self._append({"ended": True})

    def _append(self, line: Mapping[str, Any]) -> None:
        if self._off:
            return
        try:
            append_json_lines(self._file, [line])
        except InfrastructureError as error:
            if self._file.is_file():
                raise
            self._off = True
            say(f"{error}: if this is killed, all of it is done again")

    def _key(self, task: SuiteTask) -> str:
        told = encode_json([__version__, self._revalidate, to_line(task)])
        return hashlib.sha256(told).hexdigest()[:16]


def report(config: ExportConfig, rows: Sequence[Row], left_out: int) -> int:
    """Print the results; the exit code."""
    count = {v: sum(row["verdict"] == v for row in rows) for v in ("passed", "undecided", "failed")}
    if config.json:
        print_json(
            {
                "num_tasks": len(rows),
                "passed": count["passed"],
                "undecided": count["undecided"],
                "left_out": left_out,
                "failures": [
                    {"instance_id": row["instance_id"], "problem": row["problem"]}
                    for row in rows
                    if row["verdict"] != "passed"
                ],
            }
        )
    else:
        words = {"passed": "yes", "failed": "no", "undecided": "undecided"}
        shown = [
            (row["instance_id"], row["repo"], words[row["verdict"]], row["problem"]) for row in rows
        ]
        title = f"{count['passed']} of {len(rows)} pass"
        print_table(title, ("bug", "repo", "pass", "problem"), shown)
    if count["failed"]:
        return 1
    return 3 if count["undecided"] else 0


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
