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

import logging
import time
from collections.abc import Mapping
from typing import Protocol

from selfplay.curriculum.curriculum import Curriculum
from selfplay.curriculum.groups.measures import entropy_warning, per_minute
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.curriculum.step import StepRules, play_step, step_metrics
from selfplay.errors import UserError
from selfplay.learning import Learner
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import MetricsLog, joined, within

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Shows a run to a person. Never raises."""

    def phase(self, step: int, name: str) -> None: ...

    def step_done(self, step: int, row: Mapping[str, float]) -> None: ...


class Controller:
    """Runs steps `start .. stop - 1` and leaves a committed run directory after each."""

    def __init__(
        self,
        *,
        run_dir: RunDir,
        curriculum: Curriculum,
        context: RolloutContext,
        rules: StepRules,
        learner: Learner | None,
        metrics: MetricsLog,
        watcher: Watcher,
        max_idle_steps: int,
        entropy_alarm: float = 0.0,
    ) -> None:
        self._run_dir = run_dir
        self._curriculum = curriculum
        self._context = context
        self._rules = rules
        self._learner = learner
        self._metrics = metrics
        self._watcher = watcher
        self._max_idle_steps = max_idle_steps
        self._entropy_alarm = entropy_alarm

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
            idle = idle + 1 if row["learner/groups_trained"] == 0 else 0
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
        clock, pool = self._context.clock, self._context.pool
        sampled_s, waited_s = clock.policy_s, pool.waited_s

        def report(phase: str) -> None:
            self._watcher.phase(step, phase)

        result = play_step(step, self._curriculum, self._context, self._rules, report)
        self._run_dir.append_episodes(result.episodes)
        played_s = time.monotonic() - began
        shares = {
            "play/sampling_s": clock.policy_s - sampled_s,
            "play/sandbox_s": pool.waited_s - waited_s,
        }
        report("learn")
        learning = time.monotonic()
        learned = {"groups_trained": 0.0}
        if self._learner is not None:
            learned = self._learner.step(result.groups)
        step_s = time.monotonic() - began
        counts = step_metrics(result)
        shares["learner/wall_s"] = time.monotonic() - learning
        shares["play/other_s"] = max(0.0, step_s - sum(shares.values()))
        times = {"play/wall_s": played_s, "curriculum/step_s": step_s, **per_minute(counts, step_s)}
        row = joined(counts, within("learner", learned), times, shares)
        if self._learner is not None:
            report("save")
            self._learner.save(self._run_dir, step, row)
        self._metrics.log(step, row)
        warning = entropy_warning(step, row, self._entropy_alarm)
        if warning and self._learner is not None:
            log.warning("%s", warning)
        self._watcher.step_done(step, row)
        return row
