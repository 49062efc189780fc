"""`selfplay inject source=rebuild`: modules taken away, each validated and kept as a bug is.

As with procedural bugs, a try is written to `tries.jsonl` after its bug is kept, and the same
command leaves out what is there.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from selfplay.bug_sources.rebuild import STRATEGY, NoTask, Removal, artifact_of, removals
from selfplay.bugs.artifact import solve_task
from selfplay.bugs.validation.validate import validate
from selfplay.commands.harvest import TRIES, Row, decided_tries
from selfplay.config import InjectConfig
from selfplay.corpus.corpus import Corpus, store_bug
from selfplay.curriculum.scaffold import RepoContext, RolloutContext
from selfplay.errors import InfrastructureError
from selfplay.files import append_json_lines
from selfplay.types import SolveTask, Target


def rebuild(config: InjectConfig, context: RolloutContext, corpus: Corpus, out: Path) -> list[Row]:
    """One row a module, those of earlier calls included, until `num_bugs` are in the corpus or each
    repository has had `n` tries; what could not be decided is tried again."""
    done = decided_tries(out)
    rows = list(done.values())
    repos = list(context.repo_contexts.values())
    todo = {repo.prepared.name: _untried(config, repo, done) for repo in repos}
    total = len(rows) + sum(map(len, todo.values()))
    judged = (
        (repo, removal, *judgement)
        for repo in repos
        for removal, judgement in _judged(config, context, repo, todo[repo.prepared.name])
    )
    with tqdm(total=total, initial=len(rows), unit="try", desc="rebuild") as bar:
        while config.num_bugs is None or corpus.num_bugs() < config.num_bugs:
            if (found := next(judged, None)) is None:
                break
            repo, removal, row, task = found
            if task is not None and not _keep(task, removal, repo, corpus, out):
                row |= {"reason": "duplicate", "bug_id": ""}
            append_json_lines(out / TRIES, [row])
            rows.append(row)
            bar.update()
            bar.set_postfix_str(f"{corpus.num_bugs()} tasks")
    return rows


def _untried(
    config: InjectConfig, repo: RepoContext, done: Collection[tuple[str, str]]
) -> list[Removal]:
    """What is taken away of a repository, `n` removals in all, without what was decided before."""
    found = itertools.islice(removals(repo.prepared, config.level, config.seed), config.num_tries)
    return [r for r in found if (repo.prepared.name, _name(config, r)) not in done]


def _judged(
    config: InjectConfig, context: RolloutContext, repo: RepoContext, todo: Sequence[Removal]
) -> Iterator[tuple[Removal, tuple[Row, SolveTask | None]]]:
    """What became of each removal, in order."""
    judgements = context.pool.imap(lambda removal: _judge(config, repo, removal), iter(todo))
    return zip(todo, judgements, strict=False)


def _judge(
    config: InjectConfig, repo: RepoContext, removal: Removal
) -> tuple[Row, SolveTask | None]:
    prepared, limits = repo.prepared, config.injector.limits()
    task, verdict, num_failing = None, "invalid", 0
    try:
        artifact = artifact_of(removal, prepared, repo.runner, limits)
        report = validate(artifact, prepared.environment, repo.runner, limits)
        verdict, reason = report.verdict, report.reason or report.verdict
        num_failing = len(report.fail_to_pass)
        if verdict == "valid":
            task = solve_task(prepared.name, artifact, report, limits)
    except NoTask as why:
        reason = str(why)
    except InfrastructureError as error:
        verdict, reason = "undecided", f"infrastructure: {error}"
    row: Row = {
        "repo": prepared.name,
        "task_id": _name(config, removal),
        "function": removal.path,
        "strategy": STRATEGY,
        "operator": removal.level,
        "verdict": verdict,
        "reason": reason,
        "fail_to_pass": num_failing,
        "bug_id": task.bug_id if task else "",
    }
    return row, task


def _keep(task: SolveTask, removal: Removal, repo: RepoContext, corpus: Corpus, out: Path) -> bool:
    return store_bug(
        corpus,
        out,
        task,
        origin="procedural",
        strategy=STRATEGY,
        target=Target(path=removal.path),
        step=0,
        tree=repo.prepared.environment.tree,
    )


def _name(config: InjectConfig, removal: Removal) -> str:
    return f"{STRATEGY}/{config.seed}/{removal.level}/{removal.path}"
