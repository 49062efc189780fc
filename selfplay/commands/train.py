"""`selfplay train`: assemble a run from its configuration, play it, and sum it up."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from selfplay.bug_sources.commit_trees import split_name
from selfplay.commands.application import in_output_dir, keep_hydra_files
from selfplay.commands.attempt_log import AttemptLog, key_of
from selfplay.commands.compose import (
    keep_originals,
    open_trained,
    sandbox_pool,
    scaffold_class,
)
from selfplay.commands.opening import make_controller, open_metrics, open_run
from selfplay.commands.output import print_json, say
from selfplay.commands.placing import placed
from selfplay.commands.plan import dry_run
from selfplay.commands.played import open_played
from selfplay.commands.report import report_of_run
from selfplay.commands.selfcheck import (
    check_gold,
    check_tasks,
    prepared_repos,
    self_check,
    without_leaks,
)
from selfplay.commands.suites import prepare_suite, suite_spec
from selfplay.commands.summary import print_summary, summarise
from selfplay.commands.watch import open_watcher
from selfplay.config import TrainConfig, to_yaml
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import SuiteTask, read_suite
from selfplay.curriculum.controller import Watcher
from selfplay.curriculum.evaluation import LeftOut, evaluate
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.errors import UserError
from selfplay.learning import Learner
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.spec import projects_of
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import check_metrics
from selfplay.seeds import derive_rng
from selfplay.types import SolveTask

CONFIG, SCHEMA = "train", TrainConfig
HELP = """
keys: experiment=NAME (conf/experiment/), name=RUN, steps=N, seed=N, resume=auto|never,
      policy=transformers|base|vllm|scripted, repos.train=[a,b],
      task=commits commits=FILE (the solver alone, on mined commits, an earlier run's bugs or any
      suite; issue=message|subject|template|none, curriculum.num_tasks=N a step),
      reward=solve_rate|consistency|band|power|similarity|partial,
      learner=lora|full|none, evaluation.suite=PATH, json=true, and every other key of conf/
The run is written to runs/<name>/; the same command continues it after any interruption.
Training on several GPUs or processes: torchrun --nproc-per-node N -m selfplay train ...
"""


def run(config: TrainConfig) -> int:
    """Train to the last step; exit code 0 and a `summary.json` at the end."""
    config = in_output_dir(config)
    scaffold_class(config.scaffold)
    check_metrics(config.metrics)
    if config.dry_run:
        return dry_run(config)
    here = placed(config)
    if not is_launched():
        return train(config, functools.partial(open_trained, here))
    if not config.learner.enabled:
        raise UserError("learner=none leaves nothing to share; start this run without torchrun")
    from selfplay.learner.ranks.distributed import joined_world

    with joined_world() as world:
        if world.is_first:
            return train(config, functools.partial(open_trained, here, world=world))
        from selfplay.learner.grpo import follow

        follow(here.policy, here.learner, here.seed, world)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What a run is evaluated on: tasks that are attempted, those whose gold answers are weighed
    alone, and {repository that is left out: how many tasks, and why}."""

    attempted: Sequence[SolveTask]
    weighed: Sequence[SolveTask]
    left_out: Mapping[str, LeftOut]


def is_launched() -> bool:
    """Whether torchrun started this process, with others that train with it."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def train(config: TrainConfig, open_learner: Callable[[RunDir], Learner]) -> int:
    """The whole loop in this process; what `open_learner` opens may reach into others."""
    began = time.monotonic()
    with ExitStack() as stack:
        run_dir = stack.enter_context(
            RunDir(Path(config.runs_dir) / config.name, resume=config.resume == "auto")
        )
        run_dir.write_config(to_yaml(config), defaults=to_yaml(TrainConfig()))
        keep_hydra_files(run_dir.path)
        watcher = open_watcher(config)
        stack.enter_context(watcher)
        pool = stack.enter_context(sandbox_pool(config.sandbox))
        watcher.use_of_sandboxes = pool.use
        suite, weighed = load_suites(config)
        tasks = [task.solve_task for task in suite]
        played = open_played(config, run_dir, pool)
        check_apart(config, [*suite, *weighed], played.repos)
        repos = played.repos | prepare_suite(suite, config.repos, pool)
        repos |= prepare_suite(weighed, config.repos, pool, problems={})
        others = [t.solve_task for t in weighed if t.solve_task.repo in repos]
        opened = open_run(config, run_dir, repos, played.trained, pool, open_learner)
        stack.callback(opened.close)
        say("self-check: one generation; in each repository a command, and a bug graded both ways")
        self_check(opened.context, played.trained, config.scaffold)
        check_tasks(opened.context, played.human)
        repos = prepared_repos(opened.context)
        tasks, left_out = without_leaks(tasks, repos, opened.context.pool)
        held_out = HeldOut(attempted=tasks, weighed=others, left_out=left_out)
        if not played.trained:
            check_gold(opened.context, played.human)
        corpus = stack.enter_context(Corpus(run_dir.corpus))
        keep_originals(opened.context.repo_contexts.values(), corpus)
        spent = evaluated(config, run_dir, opened.context, held_out, ("before", 0), watcher)
        metrics = open_metrics(config, run_dir, opened)
        stack.callback(metrics.close)
        controller = make_controller(
            config, run_dir, corpus, opened, metrics, watcher, human=played.human
        )
        deadline = step_deadline(config, began, spent)
        done = controller.run(opened.first_step, config.steps, deadline)
        if opened.learner is not None:
            if done:
                opened.learner.export(run_dir, done - 1)
            opened.learner.dismiss()
        evaluated(config, run_dir, opened.context, held_out, ("after", done), watcher)
        summary = summarise(config, run_dir, corpus, wall_s=run_dir.add_wall(began))
        if config.metrics.report:
            report_of_run(run_dir.path)
    if config.json:
        print_json(summary)
    else:
        print_summary(summary, run_dir)
    return 0


def step_deadline(config: TrainConfig, began: float, evaluation_s: float) -> float | None:
    """When the last step must be over; the evaluation after them takes as long as that before."""
    if config.max_minutes is None:
        return None
    return began + 60.0 * config.max_minutes - evaluation_s


def load_suites(config: TrainConfig) -> tuple[list[SuiteTask], list[SuiteTask]]:
    """Held-out tasks: those that are attempted, and those whose gold answers are weighed."""
    options = config.evaluation

    def read(suite: str) -> list[SuiteTask]:
        return read_suite(Path(suite))[: options.num_tasks]

    tasks = read(options.suite) if options.suite else []
    known = {task.solve_task.bug_id for task in tasks}
    others = {task.solve_task.bug_id: task for suite in options.gold_suites for task in read(suite)}
    planted = {i: task for i, task in others.items() if not split_name(task.solve_task.repo)[1]}
    return tasks, [task for bug_id, task in planted.items() if bug_id not in known]


def check_apart(
    config: TrainConfig, suite: Sequence[SuiteTask], trained: Mapping[str, PreparedRepo]
) -> None:
    """No project is both trained on and evaluated on, at whatever commit or release."""
    known = {name for prepared in trained.values() for name in projects_of(prepared.spec)}
    specs = {task.solve_task.repo: suite_spec(task, config.repos) for task in suite}
    shared = sorted({spec.name for spec in specs.values() if projects_of(spec) & known})
    if shared:
        options = config.evaluation
        given = [f"suite={options.suite}"] if options.suite else []
        given += [f"gold_suites=[{', '.join(options.gold_suites)}]"] if options.gold_suites else []
        raise UserError(
            f"evaluation.{' or '.join(given)}: holds bugs of {', '.join(shared)}, "
            "which repos.train names too; evaluate on repositories that the run never trains on"
        )


def evaluated(
    config: TrainConfig,
    run_dir: RunDir,
    context: RolloutContext,
    held_out: HeldOut,
    moment: tuple[str, int],
    watcher: Watcher,
) -> float:
    """Evaluate once; seconds that it takes. `moment`: before or after, and steps played by then.

    A resumed run takes the stored result, unless it has more steps than then.
    """
    (when, step), tasks, weighed = moment, held_out.attempted, held_out.weighed
    began = time.monotonic()
    stored = run_dir.read_json(f"eval_{when}.json")
    if not tasks and not weighed:
        return 0.0
    if stored is not None and stored.get("step") == step:
        return float(stored.get("seconds", 0.0))
    sampling = Sampling(
        temperature=config.evaluation.temperature,
        top_p=config.evaluation.top_p,
        max_new_tokens=config.policy.max_new_tokens,
        seed=derive_rng(config.seed, "evaluation").getrandbits(32),
    )
    attempts = attempts_of(config, run_dir, moment)
    result = evaluate(
        replace(context, sampling=sampling),
        tasks,
        config.evaluation.num_samples,
        lambda done, total: watcher.evaluating(when, done, total),
        known=attempts.read(tasks),
        on_attempt=attempts.writer(context.policy.tokenizer),
        weighed=weighed,
    )
    if result.stopped is not None:
        raise result.stopped
    result = replace(result, left_out=held_out.left_out)
    spent = time.monotonic() - began
    run_dir.write_json(f"eval_{when}.json", {"step": step, **result.to_json(), "seconds": spent})
    return spent


def attempts_of(config: TrainConfig, run_dir: RunDir, moment: tuple[str, int]) -> AttemptLog:
    """The attempts of an evaluation, to be gone on from after a kill; those of the same moment of
    a shorter run are set aside."""
    when, step = moment
    file = run_dir.path / f"eval_{when}.attempts.jsonl"
    sampled = dataclasses.asdict(config.evaluation)
    key = [when, step, sampled, key_of(config.policy, config.scaffold, config.seed)]
    log = AttemptLog(file, key)
    if not log.is_ours():
        file.replace(run_dir.logs / f"{file.name}.old")
    return log
