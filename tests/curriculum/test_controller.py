"""The loop over steps: idle stop, deadlines, and what a kill between any two writes leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from selfplay.commands.summary import seconds
from selfplay.corpus import corpus as corpus_module
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.step import StepResult
from selfplay.errors import UserError
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import MetricsLog
from selfplay.sampling import SampleRequest
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import Completion

from .conftest import MakeGame
from .game import BUG_FORMAT, BUG_ROUND, FIX_ROUND, NOTHING, WORSE_FORMAT, Book, Game, Tally

TEACHES = {"solve": [FIX_ROUND, NOTHING], "group_size": 2, "min_solve_groups": 1}


class Killed(BaseException):
    """The process ends here."""


WRITES: list[tuple[Any, str]] = [
    (corpus_module, "write_artifact"),
    (Corpus, "add_bug"),
    (Corpus, "add_attempts"),
    (RunDir, "append_episodes"),
    (Tally, "save"),
    (MetricsLog, "log"),
]


@contextmanager
def killed_after(number: int | None) -> Iterator[list[str]]:
    """Every write is real; after the one of this number nothing more happens. Their names."""
    done: list[str] = []

    def counted(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def write(*words: Any, **keys: Any) -> Any:
            result = real(*words, **keys)
            done.append(name)
            if len(done) == number:
                raise Killed
            return result

        return write

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in WRITES:
            patch.setattr(owner, name, counted(getattr(owner, name), name))
        yield done


def resume(game: Game) -> int:
    """Begin again as `selfplay train` does; the step that is next."""
    game.close()
    if game.learner is not None:
        game.learner.num_steps = game.policy.version = 0
    game.open()
    restored = game.learner.restore(game.run_dir) if game.learner else None
    first = restored.step + 1 if restored else 0
    game.metrics.truncate_after(first - 1)
    if restored:
        game.metrics.ensure(first - 1, restored.metrics)
    game.policy.num_answered.clear()
    return first


def told(row: dict[str, float]) -> dict[str, float]:
    """A row without what the clock wrote."""
    return {name: value for name, value in row.items() if not name.endswith("_s")}


def left_behind(game: Game) -> dict[str, Any]:
    """All that a run leaves, but for times."""
    bugs = game.corpus.bugs()
    return {
        "bugs": [(b.task.bug_id, b.step, b.parent, b.solve_rate) for b in bugs],
        "attempts": {b.task.bug_id: game.corpus.attempts(b.task.bug_id) for b in bugs},
        "episodes": sorted(
            (e.episode_id, e.group_id, e.status, e.reward, e.reason, e.answer, e.policy_version)
            for e in game.run_dir.read_episodes()
        ),
        "rows": [told(row) for row in game.rows()],
        "trained": game.learner.num_steps if game.learner else 0,
        "artifacts": {path.name for path in game.run_dir.artifacts.iterdir()},
    }


def playing(make: MakeGame, name: str) -> Game:
    """A run whose bug grows a child, which later steps replay; each role's moves are the same in
    every step, so that a step that is repeated gets the answers that it had."""
    return make(
        name, functions=("format_cents",), inject=[BUG_FORMAT], solve=[NOTHING, WORSE_FORMAT],
        group_size=2, min_solve_groups=1, higher_order=1, learner=True, max_idle_steps=9,
    )  # fmt: skip


def test_a_kill_between_any_two_writes_changes_nothing(game: MakeGame) -> None:
    """Killed after every single write of two steps, resumed, and played to the end: the same
    episodes, the same corpus, one row a step, as many optimizer steps."""
    straight = playing(game, "straight")
    with killed_after(None) as writes:
        straight.controller.run(0, 2)
    want = left_behind(straight)
    assert len(want["bugs"]) == 2 and len(want["rows"]) == 2 and len(want["episodes"]) == 6
    assert {name for _, name in WRITES} == set(writes)
    for number in range(1, len(writes) + 1):
        played = playing(game, f"killed{number}")
        with killed_after(number) as done, pytest.raises(Killed):
            played.controller.run(0, 2)
        first = resume(played)
        played.controller.run(first, 2)
        assert left_behind(played) == want, f"killed after {done}"


def test_killed_twice_in_one_step_its_last_try_counts(game: MakeGame) -> None:
    played = playing(game, "twice")
    for _ in range(2):
        with killed_after(6), pytest.raises(Killed):
            played.controller.run(0, 1)
        assert resume(played) == 0
    played.controller.run(0, 1)
    lines = played.run_dir.episodes.read_text().splitlines()
    assert len(list(played.run_dir.read_episodes())) == 3
    assert len(lines) == 9, "earlier tries stay in the log"


def test_the_order_of_writes(game: MakeGame) -> None:
    """Bugs, attempts, children, episodes; then the optimizer; then checkpoint and row."""
    played = playing(game, "order")
    with killed_after(None) as writes:
        played.step(0)
    assert writes == [
        "write_artifact", "add_bug", "add_attempts", "write_artifact", "add_bug",
        "append_episodes", "save", "log",
    ]  # fmt: skip
    assert [name for _, name in played.watcher.phases] == [
        "inject", "solve", "learn", "save", "done",
    ]  # fmt: skip


def test_an_idle_run_stops_and_says_what_helps(game: MakeGame) -> None:
    """Always solved, then duplicates: no group ever has both outcomes."""
    played = game(learner=True, max_idle_steps=3)
    with pytest.raises(UserError) as stopped:
        played.controller.run(0, 9)
    assert str(stopped.value) == (
        "stopped at step 2: for 3 steps no peer group had both outcomes, so nothing can be "
        "learned; start from a warm-started policy (policy.adapter) or choose easier repositories "
        "(repos.train); resume continues from here"
    )
    assert [row["step"] for row in played.rows()] == [0, 1, 2], "the last step is on disk"
    assert resume(played) == 3


def test_a_step_that_teaches_begins_the_count_anew(game: MakeGame) -> None:
    """Nothing, nothing, a varied group, nothing, nothing: never three on end."""
    played = game(
        inject=[NOTHING, NOTHING, BUG_ROUND, NOTHING, NOTHING], learner=True, max_idle_steps=3,
        solve=[FIX_ROUND, NOTHING], group_size=2,
    )  # fmt: skip
    assert played.controller.run(0, 5) == 5
    assert [row["learner/groups_trained"] for row in played.rows()] == [0, 0, 1, 0, 0]
    assert played.learner is not None and played.learner.num_steps == 1


def test_without_a_learner_nothing_is_idle(game: MakeGame) -> None:
    played = game(max_idle_steps=1)
    assert played.controller.run(0, 3) == 3
    assert [row["learner/groups_trained"] for row in played.rows()] == [0.0] * 3


def test_the_learner_gets_the_groups_of_the_step_and_its_row_a_namespace(game: MakeGame) -> None:
    played = game(learner=True, **TEACHES)
    row = played.step(0)
    assert played.learner is not None
    (groups,) = played.learner.seen
    assert [(g.role, g.rewards) for g in groups] == [
        ("injector", (pytest.approx(0.1),)),
        ("solver", (1.0, -1.0)),
    ]
    sampled = sum(sum(e.trajectory.loss_mask) for e in played.run_dir.read_episodes())  # type: ignore[union-attr]
    assert (row["play/num_tokens"], row["learner/num_tokens"]) == (float(sampled), 1.0)
    spaces = {name.split("/")[0] for name in row}
    assert spaces == {"play", "injector", "solver", "curriculum", "learner"}
    assert played.rows() == [{"step": 0, **row}]
    assert 0 < row["play/wall_s"] <= row["curriculum/step_s"]


def test_episodes_of_the_next_step_are_of_the_new_weights(game: MakeGame) -> None:
    played = game(learner=True, **TEACHES)
    played.controller.run(0, 2)
    versions = {
        e.episode_id.split("/")[0]: e.policy_version for e in played.run_dir.read_episodes()
    }
    assert versions == {"step0": 0, "step1": 1}


def test_a_deadline_ends_the_run_between_two_steps(game: MakeGame) -> None:
    played = game(**TEACHES)
    assert played.controller.run(0, 3, deadline=time.monotonic() - 1.0) == 0
    assert not played.run_dir.metrics.exists()
    assert played.controller.run(0, 2, deadline=time.monotonic() + 3600.0) == 2
    assert played.controller.run(2, 2) == 2


def told_of(result: StepResult) -> list[tuple[Any, ...]]:
    return [
        (e.episode_id, e.bug_id, e.status, e.reward, e.reason, e.answer, e.trajectory)
        for e in result.episodes
    ]


@pytest.mark.parametrize("num_workers", [1, 4])
def test_a_run_does_not_depend_on_the_number_of_workers(game: MakeGame, num_workers: int) -> None:
    keys: dict[str, Any] = {
        "functions": ("round_to", "format_cents"),
        "inject": [BUG_ROUND, BUG_FORMAT, NOTHING],
        "solve": [FIX_ROUND, NOTHING, WORSE_FORMAT],
        "seeds_per_group": 3,
        "samples_per_seed": 2,
        "group_size": 3,
        "min_solve_groups": 2,
        "higher_order": 1,
    }
    two = game("two", **keys)
    pool = SandboxPool(two.context.pool.sandbox, num_workers=num_workers)
    other = game("other", **keys)
    other.context = replace(other.context, pool=pool)
    for step in range(3):
        assert told_of(two.play(step)) == told_of(other.play(step))
    assert two.bug_ids() == other.bug_ids()
    assert [b.parent for b in two.corpus.bugs()] == [b.parent for b in other.corpus.bugs()]


def test_a_row_says_where_the_seconds_of_its_step_went(game: MakeGame) -> None:
    class Slow(Book):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
            time.sleep(0.2)
            return super().sample(requests)

    played = game(**TEACHES, learner=True)
    played.policy.__class__ = Slow
    row = played.step(0)
    shares = [row[f"play/{name}_s"] for name in ("sampling", "sandbox", "other")]
    assert sum(shares) + row["learner/wall_s"] == pytest.approx(row["curriculum/step_s"], abs=1e-6)
    assert 0.4 <= row["play/sampling_s"] < row["curriculum/step_s"], "injections, then attempts"
    assert row["play/sandbox_s"] > 0.0 and row["play/other_s"] > 0.0
    assert seconds([row, row])["sampling"] == pytest.approx(2 * row["play/sampling_s"], abs=0.1)
