"""Slots, ages and the engine that all rounds share; the controller's state after a kill."""

from __future__ import annotations

import asyncio
import runpy
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError

import pytest

from selfplay.config import CurriculumConfig
from selfplay.curriculum.rounds.age import young_enough
from selfplay.curriculum.rounds.engine import Engine
from selfplay.curriculum.rounds.ledger import Ledger, Round
from selfplay.errors import PolicyError, UserError
from selfplay.sampling import SampleRequest, ScoreRequest, ScoringPolicy
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import Completion, PeerGroup, Trajectory

from .conftest import MakeGame
from .game import BUG_FORMAT, BUG_ROUND, FIX_ROUND, NOTHING


def begin_all(ledger: Ledger, limit: int = 99) -> list[tuple[int, int]]:
    found = []
    while round_ := ledger.begin(limit):
        found.append((round_.number, round_.before))
    return found


def test_a_slot_covers_a_round_until_it_is_consumed() -> None:
    """The example of the module."""
    ledger = Ledger(num_slots=4)
    assert begin_all(ledger) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    ledger.consume([ledger.alive[1], ledger.alive[2]])
    assert begin_all(ledger) == [(4, 0), (5, 0)]
    ledger.consume([ledger.alive[0], ledger.alive[3]])
    assert begin_all(ledger) == [(6, 4), (7, 4)]
    assert ledger.floor == 4


def test_rounds_that_were_alive_begin_again_as_they_were() -> None:
    ledger = Ledger(num_slots=3)
    begin_all(ledger)
    ledger.consume([ledger.alive[1]])
    begin_all(ledger)
    stored = ledger.to_json()
    assert stored == {"next": 4, "begun": [[0, 0], [2, 0], [3, 0]]}
    again = Ledger.from_json(2, stored)
    assert again.floor == 0
    assert begin_all(again) == [(0, 0), (2, 0)], "fewer slots now"
    again.consume(list(again.alive.values()))
    assert begin_all(again, limit=5) == [(3, 0), (4, 3)]
    again.consume(list(again.alive.values()))
    assert begin_all(again, limit=5) == [], "no more are wanted"


def trajectory(version: int) -> Trajectory:
    return Trajectory(
        token_ids=(1, 2), loss_mask=(0, 1), logprobs=(0.0, -1.0), policy_version=version
    )


def test_old_samples_are_dropped_and_counted() -> None:
    groups = [
        PeerGroup(group_id="a", trajectories=(trajectory(1), trajectory(5)), rewards=(1.0, 0.0)),
        PeerGroup(group_id="b", trajectories=(trajectory(0),), rewards=(1.0,)),
        PeerGroup(group_id="c", trajectories=(trajectory(6),), rewards=(1.0,)),
    ]
    kept, num_dropped = young_enough(groups, 6, max_age=2)
    assert [(g.group_id, g.rewards) for g in kept] == [("a", (0.0,)), ("c", (1.0,))]
    assert num_dropped == 2 and kept[1] is groups[2]
    assert young_enough(groups, 6, max_age=6) == (groups, 0)


class Slow:
    """Answers when it may; remembers what it was asked together."""

    def __init__(self) -> None:
        self.version = 0
        self.tokenizer = ByteTokenizer()
        self.may, self.began = threading.Event(), threading.Event()
        self.calls: list[list[int]] = []

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        self.calls.append([r.seed for r in requests])
        self.began.set()
        assert self.may.wait(10)
        if any(r.seed < 0 for r in requests):
            raise PolicyError("no")
        return [
            [Completion(token_ids=(r.seed,), logprobs=(0.0,), text="", finish_reason="stop",
                        policy_version=self.version)]
            for r in requests
        ]  # fmt: skip


class Scoring(Slow):
    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        return [(float(r.prompt_ids[0]),) for r in requests]


def asked(*seeds: int) -> list[SampleRequest]:
    return [SampleRequest(prompt_ids=(1,), seed=seed) for seed in seeds]


def test_what_waits_for_the_engine_is_answered_together() -> None:
    policy = Slow()
    engine = Engine(policy)

    async def ask() -> list[list[int]]:
        first = asyncio.create_task(engine.sample(asked(1)))
        await asyncio.to_thread(policy.began.wait)
        others = [asyncio.create_task(engine.sample(asked(*s))) for s in ((2, 3), (4,))]
        await asyncio.sleep(0.05)
        learned = asyncio.create_task(engine.between_calls(lambda: len(policy.calls)))
        policy.may.set()
        answers = await asyncio.gather(first, *others)
        assert await learned == 2, "the learner's turn came after all that waited before it"
        return [[group[0].token_ids[0] for group in groups] for groups in answers]

    assert asyncio.run(ask()) == [[1], [2, 3], [4]]
    assert policy.calls == [[1], [2, 3, 4]]
    engine.close()


def test_an_error_of_the_engine_reaches_all_that_it_answered() -> None:
    policy = Slow()
    policy.may.set()
    engine = Engine(policy)
    with pytest.raises(PolicyError):
        engine.policy.sample(asked(-1))
    assert len(engine.policy.sample(asked(1))) == 1
    engine.close()
    with pytest.raises(CancelledError):
        engine.policy.sample(asked(1))


def test_a_shared_policy_is_what_the_policy_is() -> None:
    plain, scoring = Engine(Slow()), Engine(Scoring())
    assert not isinstance(plain.policy, ScoringPolicy)
    assert isinstance(scoring.policy, ScoringPolicy)
    assert scoring.policy.score([ScoreRequest(prompt_ids=(3,), answer_ids=(1,))]) == [(3.0,)]
    scoring.inner.version = 7
    assert scoring.policy.version == 7 and scoring.policy.tokenizer is scoring.inner.tokenizer
    plain.close()
    scoring.close()


@pytest.mark.parametrize("staleness", [-1, 9])
def test_the_limit_of_staleness(staleness: int) -> None:
    with pytest.raises(UserError, match="max_staleness"):
        CurriculumConfig(max_staleness=staleness)


def test_rounds_ahead_learn_in_the_end_what_they_played(game: MakeGame) -> None:
    """Real rounds, two ahead: each step on disk, ages within the bound, no replay twice at once."""
    played = game(
        inject=[BUG_ROUND, BUG_FORMAT, NOTHING], functions=("round_to", "format_cents"),
        solve=[FIX_ROUND, NOTHING], group_size=2, min_solve_groups=1, learner=True,
        max_idle_steps=9, max_staleness=2,
    )  # fmt: skip
    assert played.controller.run(0, 6) == 6
    rows = played.rows()
    assert [row["step"] for row in rows] == list(range(6))
    assert all(row["learner/num_dropped_age"] == 0 for row in rows)
    episodes = list(played.run_dir.read_episodes())
    assert {e.info["step"] for e in episodes} == set(range(6)), "each round once"
    assert len({e.episode_id for e in episodes}) == len(episodes)
    state = played.run_dir.read_json("controller.json")
    assert state["steps"]["5"] == {"next": 6, "begun": []}


def test_a_bug_is_replayed_by_one_round_at_a_time(game: MakeGame) -> None:
    played = game(solve=[FIX_ROUND, NOTHING], group_size=2, min_solve_groups=1)
    played.play(0)
    curriculum = played.curriculum
    (bug,) = curriculum.replays(1, 0, before=1)
    assert curriculum.replays(2, 0, before=1) == [], "round 1 is at it"
    assert curriculum.replays(1, 0, before=1) == [bug], "a round that is played again"
    assert curriculum.replays(3, 0, before=2) == [bug], "round 1 is over"


def test_a_round_knows_what_was_consumed_when_it_began(game: MakeGame) -> None:
    played = game()
    assert Round(number=1, before=0) < Round(number=2, before=0)
    before = played.curriculum.draw(3, before=0)
    played.play(0)
    assert played.curriculum.draw(3, before=0) == before


def test_the_simulation_of_rounds_ahead() -> None:
    """Without rounds ahead a step is the sum of its phases; with some, all apart, the longest."""
    simulate = runpy.run_path("scripts/simulate_rounds.py")["simulate"]
    seconds = {"engine": 4.0, "sandboxes": 2.0, "learner": 3.0}
    assert simulate(seconds, "learner", 0, 50) == (50 * 9.0, 0)
    whole, oldest = simulate(seconds, "learner", 2, 200)
    assert whole / 200 == pytest.approx(4.0, rel=0.05) and 1 <= oldest <= 2
    shared, _ = simulate(seconds, "engine", 2, 200)
    assert shared / 200 == pytest.approx(7.0, rel=0.05)
