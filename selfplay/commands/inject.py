"""`selfplay inject`: N injection episodes, the verdict of each shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfplay.commands.compose import (
    keep_originals,
    make_rollout_context,
    open_policy,
    prepare_repos,
    sandbox_pool,
)
from selfplay.commands.harvest import harvest, summary
from selfplay.commands.inject_by_policy import by_policy
from selfplay.commands.inject_rebuild import rebuild
from selfplay.commands.output import print_json, print_table, say
from selfplay.commands.transcript import show_turn
from selfplay.config import InjectConfig
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.compact import CompactRoles
from selfplay.curriculum.scaffold import Sampling
from selfplay.errors import UserError
from selfplay.export.sources import keep_prepared

MAX_SHOWN = 50
"""Tries of a table; more are counted by repository."""

CONFIG, SCHEMA = "inject", InjectConfig
HELP = """
keys: repo=NAME_OR_PATH n=N, out=DIR (corpus.sqlite, artifacts/ and episodes.jsonl are added to),
      seed=N, source=policy|procedural (operators on the syntax tree instead of the model; with
      repo=[a,b,...] several repositories, num_bugs=N until the corpus holds N bugs; tries.jsonl
      says what became of each try, and the same command goes on where it was killed)
      source=rebuild (modules without bodies as tasks, with level=file without the file, with
      level=package all modules of a folder without bodies),
      policy=..., scaffold=compact|agentic, injector=direct|removal|mixed|agentic, sandbox=...,
      json=true
A command that was killed goes on where it was; one that ended asks anew and adds what it finds.
With scaffold=agentic every turn is shown on stderr; `selfplay episode show run=DIR` shows it again.
Exit code 0 when at least one bug is valid, else 1.
"""


def run(config: InjectConfig) -> int:
    """Inject, validate, keep; print one line an episode."""
    names = config.names
    by_rule = config.source != "policy"
    policy_config = replace(config.policy, engine="scripted") if by_rule else config.policy
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
    with sandbox_pool(config.sandbox) as pool, Corpus(out / "corpus.sqlite") as corpus:
        repos = prepare_repos(names, config.repos, pool)
        keep_prepared(out, repos.values())
        policy = open_policy(policy_config, config.scaffold)
        context = make_rollout_context(policy, repos, pool, config.scaffold, sampling, show_turn)
        keep_originals(context.repo_contexts.values(), corpus)
        if config.source == "policy":
            rows = by_policy(config, context, corpus, out)
        elif config.source == "rebuild":
            rows = rebuild(config, context, corpus, out)
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
