"""What asking for what is least covered brings: the same number of bugs, once asked for uniformly.

    .venv/bin/python scripts/diversity.py OUT [--bugs 300] [--samplers uniform,least_covered] \
        [--repos funcy,anytree,voluptuous,cachetools,toolz] [overrides of selfplay inject]

Bugs are asked for as in a run: `Curriculum.draw` in rounds of a task for each repository and each
of `curriculum.seeds_per_group` places, validation, and `Curriculum.keep_bugs` with its duplicates.
Who plants them is the scripted policy, without a model: it writes the mutation that the prompt asks
for. Seeds and limits of all samplers are equal; each plays rounds until so many valid bugs are
kept. What is reported is of the first so many, in the order of their finding:

    distinct    share of bugs that equal no earlier one in any of what the corpus compares: changed
                lines, buggy tree, or touched functions and failing tests together (of these it
                keeps 4); `change`, `tree` and `failure` singly
    functions   that they touch, and `of` how many that may be asked for; files
    asked       tries, valid answers among them, and duplicates among those

OUT/SAMPLER holds corpus and rounds; a command that was killed goes on there. The last line of
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from selfplay.commands.compose import (
    keep_originals,
    make_rollout_context,
    make_task_sampler,
    open_policy,
    prepare_repos,
    sandbox_pool,
)
from selfplay.commands.output import say
from selfplay.config import InjectConfig, load_config, to_yaml
from selfplay.corpus.corpus import Corpus, StoredBug
from selfplay.corpus.dedup import fingerprint
from selfplay.curriculum.curriculum import Curriculum
from selfplay.curriculum.injecting import inject
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.files import append_json_lines, read_json_lines, repair_json_lines, write_atomic

SETTINGS = ("source=procedural", "policy=scripted", "curriculum.seeds_per_group=4",
            "injector.script_timeout_s=10", "scaffold.max_oracle_s=1")  # fmt: skip
ROUNDS = "rounds.jsonl"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--bugs", type=int, default=300)
    parser.add_argument("--samplers", default="uniform,least_covered")
    parser.add_argument("--repos", default="funcy,anytree,voluptuous,cachetools,toolz")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    found, num_repos = {}, options.repos.count(",") + 1
    for name in options.samplers.split(","):
        words = [*SETTINGS, f"repo=[{options.repos}]", f"curriculum.num_groups={num_repos}",
                 f"curriculum.sampler={name}", *options.overrides]  # fmt: skip
        config = load_config(InjectConfig, "inject", [*words, f"out={options.out / name}"])
        found[name] = measure(config, options.bugs)
        say(f"{name}: {json.dumps(found[name])}")
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def measure(config: InjectConfig, num_bugs: int) -> dict[str, Any]:
    """Rounds of one sampler until the corpus has so many bugs, and what these are."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    keep_settings(out / "config.yaml", to_yaml(config))
    with sandbox_pool(config.sandbox) as pool, Corpus(out / "corpus.sqlite") as corpus:
        repos = prepare_repos(config.names, config.repos, pool)
        policy = open_policy(config.policy, config.scaffold)
        sampling = Sampling(max_new_tokens=config.policy.max_new_tokens, seed=config.seed)
        context = make_rollout_context(policy, repos, pool, config.scaffold, sampling)
        keep_originals(context.repo_contexts.values(), corpus)
        sampler = make_task_sampler(config, context)
        curriculum = Curriculum(
            corpus=corpus,
            folder=out,
            sampler=sampler,
            repo_contexts=context.repo_contexts,
            shape=config.curriculum,
        )
        rows = play(curriculum, context, out / ROUNDS, num_bugs)
        eligible = {name: len(place.functions) for name, place in sampler.targets.items()}
        trees = {name: prepared.environment.tree for name, prepared in repos.items()}
        return {
            **described(corpus.bugs()[:num_bugs], trees),
            "of": eligible,
            "asked": {name: sum(row[name] for row in rows) for name in rows[0]},
        }


def keep_settings(file: Path, settings: str) -> None:
    """Rounds of other settings are not gone on with."""
    if file.exists() and file.read_text() != settings:
        raise SystemExit(f"{file.parent}: holds rounds of other settings; name another folder")
    write_atomic(file, settings.encode())


def play(
    curriculum: Curriculum, context: RolloutContext, file: Path, num_bugs: int
) -> list[dict[str, int]]:
    """One row a round; a round that was cut off is played again, and stores what it stored."""
    repair_json_lines(file, file.with_suffix(".torn"))
    rows = [line for _, line in read_json_lines(file)] if file.is_file() else []
    while curriculum.corpus.num_bugs() < num_bugs:
        tasks = curriculum.draw(len(rows))
        if not tasks:
            raise SystemExit(f"no place is left after {curriculum.corpus.num_bugs()} bugs")
        found = inject(context, tasks, curriculum.shape.samples_per_seed)
        valid = [injection for injection in found if injection.bug_id]
        new, _ = curriculum.keep_bugs(valid, len(rows))
        row = {
            "rounds": 1,
            "tries": len(found),
            "errored": sum(injection.outcome.errored for injection in found),
            "valid": len(valid),
            "duplicates": len(valid) - len(new),
        }
        append_json_lines(file, [row])
        rows.append(row)
        say(f"round {len(rows)}: {curriculum.corpus.num_bugs()} bugs")
    return rows


def described(bugs: list[StoredBug], trees: dict[str, Path]) -> dict[str, Any]:
    """How many are distinct, and what they touch."""
    seen: dict[str, set[tuple[str, str]]] = {"change": set(), "tree": set(), "failure": set()}
    num_distinct = 0
    for bug in bugs:
        repo = bug.task.repo
        found = fingerprint(bug.task, bug.target, trees[repo])
        marks = {name: (repo, getattr(found, name)) for name in seen}
        num_distinct += all(mark not in seen[name] for name, mark in marks.items())
        for name, mark in marks.items():
            seen[name].add(mark)
    functions = {(bug.task.repo, name) for bug in bugs for name in bug.functions}
    return {
        "bugs": len(bugs),
        "distinct": round(num_distinct / len(bugs), 3),
        **{name: round(len(marks) / len(bugs), 3) for name, marks in seen.items()},
        "functions": len(functions),
        "functions_by_repo": dict(sorted(Counter(repo for repo, _ in functions).items())),
        "files": len({(repo, name.partition("::")[0]) for repo, name in functions}),
        "bugs_by_repo": dict(sorted(Counter(bug.task.repo for bug in bugs).items())),
        "bugs_by_strategy": dict(sorted(Counter(bug.strategy for bug in bugs).items())),
    }


if __name__ == "__main__":
    sys.exit(main())
