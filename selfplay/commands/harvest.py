"""`selfplay inject source=procedural`: bugs of many repositories, kept as they are found.

A try is written to `tries.jsonl` after its bug is in `artifacts/` and in `corpus.sqlite`, so a
command that was killed at any moment goes on where it was: nothing is lost and nothing is double.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfplay.config import InjectConfig
from selfplay.corpus.corpus import Corpus, store_bug
from selfplay.files import append_json_lines, read_json_lines, repair_json_lines
from selfplay.roles.compact.injector import CompactInjector
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import InjectionTask, SolveTask
from selfplay.warmstart.procedural_bugs import ProceduralBug, in_turn, validated_bugs

Row = dict[str, Any]
TRIES = "tries.jsonl"


def harvest(
    config: InjectConfig,
    injectors: Sequence[CompactInjector],
    pool: SandboxPool,
    corpus: Corpus,
    out: Path,
) -> list[Row]:
    """Try mutations until `num_bugs` are in the corpus or each repository has had `n` tries.

    One row a try, those of earlier calls included; what could not be decided is tried again.
    """
    done = decided_tries(out)
    rows = list(done.values())
    tree_of = {i.prepared.name: i.prepared.environment.tree for i in injectors}
    num_valid = sum(bool(row["bug_id"]) for row in rows)
    bugs = in_turn(_bugs_of(config, injector, pool, done) for injector in injectors)
    with tqdm(total=config.num_bugs, initial=corpus.num_bugs(), unit="bug", desc="bugs") as bar:
        for bug in _until(bugs, corpus, config.num_bugs):
            row = _keep(bug, tree_of[bug.task.repo], corpus, out)
            append_json_lines(out / TRIES, [row])
            rows.append(row)
            bar.update(bool(row["bug_id"]))
            num_valid += bool(row["bug_id"])
            bar.set_postfix_str(f"{num_valid / len(rows):.0%} of {len(rows)} tries valid")
    return rows


def decided_tries(out: Path) -> dict[tuple[str, str], Row]:
    """{(repository, try): its row} of earlier calls, but for what could not be decided. Mends a
    torn line."""
    file = out / TRIES
    repair_json_lines(file, out / f"{TRIES}.torn")
    stored = [line for _, line in read_json_lines(file)] if file.is_file() else []
    return {(row["repo"], row["task_id"]): row for row in stored if row["verdict"] != "undecided"}


def summary(rows: Iterable[Row]) -> list[list[Any]]:
    """Rows (repository, tries, valid, why the others were not) of a harvest."""
    by_repo: dict[str, Counter[str]] = {}
    for row in rows:
        by_repo.setdefault(row["repo"], Counter())[row["reason"]] += 1
    table = []
    for repo, reasons in by_repo.items():
        others = [f"{name} {count}" for name, count in reasons.most_common() if name != "valid"]
        table.append([repo, reasons.total(), reasons["valid"], ", ".join(others)])
    return table


def keep_bug(
    corpus: Corpus,
    out: Path,
    tree: Path,
    solve: SolveTask,
    task: InjectionTask,
    origin: str,
) -> bool:
    """Keep the bug that answers an injection task; False for a duplicate."""
    return store_bug(
        corpus,
        out,
        solve,
        origin=origin,
        strategy=task.strategy,
        target=task.target,
        step=0,
        tree=tree,
    )


def _bugs_of(
    config: InjectConfig,
    injector: CompactInjector,
    pool: SandboxPool,
    done: Iterable[tuple[str, str]],
) -> Iterator[ProceduralBug]:
    name = injector.prepared.name
    return validated_bugs(
        injector,
        pool,
        num_tries=config.num_tries,
        seed=config.seed,
        max_per_function=config.curriculum.max_bugs_per_function,
        limits=config.injector.limits(),
        done={task_id for repo, task_id in done if repo == name},
    )


def _until(
    bugs: Iterator[ProceduralBug], corpus: Corpus, num_bugs: int | None
) -> Iterator[ProceduralBug]:
    while num_bugs is None or corpus.num_bugs() < num_bugs:
        bug = next(bugs, None)
        if bug is None:
            return
        yield bug


def _keep(bug: ProceduralBug, tree: Path, corpus: Corpus, out: Path) -> Row:
    task, solve = bug.task, bug.solve_task()
    new = solve is not None and keep_bug(corpus, out, tree, solve, task, "procedural")
    verdict = bug.report.verdict if bug.report else "invalid"
    if bug.reason.startswith("infrastructure"):
        verdict = "undecided"
    return {
        "repo": task.repo,
        "task_id": task.task_id,
        "function": f"{task.target.path}::{task.target.function}",
        "strategy": task.strategy,
        "operator": bug.found.mutation.operator,
        "verdict": verdict,
        "reason": "duplicate" if solve and not new else bug.reason,
        "fail_to_pass": len(bug.report.fail_to_pass) if bug.report else 0,
        "bug_id": solve.bug_id if solve and new else "",
    }
