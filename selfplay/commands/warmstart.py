"""`selfplay warmstart`: a supervised start in both roles from validated procedural bugs, from
repairs of code whose tests are not run, and from traces of tests."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from selfplay.commands.application import task_words
from selfplay.commands.compose import (
    keep_originals,
    make_repo_context,
    prepare_repos,
    sandbox_pool,
)
from selfplay.commands.kept_training import KeptTraining, training_key
from selfplay.commands.output import print_json, say
from selfplay.commands.trace_lessons import make_trace_lessons
from selfplay.config import LearnerConfig, SupervisedConfig, WarmstartConfig
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.compact import CompactRoles
from selfplay.errors import UserError
from selfplay.files import write_atomic
from selfplay.roles.compact.injector import CompactInjector
from selfplay.sampling import Tokenizer
from selfplay.sandbox.pool import SandboxPool
from selfplay.seeds import derive_rng
from selfplay.types import Target
from selfplay.warmstart.bare_examples import CodeSource, bare_examples, code_source
from selfplay.warmstart.bare_file import BareFile
from selfplay.warmstart.examples import (
    SupervisedExample,
    history_example,
    injector_example,
    solver_example,
)
from selfplay.warmstart.held_out import refuse_held_out
from selfplay.warmstart.lessons import Lesson, lesson_line, read_lessons, split
from selfplay.warmstart.procedural_bugs import ProceduralBug, in_turn, validated_bugs
from selfplay.warmstart.tries import Tries

if TYPE_CHECKING:
    from selfplay.learner.supervised import SupervisedStep
    from selfplay.learner.trainer import Trainer

CONFIG, SCHEMA = "warmstart", WarmstartConfig
HELP = """
keys: out=DIR (examples.jsonl, bare.jsonl, traces.jsonl, corpus.sqlite, adapter/ and record.json
      go there),
      num_bugs=N, repos.train=[a,b], injector_share=, sources=[stdlib,PACKAGE,DIR] num_bare=N
      (code that is broken and repaired as text, no tests run), traces=N (what code does when it
      runs: the tests of repos.train, recorded to out/traces, or trace_data=DIR of
      `selfplay traces`), epochs=, learning_rate=, max_minutes=, rank=, seed=, policy.model=...,
      sandbox=..., json=true
Examples that out=DIR already holds are used again; delete *.done there to make new ones.
Making them goes on where it was killed, and so does training, from its last full minute.
Use the result with policy.adapter=DIR/adapter.
"""
TRIED = "tries.jsonl"
"""What was tried for examples (`Tries`); a harvest's file of that name has rows of its own."""
TRACES_FILE, TRACES_DONE = "traces.jsonl", "traces.done"
TRAINING = "training"
HISTORY_SHARE = 0.2
"""Share of injector examples that are told as "undo this change" instead of by a hint."""


def run(config: WarmstartConfig) -> int:
    """Make examples, train, save the adapter and the record of how it came to be."""
    began = time.monotonic()
    refuse_held_out("repos.train", config.repos.train)
    refuse_held_out("sources", config.sources)
    sources = [code_source(name) for name in config.sources]
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    from selfplay.learner.grpo import open_learner
    from selfplay.learner.supervised import mean_loss

    learner = open_learner(
        config.policy, LearnerConfig(lora_rank=config.rank, warmup_steps=0), config.seed
    )
    files = make_lessons(config, sources, learner.policy.tokenizer, out)
    train, held_out = split(read_lessons(files), config.held_out_fraction, config.seed)
    say(f"{len(train)} examples to learn from, {len(held_out)} held out (other functions)")
    kept = KeptTraining(learner.trainer, out / TRAINING, key_of(config, train))
    history = fit(config, learner.trainer, train, held_out, kept)
    learner.save_adapter(out / "adapter")
    losses = [step.loss for step in history]  # none where no time is given for a step
    record = {
        "command": "selfplay warmstart " + " ".join(task_words()),
        "repos": list(config.repos.train) if config.num_bugs else [],
        "sources": [f"{source.name} {source.version}".rstrip() for source in sources],
        **(json.loads((out / TRACES_DONE).read_bytes()) if config.traces else {}),
        "num_examples": {
            role: sum(x.role == role for x in train)
            for role in ("injector", "solver", *(["trace"] if config.traces else []))
        },
        "num_steps": len(history),
        "loss_first": losses[0] if losses else None,
        "loss_last": sum(losses[-5:]) / len(losses[-5:]) if losses else None,
        "held_out_loss": mean_loss(learner.trainer, held_out),
        "wall_s": round(time.monotonic() - began, 1),
    }
    write_atomic(out / "record.json", json.dumps(record, indent=1).encode() + b"\n")
    kept.end()
    if config.json:
        print_json(record)
    else:
        say(f"adapter written to {out / 'adapter'}; held-out loss {record['held_out_loss']:.3f}")
    return 0


def make_lessons(
    config: WarmstartConfig, sources: Sequence[CodeSource], tokenizer: Tokenizer, out: Path
) -> list[Path]:
    """The files of all lessons; what is there is used again."""
    files = []
    file = out / "examples.jsonl"
    if config.num_bugs and not (out / "examples.done").is_file():
        make_examples(config, tokenizer, file, out / "corpus.sqlite")
        write_atomic(out / "examples.done", b"")
        (out / TRIED).unlink(missing_ok=True)
    if config.num_bugs:
        files.append(file)
    bare = out / "bare.jsonl"
    if config.num_bare and not (out / "bare.done").is_file():
        make_bare_examples(config, sources, tokenizer, bare)
        write_atomic(out / "bare.done", b"")
    if config.num_bare:
        files.append(bare)
    if config.traces and not (out / TRACES_DONE).is_file():
        told = make_trace_lessons(config, tokenizer, out / TRACES_FILE)
        write_atomic(out / TRACES_DONE, json.dumps(told).encode())
    if config.traces:
        files.append(out / TRACES_FILE)
    return files


def make_examples(
    config: WarmstartConfig, tokenizer: Tokenizer, file: Path, corpus_file: Path
) -> None:
    """Validated procedural bugs of every repository in turn, written as they are found; what an
    earlier command tried, which was killed, is not tried again."""
    tries = Tries(file.with_name(TRIED), file, config.seed)
    with sandbox_pool(config.sandbox) as pool, Corpus(corpus_file) as corpus:
        repos = prepare_repos(config.repos.train, config.repos, pool)
        contexts = {name: make_repo_context(prepared, pool) for name, prepared in repos.items()}
        keep_originals(contexts.values(), corpus)
        roles = {
            name: CompactRoles.on(context, tokenizer, config.scaffold)
            for name, context in contexts.items()
        }
        rng = derive_rng(config.seed, "history")
        shown = [teaches(config, rng) for _ in range(tries.num_valid)]
        with tqdm(total=config.num_bugs, initial=len(shown), unit="bug", desc="bugs") as bar:
            sources = (bugs_of(role.injector, pool, config, tries) for role in roles.values())
            for bug in in_turn(sources) if len(shown) < config.num_bugs else ():
                task, lines = bug.solve_task(), []
                if task is not None:
                    corpus.add_bug(
                        task,
                        origin="procedural",
                        strategy=bug.task.strategy,
                        target=Target(path=bug.task.target.path, function=bug.task.target.function),
                        step=0,
                    )
                    examples = [solver_example(roles[task.repo].solver, task)]
                    told = teaches(config, rng)
                    if told is not None:
                        examples.append(told(tokenizer, bug.found))
                    name = f"{task.repo}/{bug.task.target.path}::{bug.task.target.function}"
                    lines = [lesson_line(e, name) for e in examples if e]
                if not bug.reason.startswith("infrastructure"):
                    tries.keep(bug.task.repo, bug.task.task_id, task is not None, lines)
                bar.update(task is not None)
                bar.set_postfix_str(f"{tries.num_valid / (len(tries) or 1):.0%} valid")
                if tries.num_valid >= config.num_bugs:
                    break
        valid = tries.num_valid
        if valid < config.num_bugs:
            say(f"the repositories gave only {valid} of {config.num_bugs} bugs")


def make_bare_examples(
    config: WarmstartConfig, sources: Sequence[CodeSource], tokenizer: Tokenizer, file: Path
) -> None:
    """Repairs of code whose tests are not run, `num_bare` of them, written file by file; what an
    earlier command wrote of the same sources, which was killed, is kept."""
    plan = [
        config.seed,
        config.policy.model,
        [[s.name, str(s.directory), s.version] for s in sources],
    ]
    begun = BareFile(file, plan)
    found = bare_examples(sources, tokenizer, config.seed, behind=begun.last_file)
    with tqdm(
        total=config.num_bare, initial=len(begun), unit="example", desc="bare repairs"
    ) as bar:
        for name, example in itertools.islice(found, config.num_bare - len(begun)):
            begun.add(lesson_line(example, name))
            bar.update(1)
    begun.end()
    if len(begun) < config.num_bare:
        say(f"the sources gave only {len(begun)} of {config.num_bare} bare repairs")


def teaches(
    config: WarmstartConfig, rng: random.Random
) -> Callable[..., SupervisedExample | None] | None:
    """How the next valid bug is told to the injector, None: not at all."""
    if rng.random() >= config.injector_share:
        return None
    return history_example if rng.random() < HISTORY_SHARE else injector_example


def bugs_of(
    injector: CompactInjector, pool: SandboxPool, config: WarmstartConfig, tries: Tries
) -> Iterator[ProceduralBug]:
    """Bugs of one repository that were not tried; tries are bounded for each function."""
    return validated_bugs(
        injector,
        pool,
        seed=config.seed,
        max_per_function=config.max_bugs_per_function,
        limits=config.injector.limits(),
        done=tries.done(injector.prepared.name),
    )


def key_of(config: WarmstartConfig, train: Sequence[Lesson]) -> str:
    """What a training that was cut off must agree in."""
    known = {item.name: getattr(config, item.name) for item in fields(SupervisedConfig)}
    return training_key(train, [known, config.rank, config.policy.model, config.policy.adapter])


def fit(
    config: WarmstartConfig,
    trainer: Trainer,
    train: Sequence[Lesson],
    held_out: Sequence[Lesson],
    kept: KeptTraining,
) -> list[SupervisedStep]:
    """Supervised steps with a progress bar."""
    from selfplay.learner.supervised import train_supervised

    bar = tqdm(unit="step", desc="supervised")

    def show(step: SupervisedStep) -> None:
        bar.total = step.num_steps
        bar.update(1)
        tail = "" if step.held_out_loss is None else f", held out {step.held_out_loss:.3f}"
        bar.set_postfix_str(f"loss {step.loss:.3f}, {step.tokens_per_s:.0f} tok/s{tail}")

    history = train_supervised(trainer, train, config, held_out=held_out, progress=show, kept=kept)
    bar.close()
    return history
