"""What the curriculum's tests play with: real bugs of a vendored sample, and a policy that answers
what it is told. Everything between its answers and the corpus is the real thing."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfplay.config import (
    CurriculumConfig,
    InjectorConfig,
    MetricsConfig,
    RewardConfig,
    ScaffoldConfig,
)
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.controller import Controller
from selfplay.curriculum.curriculum import Curriculum
from selfplay.curriculum.rounds.ledger import Round
from selfplay.curriculum.scaffold import RepoContext, RolloutContext
from selfplay.curriculum.step import Report, StepResult, StepRules, play_step
from selfplay.curriculum.targets import RepoTargets, TaskSampler
from selfplay.learning import Restored
from selfplay.roles.rewards import make_injector_reward, make_solver_reward
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import MetricsLog
from selfplay.sampling import SampleRequest, ScoreRequest
from selfplay.scripted.compact import ByteTokenizer, asks_for_repair
from selfplay.types import Completion, Episode, PeerGroup

REPO = "sample-ledger"
SCAFFOLD = ScaffoldConfig(max_prompt_tokens=6000)

Move = tuple[str, str] | str
"""An edit of the line that holds the first text, or an answer as it is."""
FIX_ROUND: Move = ("rest * 2 > step", "rest * 2 >= step")
BUG_ROUND: Move = ("rest * 2 >= step", "rest * 2 > step")
OTHER_ROUND: Move = ("units += 1", "units += 2")
BUG_FORMAT: Move = ("if cents < 0", "if cents <= 0")
FIX_FORMAT: Move = ("if cents <= 0", "if cents < 0")
WORSE_FORMAT: Move = ("digits[-3:])", "digits[-2:])")
UNNOTICED: Move = ("sign = -1 if cents < 0 else 1", "sign = -1 if cents <= 0 else 1")
NOTHING: Move = "I do not know."


class Book:
    """A policy that reads its moves from a book: the samples of a request get them in turn.

    A role's first request begins with the first move, its next one goes on where that stopped.
    """

    def __init__(self, inject: Sequence[Move] = (), solve: Sequence[Move] = ()) -> None:
        self.version = 0
        self.tokenizer = ByteTokenizer()
        self.moves = {"injector": list(inject), "solver": list(solve)}
        self.num_answered: Counter[str] = Counter()
        self.requests: list[SampleRequest] = []

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        self.requests += requests
        return [[self._answer(request) for _ in range(request.num_samples)] for request in requests]

    def _answer(self, request: SampleRequest) -> Completion:
        prompt = self.tokenizer.user_text(request.prompt_ids)
        role = "solver" if asks_for_repair(prompt) else "injector"
        moves = self.moves[role]
        text = edit(prompt, moves[self.num_answered[role] % len(moves)])
        self.num_answered[role] += 1
        ids = (*self.tokenizer.encode(text), self.tokenizer.end_of_turn_id)
        return Completion(
            token_ids=ids,
            logprobs=(-0.5,) * len(ids),
            text=text,
            finish_reason="stop",
            policy_version=self.version,
        )


LIKELY = {"rest * 2 >= step": 0.3, "if cents < 0": 0.01}


class Knowing(Book):
    """A book that tells how likely an answer is by what stands in it."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        self.heats = {request.temperature for request in requests}
        texts = [self.tokenizer.decode(request.answer_ids) for request in requests]
        assert all(r.answer_ids[-1] == self.tokenizer.end_of_turn_id for r in requests)
        sums = [math.log(next(p for part, p in LIKELY.items() if part in text)) for text in texts]
        return [
            tuple([total / len(request.answer_ids)] * len(request.answer_ids))
            for total, request in zip(sums, requests, strict=True)
        ]


def edit(prompt: str, move: Move) -> str:
    """The answer to a listing: its line with the new text; "" where no line holds the old one."""
    if isinstance(move, str):
        return move
    old, new = move
    lines = re.findall(r"^(\d+)\| (.*)$", prompt, re.M)
    return next((f"{n}| {line.replace(old, new)}" for n, line in lines if old in line), "")


class Tally:
    """A learner without weights: it counts what could be trained on, and checkpoints the count."""

    def __init__(self, policy: Book) -> None:
        self.policy = policy
        self.num_steps = 0
        self.seen: list[tuple[PeerGroup, ...]] = []

    def step(self, groups: Sequence[PeerGroup]) -> dict[str, float]:
        self.seen.append(tuple(groups))
        varied = [group for group in groups if len(set(group.rewards)) > 1]
        self.num_steps += bool(varied)
        self.policy.version = self.num_steps
        return {"groups_trained": float(len(varied)), "num_tokens": 1.0}

    def save(self, run_dir: RunDir, step: int, metrics: Mapping[str, float]) -> None:
        run_dir.write_json("tally.json", [step, self.num_steps, dict(metrics)])

    def restore(self, run_dir: RunDir) -> Restored | None:
        stored = run_dir.read_json("tally.json")
        if stored is None:
            return None
        self.num_steps = self.policy.version = stored[1]
        return Restored(step=stored[0], metrics=stored[2])

    def export(self, run_dir: RunDir, step: int) -> Path:
        return run_dir.path

    def dismiss(self) -> None:
        pass


class Quiet:
    """A watcher that remembers the phases."""

    def __init__(self) -> None:
        self.phases: list[tuple[int, str]] = []
        self.results: list[StepResult] = []

    def phase(self, step: int, name: str) -> None:
        self.phases.append((step, name))

    def round_done(self, number: int, result: StepResult) -> None:
        self.results.append(result)

    def step_done(self, step: int, row: Mapping[str, float]) -> None:
        self.phases.append((step, "done"))

    def evaluating(self, when: str, done: int, total: int) -> None:
        pass


class Game:
    """A run on the sample in a folder of its own, with its pieces at hand.

    functions    the only ones in which bugs are asked for
    shape        keys of `CurriculumConfig`; by default one task, one sample, no replays, no growth
    """

    def __init__(
        self,
        context: RolloutContext,
        folder: Path,
        *,
        functions: Sequence[str] = ("round_to",),
        inject: Sequence[Move] = (BUG_ROUND,),
        solve: Sequence[Move] = (FIX_ROUND,),
        learner: bool = False,
        repos: Mapping[str, RepoContext] | None = None,
        **shape: Any,
    ) -> None:
        plain = {
            "num_groups": 1, "seeds_per_group": 1, "samples_per_seed": 1, "group_size": 1,
            "min_solve_groups": 0, "higher_order": 0, "max_bugs_per_function": 99,
        }  # fmt: skip
        self.shape = CurriculumConfig(**{**plain, **shape})
        self.policy = Book(inject, solve)
        self.context = replace(
            context, policy=self.policy, repo_contexts=repos or context.repo_contexts
        )
        self.folder = folder
        self.functions = functions
        self.learner = Tally(self.policy) if learner else None
        self.watcher = Quiet()
        self.targets = {n: self._targets(c) for n, c in self.context.repo_contexts.items()}
        self.open()

    def _targets(self, context: RepoContext) -> RepoTargets:
        targets = RepoTargets(context.prepared, SCAFFOLD)
        targets.functions = [f for f in targets.functions if f.qualname in self.functions]
        assert len(targets.functions) == len(self.functions)
        return targets

    def open(self) -> None:
        """Open folder, corpus and metrics, as a process that begins or goes on does."""
        self.run_dir = RunDir(self.folder / "run")
        self.corpus = Corpus(self.run_dir.corpus)
        sampler = TaskSampler(
            self.targets,
            self.context.scaffold,
            curriculum=self.shape,
            injector=InjectorConfig(strategies={"direct": 1.0}),
            seed=0,
        )
        self.curriculum = Curriculum(
            corpus=self.corpus,
            folder=self.run_dir.path,
            sampler=sampler,
            repo_contexts=self.context.repo_contexts,
            shape=self.shape,
        )
        self.rules = StepRules(
            samples_per_task=self.shape.samples_per_seed,
            group_size=self.shape.group_size,
            injector_reward=make_injector_reward(RewardConfig()),
            solver_reward=make_solver_reward(RewardConfig()),
            role_weights={"injector": 0.5, "solver": 2.0},
        )
        self.metrics = MetricsLog(self.run_dir, MetricsConfig(tensorboard=False))
        self.controller = Controller(
            run_dir=self.run_dir,
            play=self.play_round,
            context=self.context,
            learner=self.learner,
            metrics=self.metrics,
            watcher=self.watcher,
            max_idle_steps=self.shape.max_idle_steps,
            rounds_per_step=self.shape.rounds_per_step,
            max_staleness=self.shape.max_staleness,
        )

    def close(self) -> None:
        self.metrics.close()
        self.corpus.close()
        self.run_dir.close()

    def play(self, step: int, report: Callable[[str], None] = lambda name: None) -> StepResult:
        return play_step(step, self.curriculum, self.context, self.rules, report)

    def play_round(self, round_: Round, context: RolloutContext, report: Report) -> StepResult:
        return play_step(round_.number, self.curriculum, context, self.rules, report, round_.before)

    def step(self, step: int) -> dict[str, float]:
        """One step of the controller; its row."""
        self.controller.run(step, step + 1)
        row = dict(self.rows()[-1])
        del row["step"]
        return row

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run_dir.metrics.read_text().splitlines()]

    def bug_ids(self) -> list[str]:
        return [bug.task.bug_id for bug in self.corpus.bugs()]


def of_role(result: StepResult, role: str) -> list[Episode]:
    return [episode for episode in result.episodes if episode.role == role]
