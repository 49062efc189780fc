"""The training loop: draw, play, learn, publish, commit. One step after the other.

Order of a step, and what a kill at any moment leaves behind:

    bugs and attempts   into corpus.sqlite as soon as they are known (idempotent by id)
    episodes            appended to episodes.jsonl and synced before the optimizer moves
    checkpoint          weights, optimizer, step counter and the step's metrics: tmp, then rename
    metrics.jsonl       one line a step, rewritten from the checkpoint when the kill fell between

A resumed run repeats the step that was cut off. Its draws are functions of (seed, step) and of
bugs of *earlier* steps alone, so the repetition plays the same rounds; episodes of the first try
stay in the log under the same ids with a lower `try`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from selfplay.corpus.corpus import Corpus, store_bug
from selfplay.curriculum.injecting import Injection
from selfplay.curriculum.round import RoundPlayer, Rounds
from selfplay.curriculum.sampler import SeedSampler
from selfplay.curriculum.solving import Attempt
from selfplay.errors import UserError
from selfplay.metrics import MetricsLog
from selfplay.run_dir import RunDir
from selfplay.types import BugArtifact, PeerGroup, SolveTask


class Learner(Protocol):
    """What the controller asks of the learner (`learner/grpo.py`)."""

    def step(self, groups: Sequence[PeerGroup]) -> dict[str, float]:
        """One optimizer step on the groups that have variance, then publish; metrics.

        `skipped` is 1.0 in the result, and nothing moves, when no group has any variance.
        """
        ...

    def save(self, run_dir: RunDir, step: int, extra: Mapping[str, Any]) -> None:
        """Checkpoint of everything that `step` changes, atomically, under `checkpoints/`."""
        ...


class Watcher(Protocol):
    """Shows a run to a person. Never raises."""

    def phase(self, step: int, name: str) -> None: ...

    def step_done(self, step: int, row: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRule:
    """Which bugs of earlier steps are solved again: a solve rate in [low, high], fewest first."""

    min_groups: int
    low: float
    high: float


class Controller:
    """Runs steps `start .. stop - 1` and leaves a committed run directory after each."""

    def __init__(
        self,
        *,
        run_dir: RunDir,
        corpus: Corpus,
        sampler: SeedSampler,
        player: RoundPlayer,
        learner: Learner | None,
        metrics: MetricsLog,
        watcher: Watcher,
        replay: ReplayRule,
        max_idle_steps: int,
    ) -> None:
        self._run_dir = run_dir
        self._corpus = corpus
        self._sampler = sampler
        self._player = player
        self._learner = learner
        self._metrics = metrics
        self._watcher = watcher
        self._replay = replay
        self._max_idle_steps = max_idle_steps

    def run(self, start: int, stop: int, deadline: float | None = None) -> int:
        """Steps that are on disk in the end: `stop`, or fewer where one more, as long as the
        longest so far, would end after `deadline` (of `time.monotonic`).

        Raises `UserError` when nothing can be learned for `max_idle_steps` steps on end.
        """
        idle, longest = 0, 0.0
        for step in range(start, stop):
            began = time.monotonic()
            if deadline is not None and began + longest > deadline:
                return step
            row = self.step(step)
            longest = max(longest, time.monotonic() - began)
            idle = idle + 1 if row["groups_trained"] == 0 else 0
            if self._learner is not None and idle >= self._max_idle_steps:
                raise UserError(
                    f"stopped at step {step}: for {idle} steps no peer group had both outcomes, so "
                    "nothing can be learned; start from a warm-started policy (policy.adapter) or "
                    "choose easier repositories (repos.train); resume continues from here"
                )
        return max(start, stop)

    def step(self, step: int) -> dict[str, float]:
        """Roll out and learn one step; returns its metrics row after everything is on disk."""
        began = time.monotonic()

        def replays(num_new: int) -> list[SolveTask]:
            return self._draw_replays(step, num_new)

        def known_bugs(repo: str) -> list[BugArtifact]:
            bugs = self._corpus.bugs(repo)
            return [b.task.artifact for b in bugs if b.step < step and b.parent is None]

        counts = self._corpus.counts_by_function(before_step=step)
        lessons = self._corpus.lessons(before_step=step)
        planned = self._sampler.draw(step, counts, known_bugs, lessons)
        rounds = self._player.play(
            step, planned, replays, lambda name: self._watcher.phase(step, name)
        )
        self._run_dir.append_episodes(rounds.episodes)
        played_s = time.monotonic() - began
        row = round_metrics(rounds)
        self._watcher.phase(step, "learn")
        if self._learner is not None:
            row |= self._learner.step(rounds.groups)
        row.setdefault("groups_trained", 0.0)
        row |= {"play_s": played_s, "step_s": time.monotonic() - began}
        if self._learner is not None:
            self._watcher.phase(step, "save")
            self._learner.save(self._run_dir, step, {"metrics": row})
        self._metrics.log(step, row)
        self._watcher.step_done(step, row)
        return row

    def _draw_replays(self, step: int, num_new: int) -> list[SolveTask]:
        """Higher-order bugs that nobody has tried, then bugs of earlier steps that the solver
        neither always nor never solves, those that were attempted least first."""
        missing = self._replay.min_groups - num_new
        if missing <= 0:
            return []
        candidates = self._corpus.replay_candidates(
            before_step=step, low=self._replay.low, high=self._replay.high
        )
        return [*self._corpus.untried_children(before_step=step), *candidates][:missing]


def round_metrics(rounds: Rounds) -> dict[str, float]:
    """Counts, rates and mean reward by role of one step."""
    row = {
        "num_injections": float(rounds.num_injections),
        "num_valid": float(rounds.num_valid),
        "num_new_bugs": float(rounds.num_new_bugs),
        "num_higher_order": float(rounds.num_grown),
        "num_attempts": float(rounds.num_attempts),
        "num_resolved": float(rounds.num_resolved),
        "num_first_attempts": float(rounds.num_first_attempts),
        "num_first_resolved": float(rounds.num_first_resolved),
        "overfit_rate": rounds.num_overfit / max(1, rounds.num_attempts),
        "num_errored": float(rounds.num_errored),
        "valid_rate": rounds.num_valid / max(1, rounds.num_injections),
        "solve_rate": rounds.num_resolved / max(1, rounds.num_attempts),
        "num_tokens": float(
            sum(sum(e.trajectory.loss_mask) for e in rounds.episodes if e.trajectory)
        ),
    }
    for role in ("injector", "solver"):
        rewards = [e.reward for e in rounds.episodes if e.role == role and e.reward is not None]
        if rewards:
            row[f"{role}/reward"] = sum(rewards) / len(rewards)
        groups = [g for g in rounds.groups if f"/{role}/" in g.group_id]
        varied = sum(len(set(g.rewards)) > 1 for g in groups)
        row[f"{role}/groups_with_variance"] = varied / max(1, len(groups))
    return row


def keep_bug(
    corpus: Corpus, run_dir: RunDir, trees: Mapping[str, Path], injection: Injection, step: int
) -> bool:
    """Store a valid bug of the model; False when an earlier step already holds it."""
    task = injection.outcome.solve_task
    assert task is not None
    return store_bug(
        corpus,
        run_dir.path,
        task,
        origin="model",
        strategy=injection.task.strategy,
        seed=injection.task.seed,
        step=step,
        tree=trees[task.repo],
    )


def keep_attempts(corpus: Corpus, attempts: Sequence[Attempt], step: int) -> None:
    """Store the attempts on one bug and its solve rate."""
    if not attempts:
        return
    bug_id = attempts[0].task.bug_id
    corpus.add_attempts(
        bug_id,
        [
            {
                "episode_id": f"step{step}/solver/{bug_id}/{i}",
                "resolved": a.outcome.resolved,
                "patch": a.outcome.patch,
                "reason": a.outcome.reason,
                "errored": a.outcome.errored,
            }
            for i, a in enumerate(attempts)
        ],
        step=step,
    )
