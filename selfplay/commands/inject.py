"""`selfplay inject`: N injection episodes on one repository, the verdict of each shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfplay.bugs.artifact import write_artifact
from selfplay.bugs.corpus import Corpus
from selfplay.commands.compose import (
    keep_originals,
    make_stage,
    open_policy,
    prepare_repos,
    sandbox_pool,
)
from selfplay.commands.output import print_json, print_table, say
from selfplay.commands.transcript import show_turn
from selfplay.config import InjectConfig, load_config
from selfplay.curriculum.arena import Sampling, Stage
from selfplay.curriculum.injecting import Injection, inject, solve_task
from selfplay.curriculum.procedural import validated_bugs
from selfplay.curriculum.sampler import SeedSampler
from selfplay.episodes import episode_to_dict
from selfplay.errors import UserError
from selfplay.files import append_json_lines
from selfplay.types import BugArtifact, Episode, InjectionTask, SolveTask, ValidationReport

HELP = """
keys: repo=NAME_OR_PATH n=N, out=DIR (corpus.sqlite, artifacts/ and episodes.jsonl are added to),
      seed=N, source=policy|procedural (operators on the syntax tree instead of the model),
      policy=..., scaffold=compact|agentic, injector=direct|removal|mixed|agentic, sandbox=...,
      json=true
With scaffold=agentic every turn is shown on stderr; `selfplay episode show run=DIR` shows it again.
Exit code 0 when at least one bug is valid, else 1.
"""


def run(overrides: Sequence[str]) -> int:
    """Inject, validate, keep; print one line an episode."""
    config = load_config(InjectConfig, "inject", overrides)
    if config.source not in ("policy", "procedural"):
        raise UserError(f"source={config.source!r}: must be policy or procedural")
    if config.n < 1:
        raise UserError(f"n={config.n}: must be at least 1")
    if config.source == "procedural":
        config.policy.engine = "scripted"
    sampling = Sampling(
        temperature=config.policy.temperature,
        top_p=config.policy.top_p,
        max_new_tokens=config.policy.max_new_tokens,
        seed=config.seed,
    )
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    rows: list[dict[str, Any]] = []
    with sandbox_pool(config.sandbox) as pool, Corpus(out / "corpus.sqlite") as corpus:
        repos = prepare_repos([config.repo], config.repos, pool)
        policy = open_policy(config.policy, config.scaffold)
        stage = make_stage(policy, repos, pool, config.scaffold, sampling, show_turn)
        keep_originals(stage.arenas.values(), corpus)
        found = (
            by_policy(config, stage, corpus, out)
            if config.source == "policy"
            else by_operators(config, stage)
        )
        for task, artifact, report, reason in found:
            row = {
                "function": f"{task.seed.path}::{task.seed.function}" if task.seed.path else "",
                "strategy": task.strategy,
                "verdict": report.verdict if report else "invalid",
                "reason": reason,
                "fail_to_pass": len(report.fail_to_pass) if report else 0,
                "bug_id": "",
            }
            if artifact and report and report.verdict == "valid":
                solve = solve_task(task.repo, artifact, report, task)
                keep(corpus, out, solve, task, config.source)
                row["bug_id"] = solve.bug_id
            rows.append(row)
        say(f"{corpus.num_bugs()} bugs in {out / 'corpus.sqlite'}")
    if config.json:
        print_json(rows)
    else:
        print_table(f"inject {config.repo}", list(rows[0]), [list(r.values()) for r in rows])
    return 0 if any(row["bug_id"] for row in rows) else 1


Found = tuple[InjectionTask, BugArtifact | None, ValidationReport | None, str]


def by_policy(config: InjectConfig, stage: Stage, corpus: Corpus, out: Path) -> list[Found]:
    """One episode for each of `n` seeds, stored in `episodes.jsonl`."""
    config.curriculum.num_groups, config.curriculum.seeds_per_group = 1, config.n
    sampler = SeedSampler(
        stage.arenas,
        curriculum=config.curriculum,
        injector=config.injector,
        seed=config.seed,
    )
    planned = sampler.draw(0, {}, lambda repo: [bug.task.artifact for bug in corpus.bugs(repo)])
    if not planned:
        raise UserError(f"repo={config.repo}: no function is short enough and reached by a test")
    injections = inject(stage, [p.task for p in planned], 1)
    started = time.strftime("%Y%m%d-%H%M%S")
    lines = [
        episode_to_dict(episode(f"inject-{started}/{number}", injection))
        for number, injection in enumerate(injections)
    ]
    append_json_lines(out / "episodes.jsonl", lines)
    return [(i.task, i.outcome.artifact, i.outcome.report, i.outcome.reason) for i in injections]


def episode(episode_id: str, injection: Injection) -> Episode:
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
        trajectory=injection.play.trajectory,
        answer=injection.play.answer,
        policy_version=injection.play.policy_version,
        info={**injection.play.info, "strategy": task.strategy},
    )


def by_operators(config: InjectConfig, stage: Stage) -> list[Found]:
    """`n` procedural bugs, valid or not."""
    arena = next(iter(stage.arenas.values()))
    return [
        (bug.task, bug.artifact, bug.report, bug.reason)
        for bug in validated_bugs(
            arena,
            stage.pool,
            num_tries=config.n,
            seed=config.seed,
            max_per_function=config.curriculum.max_bugs_per_function,
            limits=config.injector.limits(),
        )
    ]


def keep(corpus: Corpus, out: Path, solve: SolveTask, task: InjectionTask, source: str) -> None:
    """Artifact directory first, then the corpus row that names it."""
    write_artifact(solve.artifact, out / "artifacts" / solve.bug_id)
    origin = "model" if source == "policy" else "procedural"
    corpus.add_bug(solve, origin=origin, strategy=task.strategy, seed=task.seed, step=0)
