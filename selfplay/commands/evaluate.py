"""`selfplay evaluate`: the solver on a suite of held-out bugs, one line a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from selfplay.commands.compose import (
    make_rollout_context,
    open_policy,
    prepare_suite,
    sandbox_pool,
    usage_of,
)
from selfplay.commands.output import print_json, print_table
from selfplay.config import EvaluateConfig, load_config
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import SuiteTask, read_suite
from selfplay.curriculum.evaluation import evaluate
from selfplay.curriculum.scaffold import Sampling
from selfplay.errors import UserError

HELP = """
keys: suite=PATH (a suite file, or a run directory: its own corpus), policy=transformers|base|
      vllm|openai|scripted, checkpoint=PATH (a run directory or an exported weights directory),
      num_samples=8, num_tasks=N, out=FILE, seed=N, sandbox=..., json=true
Prints resolved counts for each task, pass@1 and pass@n with 95 % bootstrap intervals.
"""


def run(overrides: Sequence[str]) -> int:
    """Evaluate; exit code 0 when every task was judged, 3 when all failed on infrastructure."""
    config = load_config(EvaluateConfig, "evaluate", overrides)
    tasks = read_tasks(Path(config.suite))[: config.num_tasks]
    if not tasks:
        raise UserError(f"suite={config.suite}: holds no task")
    if config.checkpoint:
        use_checkpoint(config, Path(config.checkpoint))
    sampling = Sampling(
        temperature=config.policy.temperature,
        top_p=config.policy.top_p,
        max_new_tokens=config.policy.max_new_tokens,
        seed=config.seed,
    )
    with sandbox_pool(config.sandbox) as pool:
        repos = prepare_suite(tasks, config.repos, pool)
        policy = open_policy(config.policy, config.scaffold)
        context = make_rollout_context(policy, repos, pool, config.scaffold, sampling)
        with tqdm(total=len(tasks), unit="task", desc="evaluate") as bar:

            def progress(done: int, total: int) -> None:
                bar.update(done - bar.n)

            solve_tasks = [task.solve_task for task in tasks]
            result = evaluate(context, solve_tasks, config.num_samples, progress)
    usage = usage_of(policy)
    document = result.to_json() | ({"usage": usage} if usage else {})
    if config.out:
        Path(config.out).parent.mkdir(parents=True, exist_ok=True)
        Path(config.out).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if config.json:
        print_json(document)
    else:
        n = result.num_samples
        rows = [(s.instance_id, s.repo, f"{s.num_resolved}/{s.num_judged}") for s in result.scores]
        print_table(str(config.suite), ("task", "repo", "resolved"), rows)
        print_table(
            "summary",
            ("metric", "value", "95 % interval"),
            [
                (name, f"{value.mean:.1%}", f"{value.low:.1%} to {value.high:.1%}")
                for name, value in (("pass@1", result.pass_at_1), (f"pass@{n}", result.pass_at_n))
            ],
        )
        if usage:
            print_table("usage", ("what", "number"), [(k, str(v)) for k, v in usage.items()])
    return 0 if any(s.num_judged for s in result.scores) else 3


def read_tasks(path: Path) -> list[SuiteTask]:
    """Tasks of a suite file, or of the corpus of a run directory."""
    if path.is_dir():
        file = path / "corpus.sqlite"
        if not file.is_file():
            raise UserError(f"suite={path}: a directory without corpus.sqlite is no run directory")
        with Corpus(file, read_only=True) as corpus:
            return [
                SuiteTask(solve_task=bug.task, base_commit="", environment={})
                for bug in corpus.bugs()
            ]
    return read_suite(path)


def use_checkpoint(config: EvaluateConfig, path: Path) -> None:
    """Evaluate the newest exported weights of a run directory, an adapter or a model directory."""
    if (path / "weights").is_dir():
        exported = [p for p in (path / "weights").iterdir() if p.name.startswith("step_")]
        if not exported:
            raise UserError(f"checkpoint={path}: the run has exported no weights yet")
        path = max(exported, key=lambda p: int(p.name.removeprefix("step_")))
    if (path / "adapter_config.json").is_file():
        config.policy.adapter = str(path)
    elif (path / "config.json").is_file():
        config.policy.model, config.policy.adapter = str(path), None
    else:
        raise UserError(f"checkpoint={path}: neither a run, an adapter nor a model directory")
