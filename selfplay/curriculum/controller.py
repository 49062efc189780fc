"""The training loop: rounds are played, some of them ahead of the learner, and learned from.

    loop             consumes           produces            waits for              is woken by
    ---------------  -----------------  ------------------  ---------------------  ---------------
    controller       finished rounds    steps, free slots   the rounds of a step,  rounds, engine
     (asyncio)                                               the learner's step
    round            a slot, a number   episodes, bugs,     answers, verdicts      engine, pool
     (one a slot)                        peer groups
    engine           requests of all    answers, new        the call before        rounds,
     (one thread)     rounds, groups     weights                                    controller
    sandbox workers  jobs of all        results             a free worker          rounds
     (a pool)         rounds

At most (max_staleness + 1) x rounds_per_step rounds are alive (`rounds/ledger.py`), so none can
pile up. A step takes the first `rounds_per_step` that are finished, the lowest numbers first, and
frees their slots when it is on disk. With max_staleness 0 nothing is left to play by then: that is
synchronous training. Samples that are too old when they are consumed are dropped and counted
(`rounds/age.py`). Weights change between two calls of the engine, of servers under their requests
(`rounds/engine.py`); no round is waited for.

Order of a step, and what a kill at any moment leaves behind:

    bugs and attempts   into corpus.sqlite as soon as they are known (idempotent by id)
    episodes            appended to episodes.jsonl and synced as soon as their round is over
    controller.json     which rounds were alive, for each of the last steps
    checkpoint          weights, optimizer, step counter and the step's metrics: tmp, then rename
    metrics.jsonl       one line a step, rewritten from the checkpoint when the kill fell between

A resumed run repeats the rounds that no step on disk consumed. Their draws are functions of seed,
number and bugs of rounds that were consumed when they began, so the repetition plays the same;
episodes of the first try stay in the log under the same ids with a lower `try`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from selfplay.config.curriculum import MAX_AGE
from selfplay.curriculum.groups.measures import per_minute
from selfplay.curriculum.rounds.age import young_enough
from selfplay.curriculum.rounds.engine import Engine
from selfplay.curriculum.rounds.ledger import Ledger, Round
from selfplay.curriculum.rounds.state import read_state, write_state
from selfplay.curriculum.rounds.tripwires import Tripwires
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.curriculum.step import Report, StepResult, of_one_step, step_metrics
from selfplay.errors import InfrastructureError, PolicyError, UserError
from selfplay.learning import Learner
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import MetricsLog, joined, within

log = logging.getLogger(__name__)

Play = Callable[[Round, RolloutContext, Report], StepResult]
"""Plays one round to its end, in a thread of its own; its report names the phase that begins."""

MAX_TRIES = 3
"""Of a round that faults of the machine end, those of the engine aside: it tries by itself."""


class Watcher(Protocol):
    """Shows a run to a person. Called by several threads; never raises."""

    def phase(self, step: int, name: str) -> None:
        """A phase of a round (its number), or of the step that learns, begins."""

    def round_done(self, number: int, result: StepResult) -> None:
        """A round is over and on disk; it waits for its step."""

    def step_done(self, step: int, row: Mapping[str, float]) -> None: ...

    def evaluating(self, when: str, done: int, total: int) -> None:
        """An evaluation before or after training moves on."""


class Controller:
    """Runs steps `start .. stop - 1` and leaves a committed run directory after each."""

    def __init__(
        self,
        *,
        run_dir: RunDir,
        play: Play,
        context: RolloutContext,
        learner: Learner | None,
        metrics: MetricsLog,
        watcher: Watcher,
        max_idle_steps: int,
        alarms: Tripwires | None = None,
        rounds_per_step: int = 1,
        max_staleness: int = 0,
        max_age: int = MAX_AGE,
    ) -> None:
        self._run_dir = run_dir
        self._play = play
        self._context = context
        self._learner = learner
        self._metrics = metrics
        self._watcher = watcher
        self._max_idle_steps = max_idle_steps
        self._alarms = alarms
        self._per_step = rounds_per_step
        self._num_slots = (max_staleness + 1) * rounds_per_step
        self._max_age = max_age
        self._writing = threading.Lock()

    def run(self, start: int, stop: int, deadline: float | None = None) -> int:
        """Steps that are on disk in the end: `stop`, or fewer where one more, as long as the
        longest so far, would end after `deadline` (of `time.monotonic`).

        Raises `UserError` when nothing can be learned for `max_idle_steps` steps on end.
        """
        return asyncio.run(self._steps(start, stop, deadline))

    async def _steps(self, start: int, stop: int, deadline: float | None) -> int:
        ledger = read_state(self._run_dir, start, self._num_slots, self._per_step, self._alarms)
        idle, longest = 0, 0.0
        async with _Rounds(self, ledger, stop * self._per_step) as rounds:
            for step in range(start, stop):
                began = time.monotonic()
                if deadline is not None and began + longest > deadline:
                    return step
                row = await self._step(step, rounds)
                longest = max(longest, time.monotonic() - began)
                idle = idle + 1 if row["learner/groups_trained"] == 0 else 0
                if self._learner is not None and idle >= self._max_idle_steps:
                    raise _idle(step, idle)
        return max(start, stop)

    async def _step(self, step: int, rounds: _Rounds) -> dict[str, float]:
        """Take the rounds of one step and learn from them; its metrics row after everything is on
        disk."""
        began = time.monotonic()
        clock, pool = self._context.clock, self._context.pool
        sampled_s, waited_s = clock.policy_s, pool.waited_s
        finished = await rounds.take(self._per_step)
        result = of_one_step(list(finished.values()))
        played_s = time.monotonic() - began
        shares = {
            "play/sampling_s": clock.policy_s - sampled_s,
            "play/sandbox_s": pool.waited_s - waited_s,
        }
        self._watcher.phase(step, "learn")
        learning = time.monotonic()
        learned = {"groups_trained": 0.0}
        late: dict[str, float] = {}
        if self._learner is not None:
            version = self._learner.policy.version
            groups, num_old = young_enough(result.groups, version, self._max_age)
            learner = self._learner
            learned = await rounds.engine.between_calls(lambda: learner.step(groups))
            if self._num_slots > self._per_step:
                late = {"learner/num_dropped_age": float(num_old)}
        step_s = time.monotonic() - began
        counts = step_metrics(result)
        shares["learner/wall_s"] = time.monotonic() - learning
        shares["play/other_s"] = max(0.0, step_s - sum(shares.values()))
        times = {"play/wall_s": played_s, "curriculum/step_s": step_s, **per_minute(counts, step_s)}
        row = joined(counts, within("learner", learned), times, shares, late)
        told = self._alarms.check(step, row, result) if self._alarms else []
        if self._alarms:
            row["curriculum/num_alarms"] = float(len(self._alarms.tripped))
        rounds.ledger.consume(finished)
        write_state(self._run_dir, step, rounds.ledger, self._alarms)
        if self._learner is not None:
            self._watcher.phase(step, "save")
            learner, run_dir = self._learner, self._run_dir
            await rounds.engine.between_calls(lambda: learner.save(run_dir, step, row))
        self._metrics.log(step, row)
        for line in told:
            log.warning("%s", line)
        self._watcher.step_done(step, row)
        return row

    def play(self, round_: Round, context: RolloutContext) -> StepResult:
        """One round to its end; its episodes are on disk when this returns."""

        def report(phase: str) -> None:
            self._watcher.phase(round_.number, phase)

        result = self._play(round_, context, report)
        with self._writing:
            self._run_dir.append_episodes(result.episodes)
        self._watcher.round_done(round_.number, result)
        return result

    @property
    def context(self) -> RolloutContext:
        """What rounds are played with."""
        return self._context


def _idle(step: int, idle: int) -> UserError:
    return UserError(
        f"stopped at step {step}: for {idle} steps no peer group had both outcomes, so "
        "nothing can be learned; start from a warm-started policy (policy.adapter) or "
        "choose easier repositories (repos.train); resume continues from here"
    )


class _Rounds:
    """The rounds that are alive, each a task that waits for its thread."""

    def __init__(self, controller: Controller, ledger: Ledger, limit: int) -> None:
        self._controller = controller
        self.ledger = ledger
        self._limit = limit
        self.engine = Engine(controller.context.policy)
        self._context = replace(controller.context, policy=self.engine.policy)
        self._threads = ThreadPoolExecutor(ledger.num_slots, thread_name_prefix="round")
        self._playing: dict[asyncio.Task[StepResult], Round] = {}
        self._finished: dict[Round, StepResult] = {}

    async def __aenter__(self) -> _Rounds:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Rounds that are not over are left, to be begun again; their threads end."""
        self.engine.close()
        self._controller.context.pool.drop_waiting()
        self._threads.shutdown(cancel_futures=True)
        for task in self._playing:
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    async def take(self, number: int) -> dict[Round, StepResult]:
        """The first rounds that are finished, the lowest numbers first; those that have a slot
        begin. Raises what a round raises."""
        while True:
            while round_ := self.ledger.begin(self._limit):
                self._playing[asyncio.create_task(self._play(round_))] = round_
            if len(self._finished) >= number:
                break
            done, _ = await asyncio.wait(self._playing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                self._finished[self._playing.pop(task)] = task.result()
        taken = sorted(self._finished)[:number]
        return {round_: self._finished.pop(round_) for round_ in taken}

    async def _play(self, round_: Round) -> StepResult:
        """A round, again after a fault of the machine: what it stores twice is stored once."""
        loop = asyncio.get_running_loop()
        for number in range(1, MAX_TRIES + 1):
            try:
                return await loop.run_in_executor(
                    self._threads, self._controller.play, round_, self._context
                )
            except PolicyError:
                raise
            except InfrastructureError as error:
                if number == MAX_TRIES:
                    raise
                log.warning("round %d is played again: %s", round_.number, error)
        raise AssertionError("unreachable")
