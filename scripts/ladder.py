"""What keeps a model from repairing bugs: the probability of the gold answer, rung by rung.

    python scripts/ladder.py score  --suite SUITE ... --out FILE.jsonl [--model M] [--adapter A]
    python scripts/ladder.py sample --suite SUITE ... --out FILE.jsonl [--samples 8] ...
    python scripts/ladder.py table  --out FILE.jsonl ...

A suite is a suite file or a directory of `selfplay inject`. `score` needs one forward pass a bug:
its conditions (`ladder_prompts.py`) share their prefixes. What is in the file is not done again.
The probability is that of exactly the gold answer, a lower bound of pass@1 without sampling noise.
How it changes from one model to another: `selfplay evaluate num_samples=0` and `selfplay compare`.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from ladder_languages import LANGUAGES, to_numbered
from ladder_prompts import CONDITIONS, TRACE_LINES, Bug, Case

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.spectrum import SpectrumRecorder
from selfplay.commands.compose import sandbox_pool
from selfplay.commands.output import say
from selfplay.commands.suites import prepare_suite, read_tasks
from selfplay.compact.edits import EditError
from selfplay.config import PolicyConfig, ReposConfig, SandboxConfig, ScaffoldConfig
from selfplay.files import append_json_lines, read_json_lines
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.compact.solver import CompactSolver
from selfplay.roles.rejected import Rejected
from selfplay.sampling import SampleRequest
from selfplay.sandbox.pool import SandboxPool
from selfplay.seeds import derive_seed
from selfplay.types import SolveTask, TrainingSample

Line = dict[str, Any]
COOL = 0.6
"""The second temperature at which probabilities are told."""


def main() -> int:
    """Run one of the three commands."""
    options = arguments()
    if options.command == "table":
        print_tables(options)
        return 0
    with sandbox_pool(SandboxConfig(name=options.sandbox, num_workers=1)) as pool:
        by_suite = [chosen(suite, options) for suite in options.suite]
        tasks = [task for turn in zip_longest(*by_suite) for task in turn if task]
        repos = prepare_suite([task for _, task in tasks], ReposConfig(), pool, {})
        policy = open_model(options)
        solvers: dict[str, CompactSolver] = {}
        done = {key_of(line) for _, line in read_json_lines(options.out)}
        for suite, suite_task in tasks:
            task = suite_task.solve_task
            if task.repo not in repos:
                continue
            solver = solvers.setdefault(
                task.repo,
                CompactSolver(
                    repos[task.repo],
                    policy.tokenizer,
                    ScaffoldConfig(trace_lines=TRACE_LINES * ("trace" in options.conditions)),
                    SpectrumRecorder(TestRunner(pool.sandbox, repos[task.repo].environment)),
                ),
            )
            about = {"model": options.name, "suite": Path(suite).stem, "bug": task.bug_id}
            wanted = [c for c in options.conditions if (*about.values(), c) not in done]
            if not wanted:
                continue
            ladder = Bug(solver, task, options.example).ladder(wanted)
            about |= {"rank": ladder.rank, "lost": ladder.lost, "repo": task.repo}
            if options.command == "score":
                lines = scored(policy, ladder.cases)
            else:
                lines = list(sampled(policy, ladder.cases, solver, task, pool, repos, options))
            append_json_lines(options.out, [{**about, **line} for line in lines])
            say(f"{suite}: {task.bug_id}")
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("score", "sample", "table"))
    parser.add_argument("--suite", nargs="+", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--adapter", default=None, help="an adapter; for smollm2-135m: default")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--num", type=int, default=200, help="bugs of each suite, drawn by seed 0")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sandbox", default="bubblewrap")
    parser.add_argument("--example", action="store_true", help="show one answer in the language")
    options = parser.parse_args()
    options.name = Path(options.model).name + (f"+{options.adapter}" if options.adapter else "")
    options.name += "+example" if options.example else ""
    return options


def chosen(suite: str, options: argparse.Namespace) -> list[tuple[str, Any]]:
    """The first bugs of a suite in an order that is drawn once, so that more are a superset."""
    tasks = sorted(read_tasks(Path(suite)), key=lambda task: task.solve_task.bug_id)
    random.Random(0).shuffle(tasks)
    return [(suite, task) for task in tasks[: options.num]]


def key_of(line: Line) -> tuple[str, ...]:
    """What makes a measurement one and the same."""
    return line["model"], line["suite"], line["bug"], line["condition"]


def open_model(options: argparse.Namespace) -> Any:
    """The model with its adapter."""
    import torch

    from selfplay.learner.grpo import load_for_inference

    torch.set_num_threads(options.threads)
    return load_for_inference(PolicyConfig(model=options.model, adapter=options.adapter))


def scored(policy: Any, cases: Sequence[Case]) -> list[Line]:
    """Log-probabilities of the gold answers, at temperature 1 and `COOL`."""
    given = [case for case in cases if case.answer is not None]
    lines = [{"condition": c.condition, "shown": False} for c in cases if c.answer is None]
    if not given:
        return lines
    tokens = policy.tokenizer
    samples, places = [], []
    for case in given:
        prompt = tokens.render(case.system, case.user)
        before = tokens.encode(case.prefill)
        said = tokens.encode(case.prefill + str(case.answer))
        start = common(before, said)
        place = common(said, tokens.encode(case.prefill + str(case.answer)[: case.place]))
        answer = (*said[start:], tokens.end_of_turn_id)
        places.append(max(0, place - start) if case.place else 0)
        ids = (*prompt, *said[:start], *answer)
        mask = (0,) * (len(ids) - len(answer)) + (1,) * len(answer)
        zeros = (0.0,) * len(ids)
        samples.append(
            TrainingSample(
                token_ids=ids, loss_mask=mask, logprobs=zeros, advantages=zeros, policy_version=0
            )
        )
    for case, sample, place, (hot, cool) in zip(
        given, samples, places, log_probabilities(policy.model, samples), strict=True
    ):
        lines.append(
            {
                "condition": case.condition,
                "shown": True,
                "num_prompt": sample.loss_mask.count(0),
                "num_answer": len(hot),
                "logprob": sum(hot),
                "logprob_end": hot[-1],
                "logprob_place": sum(hot[:place]),
                "logprob_cool": sum(cool),
            }
        )
    return lines


def log_probabilities(
    model: Any, samples: Sequence[TrainingSample]
) -> list[tuple[list[float], list[float]]]:
    """Of the trained tokens of each sample, at both temperatures."""
    import torch

    from selfplay.learner.loss import token_scores
    from selfplay.learner.packing import pack
    from selfplay.learner.scoring import row_states

    found: list[tuple[list[float], list[float]]] = [([], []) for _ in samples]
    model.eval()
    with torch.no_grad():
        for batch in pack(samples, max_tokens=6000):
            states = row_states(model, batch)[batch.predictors]
            head = model.get_output_embeddings().weight
            for which, temperature in enumerate((1.0, COOL)):
                heat = torch.full_like(batch.temperatures, temperature)
                values, _ = token_scores(states, head, batch.targets, heat)
                for owner, value in zip(batch.samples.tolist(), values.tolist(), strict=True):
                    found[owner][which].append(value)
    return found


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """Equal leading tokens."""
    return next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )


def sampled(
    policy: Any,
    cases: Sequence[Case],
    solver: CompactSolver,
    task: SolveTask,
    pool: SandboxPool,
    repos: dict[str, PreparedRepo],
    options: argparse.Namespace,
) -> Iterator[Line]:
    """Attempts under each condition, graded like any other."""
    tokens = policy.tokenizer
    runner = TestRunner(pool.sandbox, repos[task.repo].environment)
    own = solver.prompt(task)
    for case in cases:
        prompt = (*tokens.render(case.system, case.user), *tokens.encode(case.prefill))
        request = SampleRequest(
            prompt_ids=prompt,
            num_samples=options.samples,
            max_new_tokens=options.max_new_tokens if case.prefill else 80,
            temperature=1.0,
            top_p=0.95,
            seed=derive_seed(0, task.bug_id, case.condition),
        )
        (group,) = policy.sample([request])
        attempts = []
        for answer in group:
            patch, reason = "", ""
            try:
                language = LANGUAGES.get(case.condition, LANGUAGES["numbered"])
                edit = to_numbered(language, case.listing, case.prefill + answer.text)
                shown = replace(own, prompt_ids=prompt, text=case.user, listing=case.listing)
                patch = solver.fix_patch(shown, edit)
                reason = grade(task, patch, runner).reason or "resolved"
            except (Rejected, EditError) as error:
                reason = error.reason
            attempts.append({"answer": answer.text, "patch": patch, "reason": reason})
        yield {
            "condition": case.condition,
            "shown": case.answer is not None,
            "gold": case.answer,
            "prompt": case.user,
            "num_resolved": sum(a["reason"] == "resolved" for a in attempts),
            "attempts": attempts,
        }


def print_tables(options: argparse.Namespace) -> None:
    """Two tables a model and suite: over the bugs that have all but the rich conditions, and over
    those that have them too."""
    groups: dict[tuple[str, str], dict[str, dict[str, Line]]] = {}
    for _, line in read_json_lines(options.out):
        bugs = groups.setdefault((line["model"], line["suite"]), {})
        bugs.setdefault(line["bug"], {})[line["condition"]] = line
    for (model, suite), bugs in groups.items():
        names = [c for c in CONDITIONS if any(c in found for found in bugs.values())]
        plain = [c for c in names if not c.startswith("rich")]
        print_table(f"{model} on {suite}", plain, list(bugs.values()))
        if len(plain) < len(names):
            few = ["now", "kind", *(c for c in names if c.startswith("rich"))]
            print_table(f"{model} on {suite}", few, list(bugs.values()))


def print_table(title: str, names: Sequence[str], bugs: Sequence[dict[str, Line]]) -> None:
    """One row a condition, over the bugs that have all of them."""
    whole = [found for found in bugs if all(c in found for c in names)]
    if not whole:
        return
    lost = Counter(found["now"]["lost"] or "shown" for found in whole)
    sys.stdout.write(f"\n{title}: {len(whole)} bugs, {dict(lost)}\n\n")
    sys.stdout.write(
        "| condition | place shown | p(gold), % | at T = 0.6 | 1 of 8 | place | text | p > 1 % "
        "| tokens |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    for name in names:
        sys.stdout.write(row_of(name, [found[name] for found in whole]) + "\n")


def row_of(name: str, lines: Sequence[Line]) -> str:
    """Means over bugs; a place that is not shown counts as probability 0."""
    if "attempts" in lines[0]:
        solved = [line["num_resolved"] / len(line["attempts"]) for line in lines]
        return f"| {name} | sampled | {percent(solved)} | any: {percent([s > 0 for s in solved])} |"
    shown = [line for line in lines if line["shown"]]
    p = [math.exp(line["logprob"]) for line in shown] + [0.0] * (len(lines) - len(shown))
    cool = [math.exp(line["logprob_cool"]) for line in shown] + [0.0] * (len(lines) - len(shown))
    place = [math.exp(line["logprob_place"]) for line in shown]
    text = [
        math.exp(line["logprob"] - line["logprob_place"] - line.get("logprob_end", 0.0))
        for line in shown
    ]
    cells = [
        name,
        f"{len(shown)} of {len(lines)}",
        percent(p),
        percent(cool),
        percent([1 - (1 - x) ** 8 for x in p]),
        percent(place) if name != "whole" else "-",
        percent(text) if name != "whole" else "-",
        percent([x > 0.01 for x in p]),
        f"{sum(line['num_prompt'] for line in shown) / max(1, len(shown)):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def percent(values: Sequence[float]) -> str:
    """A mean as text."""
    return f"{100 * sum(values) / max(1, len(values)):.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
