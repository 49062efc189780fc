"""`selfplay mine`: real bug-fix commits of a repository's history become a suite."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from selfplay.bug_sources.commit_trees import place_environment, place_of, told_lines
from selfplay.bug_sources.commits import (
    CommitId,
    branch_of,
    list_commits,
    read_commit,
    with_neighbours,
)
from selfplay.bug_sources.mining import Mined, mine_commit
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.commands.compose import repos_dir, sandbox_pool
from selfplay.commands.output import print_json, print_table, say
from selfplay.config import MineConfig
from selfplay.corpus.suite import SuiteTask, to_line
from selfplay.errors import InfrastructureError
from selfplay.export.sources import environment_of
from selfplay.export.verify import verify_task
from selfplay.files import append_json_lines, held_lock, read_json_lines, repair_json_lines
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.spec import load_spec
from selfplay.roles.agentic.workspace import audit_sandbox
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import GradeReport, SolveTask

CONFIG, SCHEMA = "mine", MineConfig
HELP = """
keys: repo=NAME_OR_PATH (with a git history), out=FILE (the suite; FILE.log says what became of
      each commit), max_commits=N, max_tasks=N, max_files=6, max_lines=300, script_timeout_s=60,
      sandbox=..., json=true
A commit that changes source and tests together becomes a task when its tests fail without its
source change and pass with it, twice; so does a fix whose tests are a commit beside it, and a merge
none of whose own commits became one. Every kept bug has passed the round trip. What was done before
is not done again: the same command continues, or reads on in a longer history.
"""
log = logging.getLogger(__name__)


def run(config: MineConfig) -> int:
    """Mine; 0 when a task was found (now or before), 1 when there is none, 3 on undecided ones."""
    out = Path(config.out)
    with held_lock(out.with_name(f"{out.name}.lock"), f"out={out}"):
        kept, outcomes = mine(config, out)
    return report(config, kept, outcomes)


def mine(config: MineConfig, out: Path) -> tuple[set[str], dict[str, str]]:
    """Judge what is not judged yet; (ids of the tasks, {commit: outcome}) of all calls."""
    log_file = out.with_name(f"{out.name}.log")
    kept, outcomes = read_progress(out, log_file)
    with sandbox_pool(config.sandbox) as pool:
        say(f"preparing {config.repo}")
        prepared = prepare(load_spec(config.repo, repos_dir(config.repos)), pool.sandbox)
        commits = list_commits(prepared, config.max_commits)
        todo = [c for c in commits if outcomes.get(c.sha, "undecided") == "undecided"]
        say(f"{len(commits)} commits, {len(commits) - len(todo)} judged before")
        with tqdm(total=len(todo), unit="commit", desc="mining") as bar:
            for mined in judged(prepared, commits, todo, outcomes, config, pool):
                if mined.task is not None and mined.task.bug_id not in kept:
                    append_json_lines(out, [to_line(suite_task(prepared, mined))])
                    kept.add(mined.task.bug_id)
                append_json_lines(log_file, [log_line(mined)])
                outcomes[mined.commit] = mined.outcome
                bar.update(1)
                bar.set_postfix_str(f"{len(kept)} bugs")
                if config.max_tasks is not None and len(kept) >= config.max_tasks:
                    break
    return kept, outcomes


def read_progress(out: Path, log: Path) -> tuple[set[str], dict[str, str]]:
    """(ids of the tasks there are, {commit: outcome}); torn last lines are set aside."""
    for file in (out, log):
        if file.is_file():
            repair_json_lines(file, file.with_name(f"{file.name}.torn"))
    kept = {line["instance_id"] for _, line in read_json_lines(out)} if out.is_file() else set()
    lines = [line for _, line in read_json_lines(log)] if log.is_file() else []
    return kept, {line["commit"]: line["outcome"] for line in lines}


def judged(
    prepared: PreparedRepo,
    commits: Sequence[CommitId],
    todo: Sequence[CommitId],
    outcomes: Mapping[str, str],
    config: MineConfig,
    pool: SandboxPool,
) -> Iterator[Mined]:
    """Outcomes of `todo`, the merges last: of those whose branch gave a bug, that alone.

    A fault of the machine, or of ours, is "undecided" and no other commit's.

    outcomes    of all commits, as far as they are known; read again before the merges
    """
    neighbours = with_neighbours(commits)

    def make_runner(environment: Environment) -> TestRunner:
        return TestRunner(pool.sandbox, environment)

    def one(commit: CommitId) -> Mined:
        sha = commit.sha
        try:
            covered = covering(prepared, commit, outcomes)
            if covered:
                detail = f"its commit {covered[:12]} is kept"
                return Mined(commit=sha, subject="", outcome="in_branch", detail=detail)
            mined = mine_commit(prepared, sha, config, make_runner, neighbours[sha])
            return sealed(prepared, proven(prepared, mined, make_runner), pool.sandbox)
        except InfrastructureError as error:
            return Mined(commit=sha, subject="", outcome="undecided", detail=str(error))
        except Exception as error:  # one odd commit ends no history
            log.exception("%s", sha)
            return Mined(commit=sha, subject="", outcome="undecided", detail=repr(error))

    for merges in (False, True):
        yield from pool.imap(one, [commit for commit in todo if commit.is_merge == merges])


def covering(prepared: PreparedRepo, commit: CommitId, outcomes: Mapping[str, str]) -> str:
    """The kept commit that a merge brought in, "" when there is none."""
    if not commit.is_merge:
        return ""
    branch = branch_of(prepared, commit)
    return next((sha for sha in branch if outcomes.get(sha) == "kept"), "")


def proven(
    prepared: PreparedRepo, mined: Mined, make_runner: Callable[[Environment], TestRunner]
) -> Mined:
    """The outcome once more: "round_trip" when a kept bug does not pass it."""
    task = mined.task
    if task is None:
        return mined
    environment = place_environment(prepared, place_of(task.artifact, mined.commit))
    runner = make_runner(environment)

    def judge(solve: SolveTask, patch: str) -> GradeReport:
        return grade(solve, patch, runner)

    trip = verify_task(task, environment.tree, judge)
    if trip.passed:
        return mined
    return Mined(
        commit=mined.commit, subject=mined.subject, outcome="round_trip", detail=trip.problem
    )


def sealed(prepared: PreparedRepo, mined: Mined, sandbox: Sandbox) -> Mined:
    """The outcome once more: "leak" when a solver could read the answer of a kept bug."""
    if mined.task is None:
        return mined
    place = place_of(mined.task.artifact, mined.commit)
    commit = read_commit(prepared, place.sha, place.base)
    environment = place_environment(prepared, place)
    told = told_lines(commit, environment.tree)
    leaks = audit_sandbox(sandbox, environment, mined.task.artifact, told)
    if not leaks:
        return mined
    return Mined(
        commit=mined.commit, subject=mined.subject, outcome="leak", detail="; ".join(leaks[:5])
    )


def suite_task(prepared: PreparedRepo, mined: Mined) -> SuiteTask:
    """The suite's line: its base commit is the buggy one, the commit's parent."""
    assert mined.task is not None
    environment = {**environment_of(prepared.spec), "commit": mined.commit}
    return SuiteTask(solve_task=mined.task, base_commit=mined.base, environment=environment)


def log_line(mined: Mined) -> dict[str, str]:
    """What became of a commit."""
    return {
        "commit": mined.commit,
        "subject": mined.subject[:200],
        "outcome": mined.outcome,
        "detail": mined.detail[:500],
    }


def report(config: MineConfig, kept: set[str], outcomes: dict[str, str]) -> int:
    """Print the counts; the exit code."""
    counts = Counter(outcomes.values())
    if config.json:
        print_json({"out": config.out, "num_tasks": len(kept), "outcomes": dict(counts)})
    else:
        rows = [(outcome, number) for outcome, number in counts.most_common()]
        print_table(f"{len(kept)} bugs in {config.out}", ("outcome", "commits"), rows)
    if kept:
        return 0
    return 3 if counts["undecided"] else 1
