"""`selfplay evaluate`: the solver on a suite of held-out bugs, or a policy on questions about
outputs; one line a task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from selfplay.commands.attempt_log import AttemptLog, begin, key_of, places, tell_known
from selfplay.commands.compose import make_rollout_context, open_policy, sandbox_pool, usage_of
from selfplay.commands.output import print_json, print_table
from selfplay.commands.predictions import evaluate_predictions, open_predictor, prediction_key
from selfplay.commands.selfcheck import without_leaks
from selfplay.commands.suites import prepare_suite, read_tasks
from selfplay.config import EvaluateConfig, PolicyConfig
from selfplay.corpus.suite import SuiteTask
from selfplay.curriculum.evaluation import Evaluation, evaluate, unnoted
from selfplay.curriculum.scaffold import Sampling
from selfplay.errors import UserError
from selfplay.files import finite, write_atomic
from selfplay.sampling import Policy
from selfplay.traces.suites import questions_file, read_questions

CONFIG, SCHEMA = "evaluate", EvaluateConfig
HELP = """
keys: suite=PATH (a suite file, a run directory: its own corpus, or what others wrote: lines of
      SWE-bench or SWE-smith, Parquet, Harbor's tasks; or questions.jsonl of `selfplay traces`, or
      CRUXEval's lines: what do calls give?), policy=transformers|base|
      vllm|openai|scripted, checkpoint=PATH (a run directory or an exported weights directory),
      num_samples=8, num_tasks=N, out=FILE, seed=N, sandbox=..., json=true
Prints resolved counts for each task, pass@1 and pass@n with 95 % bootstrap intervals, and p(gold):
the probability of exactly the gold answer, where the policy tells it (transformers, vllm) and
answers in one turn. num_samples=0 computes p(gold) alone, one forward pass a bug.
out=e.json: the result there, and every attempt in e.attempts.jsonl as soon as it is judged. The
same command goes on from what is there; `selfplay episode show run=e.attempts.jsonl` shows it.
"""


def run(config: EvaluateConfig) -> int:
    """Evaluate; exit code 0 when every task was judged, 3 when all failed on infrastructure."""
    policy_config = config.policy
    questions = questions_file(Path(config.suite))
    asked = read_questions(questions)[: config.num_tasks] if questions else []
    tasks = [] if questions else read_tasks(Path(config.suite))[: config.num_tasks]
    if not tasks and not asked:
        raise UserError(f"suite={config.suite}: holds no task")
    if config.checkpoint:
        policy_config = of_checkpoint(policy_config, Path(config.checkpoint))
    if asked:
        key = prediction_key(policy_config, config.seed)
    else:
        key = key_of(policy_config, config.scaffold, config.seed)
    summary, attempts = places(config.out) if config.out else (None, None)
    attempt_log = AttemptLog(attempts, key) if attempts else None
    if summary and attempts:
        begin(summary, attempts)
    if asked and not config.num_samples:
        raise UserError("num_samples=0 is for bugs: questions have no gold patch; give 1 or more")
    if asked:
        policy = open_predictor(policy_config)
        result = evaluate_predictions(config, policy, asked, attempt_log)
    else:
        policy, result = evaluate_repairs(config, policy_config, tasks, attempt_log)
    if not config.num_samples and result.p_gold is None and result.stopped is None:
        raise UserError(
            f"num_samples=0 leaves p(gold) alone, which policy.engine={policy_config.engine} with "
            f"scaffold.kind={config.scaffold.kind} cannot tell; give num_samples=1 or more"
        )
    usage = usage_of(policy)
    document = result.to_json() | ({"usage": usage} if usage else {})
    if summary:
        text = json.dumps(finite(document), indent=1) + "\n"
        write_atomic(summary, text.encode("ascii"))
    if result.stopped is not None:
        raise result.stopped
    if config.json:
        print_json(document)
    else:
        _print(str(config.suite), result, usage)
    return 0 if any(s.num_judged or s.p_gold is not None for s in result.scores) else 3


def evaluate_repairs(
    config: EvaluateConfig,
    policy_config: PolicyConfig,
    tasks: Sequence[SuiteTask],
    attempt_log: AttemptLog | None,
) -> tuple[Policy, Evaluation]:
    """The solver on bugs, each fix graded in a sandbox."""
    sampling = Sampling(
        temperature=config.policy.temperature,
        top_p=config.policy.top_p,
        max_new_tokens=config.policy.max_new_tokens,
        seed=config.seed,
    )
    solve_tasks = [task.solve_task for task in tasks]
    known = attempt_log.read(solve_tasks) if attempt_log else []
    tell_known(known, config.out)
    with sandbox_pool(config.sandbox) as pool:
        problems: dict[str, str] = {}
        repos = prepare_suite(tasks, config.repos, pool, problems)
        if not repos:
            raise UserError(next(iter(problems.values())))
        policy = open_policy(policy_config, config.scaffold)
        context = make_rollout_context(policy, repos, pool, config.scaffold, sampling)
        context = replace(context, early_grading=config.sandbox.early_grading)
        solve_tasks, left_out = without_leaks(solve_tasks, repos, pool)
        with tqdm(total=len(solve_tasks), unit="task", desc="evaluate") as bar:

            def progress(done: int, total: int) -> None:
                bar.update(done - bar.n)

            result = evaluate(
                context,
                solve_tasks,
                config.num_samples,
                progress,
                known=known,
                on_attempt=attempt_log.writer(policy.tokenizer) if attempt_log else unnoted,
                lost=problems,
            )
    return policy, replace(result, left_out=left_out)


def _print(suite: str, result: Evaluation, usage: Mapping[str, object] | None) -> None:
    n = result.num_samples
    header = ["task", "repo"]
    rows = [[score.instance_id, score.repo] for score in result.scores]
    measures = []
    if n:
        header.append("resolved")
        for row, score in zip(rows, result.scores, strict=True):
            row.append(f"{score.num_resolved}/{score.num_judged}")
        measures += [("pass@1", result.pass_at_1), (f"pass@{n}", result.pass_at_n)]
    if result.p_gold is not None:
        header.append("p(gold)")
        for row, score in zip(rows, result.scores, strict=True):
            row.append("-" if score.p_gold is None else f"{score.p_gold:.1%}")
        measures.append(("p(gold)", result.p_gold))
    if result.test_share is not None:
        header.append("tests that pass")
        for row, score in zip(rows, result.scores, strict=True):
            row.append("-" if score.share is None else f"{score.share:.1%}")
        measures.append(("tests that pass", result.test_share))
    print_table(suite, header, rows)
    print_table(
        "summary",
        ("metric", "value", "95 % interval"),
        [
            (name, f"{value.mean:.1%}", f"{value.low:.1%} to {value.high:.1%}")
            for name, value in measures
        ],
    )
    if result.left_out:
        left = [(name, str(why["num_tasks"])) for name, why in result.left_out.items()]
        print_table("left out: a solver could read the answers here", ("repository", "bugs"), left)
    if usage:
        print_table("usage", ("what", "number"), [(k, str(v)) for k, v in usage.items()])


def of_checkpoint(policy: PolicyConfig, path: Path) -> PolicyConfig:
    """The newest weights of a run directory, an adapter or a model directory."""
    if (path / "checkpoints").is_dir() or (path / "weights").is_dir():
        from selfplay.learner.grpo import newest_weights

        path = newest_weights(path)
    if (path / "adapter_config.json").is_file():
        return replace(policy, adapter=str(path))
    if (path / "config.json").is_file():
        return replace(policy, model=str(path), adapter=None)
    raise UserError(f"checkpoint={path}: neither a run, an adapter nor a model directory")
