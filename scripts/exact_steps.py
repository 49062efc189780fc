"""What self-play could teach without the noise of sampling: exact steps on bugs of earlier runs.

    python scripts/exact_steps.py RUN ... --out DIR [--weight reward] [--steps 13] [--bugs 26]

The gold answer of a planted bug is known, and so is its probability p under the solver. Each step
draws bugs, computes p, and moves the weights along the gradient of

    reward   the mean of p: what the attempts at the gold answer earn in expectation
    pass_8   the mean of 1 - (1 - p)^8: that one of eight attempts is the gold answer

with the learner of a run. `DIR/step_N` are adapters every `--save-every` steps;
`scripts/ladder.py score --adapter DIR/step_N` tells what held-out bugs gain. A suite serves as well
as a run directory.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from selfplay.commands.compose import make_rollout_context, sandbox_pool
from selfplay.commands.output import say
from selfplay.commands.suites import prepare_suite, read_tasks
from selfplay.config import LearnerConfig, PolicyConfig, ReposConfig, SandboxConfig, ScaffoldConfig
from selfplay.curriculum.groups.screening import KnowsAnswers
from selfplay.curriculum.scaffold import Sampling
from selfplay.learner.grpo import open_learner
from selfplay.sampling import Policy, ScoreRequest
from selfplay.types import TrainingSample

WEIGHTS: dict[str, Callable[[float], float]] = {
    "reward": lambda p: p,
    "pass_8": lambda p: 8 * p * (1 - p) ** 7,
}
"""d objective / d log p."""

SMALLEST = 1e-4
"""Weight below which a bug is left out of a step."""


def main() -> int:
    """Train, and leave adapters."""
    options = arguments()
    learner = open_learner(
        PolicyConfig(model=options.model, adapter=options.adapter),
        LearnerConfig(learning_rate=options.learning_rate),
        options.seed,
    )
    answers = list(known_answers(options.bugs_of, learner.policy))
    say(f"{len(answers)} bugs whose gold answer their prompt lets be written")
    drawn = draws(answers, options.bugs, options.seed)
    for step in range(1, options.steps + 1):
        requests = next(drawn)
        scores = learner.policy.score(requests)
        found = [math.exp(math.fsum(score)) for score in scores]
        weights = [WEIGHTS[options.weight](p) for p in found]
        samples = [
            sample(request, score, weight)
            for request, score, weight in zip(requests, scores, weights, strict=True)
            if weight >= SMALLEST
        ]
        if samples:
            learner.trainer.step(samples)
        say(f"step {step}: mean p {100 * sum(found) / len(found):.2f} %, {len(samples)} bugs count")
        if step % options.save_every == 0 or step == options.steps:
            learner.save_adapter(options.out / f"step_{step}")
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bugs_of", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weight", choices=tuple(WEIGHTS), default="reward")
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--bugs", type=int, default=26, help="of each step")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=13)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--adapter", default="default")
    return parser.parse_args()


def known_answers(paths: Sequence[Path], policy: Policy) -> Iterator[ScoreRequest]:
    """Prompt and gold answer of each bug, as its solver would see and write them."""
    tasks = {t.solve_task.bug_id: t for path in paths for t in read_tasks(path)}
    with sandbox_pool(SandboxConfig(name="bubblewrap", num_workers=1)) as pool:
        repos = prepare_suite(list(tasks.values()), ReposConfig(), pool, {})
        context = make_rollout_context(policy, repos, pool, ScaffoldConfig(), Sampling())
        assert isinstance(context.scaffold, KnowsAnswers)
        for task in (suite_task.solve_task for suite_task in tasks.values()):
            if task.repo in repos and (answer := context.scaffold.gold_answer(task)):
                prompt, ids = answer
                yield ScoreRequest(prompt_ids=prompt, answer_ids=ids, temperature=1.0)


def draws(answers: Sequence[ScoreRequest], size: int, seed: int) -> Iterator[list[ScoreRequest]]:
    """Batches without end, every bug once before any comes again."""
    rng = random.Random(seed)
    rest: list[ScoreRequest] = []
    while True:
        if len(rest) < size:
            rest = rng.sample(answers, len(answers))
        batch, rest = rest[:size], rest[size:]
        yield batch


def sample(request: ScoreRequest, logprobs: Sequence[float], weight: float) -> TrainingSample:
    """The gold answer with its weight as advantage, as if it had just been sampled."""
    before, after = len(request.prompt_ids), len(request.answer_ids)
    return TrainingSample(
        token_ids=(*request.prompt_ids, *request.answer_ids),
        loss_mask=(0,) * before + (1,) * after,
        logprobs=(0.0,) * before + tuple(logprobs),
        advantages=(weight,) * (before + after),
        policy_version=0,
    )


if __name__ == "__main__":
    raise SystemExit(main())
