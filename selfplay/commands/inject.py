"""`selfplay inject`: N injection episodes, the verdict of each shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfplay.commands.compose import (
    keep_originals,
    make_rollout_context,
    open_policy,
    prepare_repos,
    sandbox_pool,
)
from selfplay.commands.harvest import Row, harvest, keep_bug, summary
from selfplay.commands.output import print_json, print_table, say
from selfplay.commands.transcript import show_turn
from selfplay.config import InjectConfig, load_config
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.compact import CompactRoles
from selfplay.curriculum.injecting import Injection, inject
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.targets import RepoTargets, TaskSampler
from selfplay.errors import UserError
from selfplay.export.sources import keep_sources
from selfplay.files import append_json_lines
from selfplay.run_dir.episodes import episode_to_dict
from selfplay.types import Episode

MAX_SHOWN = 50
"""Tries of a table; more are counted by repository."""

HELP = """
keys: repo=NAME_OR_PATH n=N, out=DIR (corpus.sqlite, artifacts/ and episodes.jsonl are added to),
      seed=N, source=policy|procedural (operators on the syntax tree instead of the model; with
      repo=[a,b,...] several repositories, num_bugs=N until the corpus holds N bugs; tries.jsonl
      says what became of each try, and the same command goes on where it was killed),
      policy=..., scaffold=compact|agentic, injector=direct|removal|mixed|agentic, sandbox=...,
      json=true
With scaffold=agentic every turn is shown on stderr; `selfplay episode show run=DIR` shows it again.
Exit code 0 when at least one bug is valid, else 1.
"""


def run(overrides: Sequence[str]) -> int:
    """Inject, validate, keep; print one line an episode."""
    config = load_config(InjectConfig, "inject", overrides)
    names = config.names
    procedural = config.source == "procedural"
    policy_config = replace(config.policy, engine="scripted") if procedural else config.policy
    sampling = Sampling(
        temperature=config.policy.temperature,
        injector_temperature=config.injector.temperature,
        top_p=config.policy.top_p,
        max_new_tokens=config.policy.max_new_tokens,
        seed=config.seed,
    )
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    with sandbox_pool(config.sandbox) as pool, Corpus(out / "corpus.sqlite") as corpus:
        repos = prepare_repos(names, config.repos, pool)
        keep_sources(out, (prepared.spec for prepared in repos.values()))
        policy = open_policy(policy_config, config.scaffold)
        context = make_rollout_context(policy, repos, pool, config.scaffold, sampling, show_turn)
        keep_originals(context.repo_contexts.values(), corpus)
        if config.source == "policy":
            rows = by_policy(config, context, corpus, out)
        else:
            injectors = [
                CompactRoles.on(repo_context, policy.tokenizer, config.scaffold).injector
                for repo_context in context.repo_contexts.values()
            ]
            rows = harvest(config, injectors, pool, corpus, out)
        say(f"{corpus.num_bugs()} bugs in {out / 'corpus.sqlite'}")
    if config.json:
        print_json(rows)
    elif len(rows) > MAX_SHOWN:
        header = ["repository", "tries", "valid", "the others"]
        print_table("inject", header, summary(rows))
    else:
        shown = ["function", "strategy", "verdict", "reason", "fail_to_pass", "bug_id"]
        table = [[row[name] for name in shown] for row in rows]
        print_table(f"inject {', '.join(names)}", shown, table)
    return 0 if any(row["bug_id"] for row in rows) else 1


def by_policy(
    config: InjectConfig, context: RolloutContext, corpus: Corpus, out: Path
) -> list[Row]:
    """One episode for each of `n` seeds, stored in `episodes.jsonl`."""
    assert config.num_tries is not None, "num_bugs has no part in what a policy is asked"
    shape = replace(config.curriculum, num_groups=1, seeds_per_group=config.num_tries)
    sampler = TaskSampler(
        {n: RepoTargets(c.prepared, config.scaffold) for n, c in context.repo_contexts.items()},
        context.scaffold,
        curriculum=shape,
        injector=config.injector,
        seed=config.seed,
    )
    tasks = sampler.draw(0, {}, lambda repo: [bug.task.artifact for bug in corpus.bugs(repo)])
    if not tasks:
        raise UserError(f"repo={config.repo}: no function is short enough and reached by a test")
    injections = inject(context, tasks, 1)
    started = time.strftime("%Y%m%d-%H%M%S")
    lines = [
        episode_to_dict(episode(f"inject-{started}/{number}", injection))
        for number, injection in enumerate(injections)
    ]
    append_json_lines(out / "episodes.jsonl", lines)
    tree_of = {n: c.prepared.environment.tree for n, c in context.repo_contexts.items()}
    return [row_of(i, tree_of[i.task.repo], corpus, out) for i in injections]


def row_of(injection: Injection, tree: Path, corpus: Corpus, out: Path) -> Row:
    """One line of the table; a valid bug is kept unless it is a duplicate."""
    task, outcome = injection.task, injection.outcome
    solve, report = outcome.solve_task, outcome.report
    new = solve is not None and keep_bug(corpus, out, tree, solve, task, "model")
    return {
        "repo": task.repo,
        "function": f"{task.seed.path}::{task.seed.function}" if task.seed.path else "",
        "strategy": task.strategy,
        "verdict": report.verdict if report else "invalid",
        "reason": "duplicate" if solve and not new else outcome.reason,
        "fail_to_pass": len(report.fail_to_pass) if report else 0,
        "bug_id": solve.bug_id if solve and new else "",
    }


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
        trajectory=injection.rollout.trajectory,
        answer=injection.rollout.answer,
        policy_version=injection.rollout.policy_version,
        info={**injection.rollout.info, "strategy": task.strategy},
    )
