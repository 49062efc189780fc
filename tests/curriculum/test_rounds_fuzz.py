"""Hundreds of rounds with delays, faults and kills in every part of the real controller."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from selfplay.config import MetricsConfig
from selfplay.curriculum import controller as controller_module
from selfplay.curriculum.controller import Controller
from selfplay.curriculum.rounds.ledger import Ledger, Round
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.step import Report, StepResult
from selfplay.errors import PolicyError, SandboxError
from selfplay.learning import Restored
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import MetricsLog
from selfplay.sampling import SampleRequest
from selfplay.sandbox.base import Sandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import Completion, Episode, PeerGroup, Trajectory

SHAPES = [(1, 0, 8), (3, 0, 8), (1, 1, 8), (2, 2, 2), (1, 8, 8), (4, 3, 1)]
"""(rounds of a step, max_staleness, limit of the age)."""
ROUNDS_OF_EACH = 96
PATIENCE_S = 300.0


class Killed(BaseException):
    """The process ends here."""


class Chaos:
    """Delays everywhere; where `armed`, faults and kills, too."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self.armed = True
        self.num_faults = self.num_kills = 0

    def point(self, fault: Callable[[str], Exception] | None = None) -> None:
        with self._lock:
            draw, delay = self._rng.random(), 0.002 * self._rng.random()
            straggles = self._rng.random() < 0.01
            kill = self.armed and draw < 0.004
            fail = self.armed and fault is not None and draw > 0.985
            self.num_kills += kill
            self.num_faults += fail
        time.sleep(0.15 if straggles else delay)
        if kill:
            raise Killed
        if fail and fault is not None:
            raise fault("chaos")


class Answers:
    """Each prompt is answered; the engine fails now and then. Never asked by two threads."""

    def __init__(self, chaos: Chaos) -> None:
        self.version = 0
        self.tokenizer = ByteTokenizer()
        self.chaos = chaos
        self.busy = threading.Lock()

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        assert self.busy.acquire(blocking=False), "the engine was asked while it computed"
        try:
            version = self.version
            self.chaos.point(PolicyError if self.chaos._rng.random() < 0.2 else None)
            assert self.version == version, "weights changed under a call"
            return [[self._answer(request)] for request in requests]
        finally:
            self.busy.release()

    def _answer(self, request: SampleRequest) -> Completion:
        return Completion(
            token_ids=request.prompt_ids, logprobs=(-0.5,) * len(request.prompt_ids), text="",
            finish_reason="stop", policy_version=self.version,
        )  # fmt: skip


class Pupil:
    """A learner whose weights are a number; its checkpoint names the rounds that it holds."""

    def __init__(self, policy: Answers, max_age: int, consumed: list[int]) -> None:
        self.policy = policy
        self.max_age = max_age
        self.consumed = consumed
        self.ages: list[int] = []

    def step(self, groups: Sequence[PeerGroup]) -> dict[str, float]:
        with self.policy.busy:
            self.policy.chaos.point()
            for group in groups:
                for trajectory in group.trajectories:
                    age = self.policy.version - trajectory.policy_version
                    assert 0 <= age <= self.max_age, f"a sample of age {age} is learned from"
                    self.ages.append(age)
            self.policy.version += 1
        return {"groups_trained": 1.0}

    def save(self, run_dir: RunDir, step: int, metrics: Mapping[str, float]) -> None:
        self.policy.chaos.point()
        run_dir.write_json("pupil.json", [step, self.policy.version, self.consumed, dict(metrics)])
        self.policy.chaos.point()

    def restore(self, run_dir: RunDir) -> Restored | None:
        stored = run_dir.read_json("pupil.json")
        step, self.policy.version, known, row = stored or [-1, 0, [], {}]
        self.consumed[:] = known
        return Restored(step=step, metrics=row) if stored else None

    def export(self, run_dir: RunDir, step: int) -> Path:
        return run_dir.path

    def dismiss(self) -> None:
        pass


class Silent:
    def phase(self, step: int, name: str) -> None: ...

    def round_done(self, number: int, result: StepResult) -> None: ...

    def step_done(self, step: int, row: Mapping[str, float]) -> None: ...

    def evaluating(self, when: str, done: int, total: int) -> None: ...


class NoSandbox:
    name = "none"

    def close(self) -> None: ...


class Players:
    """Plays rounds: sample, judge, sample again, judge; counts how many are played at once."""

    def __init__(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.alive: set[int] = set()
        self.most = 0
        self.lock = threading.Lock()

    def __call__(self, round_: Round, context: RolloutContext, report: Report) -> StepResult:
        with self.lock:
            assert round_.number not in self.alive, "played twice at once"
            self.alive.add(round_.number)
            self.most = max(self.most, len(self.alive))
        try:
            return self.play(round_, context)
        finally:
            with self.lock:
                self.alive.remove(round_.number)

    def play(self, round_: Round, context: RolloutContext) -> StepResult:
        prompt = tuple(str(round_.number).encode())
        trajectories = []
        for _ in range(2):
            self.chaos.point(SandboxError)
            ((answer,),) = context.policy.sample([SampleRequest(prompt_ids=prompt)])
            assert answer.token_ids == prompt, "another round's answer"
            context.pool.map(lambda _: self.chaos.point(SandboxError), range(2))
            trajectories.append(
                Trajectory(
                    token_ids=prompt,
                    loss_mask=(1,) * len(prompt),
                    logprobs=answer.logprobs,
                    policy_version=answer.policy_version,
                )
            )
        episodes = tuple(
            Episode(
                episode_id=f"step{round_.number}/solver/{i}",
                group_id=f"step{round_.number}",
                role="solver",
                repo="r",
                task_id="t",
                bug_id=None,
                status="completed",
                reward=float(i),
                reason="",
                trajectory=trajectory,
                answer="",
                policy_version=trajectory.policy_version,
                info={"step": round_.number},
            )
            for i, trajectory in enumerate(trajectories)
        )
        group = PeerGroup(
            group_id=f"step{round_.number}", trajectories=tuple(trajectories), rewards=(0.0, 1.0)
        )
        return StepResult(
            injections=(), attempts=(), episodes=episodes, groups=(group,), num_new=1,
            num_fresh=0, num_grown=0, probabilities={},
        )  # fmt: skip


@contextmanager
def watched(consumed: list[int], chaos: Chaos) -> Iterator[None]:
    """Every consumption is noted, and every write to disk may be the last one."""
    real_consume, real_write = Ledger.consume, controller_module.write_state
    real_log = MetricsLog.log

    def consume(self: Ledger, rounds: Any) -> None:
        real_consume(self, rounds)
        assert len(self.alive) <= self.num_slots
        consumed.extend(round_.number for round_ in rounds)

    def write(*words: Any) -> None:
        chaos.point()
        real_write(*words)
        chaos.point()

    def log(self: MetricsLog, step: int, row: Mapping[str, float]) -> None:
        chaos.point()
        real_log(self, step, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "consume", consume)
        patch.setattr(controller_module, "write_state", write)
        patch.setattr(MetricsLog, "log", log)
        yield


@pytest.mark.parametrize("shape", SHAPES)
def test_no_round_is_lost_or_counted_twice(shape: tuple[int, int, int], tmp_path: Path) -> None:
    per_step, max_staleness, max_age = shape
    steps = ROUNDS_OF_EACH // per_step
    chaos = Chaos(seed=sum(shape))
    policy, consumed = Answers(chaos), list[int]()
    pupil, players = Pupil(policy, max_age, consumed), Players(chaos)
    began = time.monotonic()

    def one_try() -> bool:
        with RunDir(tmp_path / "run") as run_dir:
            pool = SandboxPool(cast(Sandbox, NoSandbox()), num_workers=3)
            metrics = MetricsLog(run_dir, MetricsConfig(tensorboard=False))
            restored = pupil.restore(run_dir)
            start = restored.step + 1 if restored else 0
            metrics.truncate_after(start - 1)
            controller = Controller(
                run_dir=run_dir, play=players, learner=pupil, metrics=metrics, watcher=Silent(),
                context=RolloutContext(
                    policy=policy, scaffold=cast(Any, None), repo_contexts={}, pool=pool,
                    sampling=Sampling(),
                ),
                max_idle_steps=9, rounds_per_step=per_step, max_staleness=max_staleness,
                max_age=max_age,
            )  # fmt: skip
            try:
                if restored:
                    metrics.ensure(start - 1, restored.metrics)
                return controller.run(start, steps) == steps
            except (Killed, PolicyError, SandboxError):
                chaos.armed = time.monotonic() - began < PATIENCE_S / 10
                return False
            finally:
                assert not players.alive, "a round plays on"
                metrics.close()
                pool.close()

    with watched(consumed, chaos):
        while not one_try():
            assert time.monotonic() - began < PATIENCE_S
    assert sorted(consumed) == list(range(steps * per_step)), "each round once"
    slots = per_step * (max_staleness + 1)
    assert 1 <= players.most <= slots
    assert chaos.num_kills + chaos.num_faults > 0
    assert max_staleness or set(pupil.ages) == {0}
    with RunDir(tmp_path / "run") as run_dir:
        kept = [episode.episode_id for episode in run_dir.read_episodes()]
        rows = run_dir.read_metrics()
        state = run_dir.read_json("controller.json")["steps"][str(steps - 1)]  # type: ignore[index]
    assert sorted(kept) == sorted(
        f"step{number}/solver/{i}" for number in range(steps * per_step) for i in range(2)
    )
    assert [row["step"] for row in rows] == list(range(steps))
    assert {row["curriculum/num_new_bugs"] for row in rows} == {float(per_step)}
    assert state == {"next": steps * per_step, "begun": []}, "every slot is free"
    if max_age < max_staleness:
        assert sum(row["learner/num_dropped_age"] for row in rows) > 0
