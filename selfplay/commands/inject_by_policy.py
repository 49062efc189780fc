"""`selfplay inject` with a policy: one episode a task, stored batch by batch.

What is to be asked is drawn from the bugs that there were when the command began, and kept in
`inject.json` until it ends: a command that was killed draws the same again, and goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfplay.commands.compose import make_task_sampler
from selfplay.commands.harvest import Row, keep_bug
from selfplay.commands.output import say
from selfplay.config import InjectConfig
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.injecting import Injection, inject
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.errors import UserError
from selfplay.files import append_json_lines, read_json_lines, repair_json_lines, write_atomic
from selfplay.run_dir.episodes import episode_to_dict
from selfplay.types import Episode, InjectionTask

BATCH = 16
"""Tasks that are asked and validated together, before any of them is stored."""
PLAN = "inject.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A command that has begun: its name in episode ids, and the bugs that there were."""

    started: str
    bugs: frozenset[str]


def by_policy(
    config: InjectConfig, context: RolloutContext, corpus: Corpus, out: Path
) -> list[Row]:
    """One episode for each of `n` tasks, stored in `episodes.jsonl` as they are judged."""
    plan = open_plan(config, corpus, out)
    file = out / "episodes.jsonl"
    repair_json_lines(file, out / "episodes.jsonl.torn")
    rows = {
        line["episode_id"]: line["info"]["row"]
        for _, line in read_json_lines(file)
        if line["episode_id"].startswith(f"inject-{plan.started}/")
    }
    if rows:
        say(f"going on after {len(rows)} episodes")
    tasks = {
        f"inject-{plan.started}/{n}": t for n, t in enumerate(draw(config, context, corpus, plan))
    }
    todo = [name for name in tasks if name not in rows]
    tree_of = {n: c.prepared.environment.tree for n, c in context.repo_contexts.items()}
    for start in range(0, len(todo), BATCH):
        names = todo[start : start + BATCH]
        for name, injection in zip(
            names, inject(context, [tasks[n] for n in names], 1), strict=True
        ):
            row = row_of(injection, tree_of[injection.task.repo], corpus, out)
            append_json_lines(file, [episode_to_dict(episode(name, injection, row))])
            rows[name] = row
    (out / PLAN).unlink(missing_ok=True)
    return [rows[name] for name in tasks]


def draw(
    config: InjectConfig, context: RolloutContext, corpus: Corpus, plan: Plan
) -> Sequence[InjectionTask]:
    """What is asked: a function of the seed and of the bugs that the plan knows."""
    assert config.num_tries is not None, "num_bugs has no part in what a policy is asked"
    shape = replace(config.curriculum, num_groups=1, seeds_per_group=config.num_tries)
    tasks = make_task_sampler(replace(config, curriculum=shape), context).draw(
        0,
        {},
        lambda repo: [b.task.artifact for b in corpus.bugs(repo) if b.task.bug_id in plan.bugs],
    )
    if not tasks:
        raise UserError(f"repo={config.repo}: no function is short enough and reached by a test")
    return tasks


def open_plan(config: InjectConfig, corpus: Corpus, out: Path) -> Plan:
    """The plan of a killed command that asked the same, else a new one."""
    asked: dict[str, Any] = {"repo": config.names, "n": config.n, "seed": config.seed}
    asked |= {"model": config.policy.model, "scaffold": config.scaffold.kind}
    file = out / PLAN
    if file.is_file():
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["asked"] == asked:
            return Plan(started=document["started"], bugs=frozenset(document["bugs"]))
    plan = Plan(
        started=time.strftime("%Y%m%d-%H%M%S"),
        bugs=frozenset(bug.task.bug_id for bug in corpus.bugs()),
    )
    document = {"asked": asked, "started": plan.started, "bugs": sorted(plan.bugs)}
    write_atomic(file, json.dumps(document).encode())
    return plan


def row_of(injection: Injection, tree: Path, corpus: Corpus, out: Path) -> Row:
    """One line of the table; a valid bug is kept unless it is a duplicate."""
    task, outcome = injection.task, injection.outcome
    solve, report = outcome.solve_task, outcome.report
    new = solve is not None and keep_bug(corpus, out, tree, solve, task, "model")
    return {
        "repo": task.repo,
        "function": f"{task.target.path}::{task.target.function}" if task.target.path else "",
        "strategy": task.strategy,
        "verdict": report.verdict if report else "invalid",
        "reason": "duplicate" if solve and not new else outcome.reason,
        "fail_to_pass": len(report.fail_to_pass) if report else 0,
        "bug_id": solve.bug_id if solve and new else "",
    }


def episode(episode_id: str, injection: Injection, row: Row) -> Episode:
    """The record of an injection that nobody tries to solve: 1 for a valid bug, else -1."""
    task, outcome = injection.task, injection.outcome
    valid = outcome.solve_task is not None
    return Episode(
        episode_id=episode_id,
        group_id=episode_id,
        role="injector",
        repo=task.repo,
        task_id=task.task_id,
        bug_id=outcome.solve_task.bug_id if outcome.solve_task else None,
        status=injection.status,
        reward=None if injection.status == "errored" else 1.0 if valid else -1.0,
        reason=outcome.reason,
        trajectory=injection.rollout.trajectory,
        answer=injection.rollout.answer,
        policy_version=injection.rollout.policy_version,
        info={**injection.rollout.info, "strategy": task.strategy, "row": row},
    )
