"""What is kept, replayed and grown: a real corpus, real bugs, real validations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfplay.bug_sources.higher_order import bug_order
from selfplay.config import CurriculumConfig
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.curriculum import Curriculum
from selfplay.curriculum.injecting import Injection, InjectionOutcome
from selfplay.curriculum.scaffold import Rollout, RolloutContext
from selfplay.curriculum.solving import Attempt, SolveOutcome
from selfplay.curriculum.step import step_metrics
from selfplay.types import InjectionTask, SolveTask, Target

from .conftest import MakeGame
from .game import (
    BUG_FORMAT,
    BUG_ROUND,
    FIX_FORMAT,
    FIX_ROUND,
    NOTHING,
    OTHER_ROUND,
    REPO,
    WORSE_FORMAT,
)

SILENT = Rollout(trajectory=None, answer="", status="completed", policy_version=0)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with Corpus(tmp_path / "corpus.sqlite") as opened:
        yield opened


SHAPE = CurriculumConfig(min_solve_groups=4, higher_order=1)


@pytest.fixture
def curriculum(corpus: Corpus, context: RolloutContext, tmp_path: Path) -> Curriculum:
    """Replays up to four groups; nothing is drawn in these tests."""
    return Curriculum(
        corpus=corpus,
        folder=tmp_path,
        sampler=object(),  # type: ignore[arg-type]  # nothing is drawn here
        repo_contexts=context.repo_contexts,
        shape=SHAPE,
    )


def injection(task: SolveTask | None) -> Injection:
    outcome = InjectionOutcome(reason="valid" if task else "no_change", solve_task=task)
    asked = InjectionTask(
        task_id="g/0", repo=REPO, strategy="direct", target=Target(path="a.py", function="f")
    )
    return Injection(task=asked, rollout=SILENT, outcome=outcome)


def attempts(task: SolveTask, outcomes: Sequence[bool | None]) -> list[Attempt]:
    """Attempts that resolved, did not, or were errored (None)."""
    return [
        Attempt(
            task=task,
            rollout=SILENT,
            outcome=SolveOutcome(
                reason="", resolved=bool(resolved), errored=resolved is None, patch="x"
            ),
        )
        for resolved in outcomes
    ]


def tried(
    curriculum: Curriculum, task: SolveTask, outcomes: Sequence[bool | None], *steps: int
) -> None:
    """A bug of step 0 with the same outcomes in each of `steps`."""
    curriculum.keep_bugs([injection(task)], 0)
    for step in steps:
        curriculum.keep_attempts([attempts(task, outcomes)], step)


def test_a_bug_is_stored_once_and_its_files_with_it(
    curriculum: Curriculum, bugs: dict[str, SolveTask], tmp_path: Path
) -> None:
    first, second = bugs["round_to"], bugs["compound"]
    found = [injection(t) for t in (first, None, second, first)]
    new, duplicates = curriculum.keep_bugs(found, 0)
    assert list(new) == [first.bug_id, second.bug_id] and duplicates == set()
    assert new[first.bug_id] == first
    assert {p.name for p in (tmp_path / "artifacts").iterdir()} == set(new)
    stored = curriculum.corpus.bug(first.bug_id)
    assert stored is not None
    assert (stored.origin, stored.strategy, stored.step) == ("model", "direct", 0)
    assert stored.target == Target(path="a.py", function="f")


def test_an_earlier_step_makes_a_duplicate_a_repeated_one_does_not(
    curriculum: Curriculum, bugs: dict[str, SolveTask]
) -> None:
    task = bugs["round_to"]
    curriculum.keep_bugs([injection(task)], 3)
    again, none = curriculum.keep_bugs([injection(task)], 3)
    assert list(again) == [task.bug_id] and none == set()
    nothing, duplicates = curriculum.keep_bugs([injection(task), injection(task)], 4)
    assert nothing == {} and duplicates == {task.bug_id}
    assert curriculum.corpus.num_bugs() == 1


def test_attempts_count_once_however_often_a_step_is_repeated(
    curriculum: Curriculum, bugs: dict[str, SolveTask]
) -> None:
    task = bugs["round_to"]
    tried(curriculum, task, (True, False, None, False), 0, 0, 0)
    rows = curriculum.corpus.attempts(task.bug_id)
    assert [r["episode_id"] for r in rows] == [f"step0/solver/{task.bug_id}/{i}" for i in range(4)]
    assert [r["errored"] for r in rows] == [False, False, True, False]
    assert curriculum.corpus.solve_rates() == {task.bug_id: pytest.approx(1 / 3)}


def test_replays_are_what_is_neither_always_nor_never_solved(
    curriculum: Curriculum, bugs: dict[str, SolveTask]
) -> None:
    outcomes = {
        "round_to": (False, False),  # 0: never
        "format_cents": (True, True),  # 1: always
        "compound": (True, False),  # 0.5
        "Book.balance": (True, True, True, False),  # 0.75: above the bound
        "Book.accounts": (None, None),  # nobody judged it
    }
    for name, found in outcomes.items():
        tried(curriculum, bugs[name], found, 0)
    assert curriculum.replays(1, 0) == [bugs["compound"]]
    wide = replace(
        curriculum, shape=replace(SHAPE, min_solve_groups=9, replay_low=0.0, replay_high=1.0)
    )
    assert {t.bug_id for t in wide.replays(1, 0)} == {
        bugs[name].bug_id for name in outcomes if name != "Book.accounts"
    }
    exact = replace(
        curriculum, shape=replace(SHAPE, min_solve_groups=9, replay_low=0.5, replay_high=0.75)
    )
    assert {t.bug_id for t in exact.replays(1, 0)} == {
        bugs["compound"].bug_id, bugs["Book.balance"].bug_id,
    }  # fmt: skip
    once = replace(curriculum, shape=replace(SHAPE, max_replays=1))
    tried(curriculum, bugs["compound"], (True, False), 1)
    assert curriculum.replays(2, 0) == [bugs["compound"]] and once.replays(2, 0) == []


def test_the_least_attempted_come_first(curriculum: Curriculum, bugs: dict[str, SolveTask]) -> None:
    times = {"round_to": 3, "compound": 1, "Book.balance": 2}
    for name, number in times.items():
        tried(curriculum, bugs[name], (True, False), *range(number))
    order = [bugs[name] for name in ("compound", "Book.balance", "round_to")]
    assert curriculum.replays(5, 0) == order
    assert curriculum.replays(5, 2) == order[:2], "two groups are new: two places are left"
    assert curriculum.replays(5, 4) == [] and curriculum.replays(5, 9) == []


def test_untried_children_come_before_all_others(
    curriculum: Curriculum, bugs: dict[str, SolveTask]
) -> None:
    parent, child = bugs["round_to"], bugs["format_cents"]
    tried(curriculum, parent, (True, False), 0)
    tried(curriculum, bugs["compound"], (True, False), 0)
    where = Target(path="a.py", function="g")
    curriculum.corpus.add_bug(
        child, origin="model", strategy="direct", target=where, step=1, parent=parent.bug_id
    )
    assert child not in curriculum.replays(1, 0), "it is of this very step"
    assert curriculum.replays(2, 0)[0] == child
    assert curriculum.replays(2, 3) == [child]
    curriculum.keep_attempts([attempts(child, (False, False))], 2)
    assert curriculum.replays(2, 0)[0] == child, "step 2 itself is played again as it was"
    assert child not in curriculum.replays(3, 0), "tried, and never solved"


def test_replays_of_a_step_depend_on_earlier_steps_alone(
    curriculum: Curriculum, bugs: dict[str, SolveTask]
) -> None:
    tried(curriculum, bugs["round_to"], (True, False), 0)
    before = curriculum.replays(1, 0)
    curriculum.keep_bugs([injection(bugs["compound"])], 1)
    curriculum.keep_attempts([attempts(bugs["compound"], (True, False))], 1)
    curriculum.keep_attempts([attempts(bugs["round_to"], (True, True, True, True))], 1)
    assert curriculum.replays(1, 0) == before == [bugs["round_to"]]
    assert curriculum.replays(2, 0) == [bugs["compound"]]


def test_min_solve_groups_fills_up_with_replays(game: MakeGame) -> None:
    """A step with one new bug and room for two groups replays one; with room for one, none."""
    played = game(
        functions=("round_to", "format_cents"), inject=[BUG_ROUND, BUG_FORMAT],
        solve=[FIX_ROUND, NOTHING], group_size=2, min_solve_groups=2,
    )  # fmt: skip
    seen = [played.play(step) for step in range(6)]
    for step, result in enumerate(seen):
        old = played.corpus.replay_candidates(before_step=step, low=0.05, high=0.7)
        assert len(result.attempts) == max(result.num_new, min(2, result.num_new + len(old)))
    assert any(result.num_new == 0 and result.attempts for result in seen)


def test_a_failed_fix_grows_into_a_bug_that_is_solved_in_the_next_step(game: MakeGame) -> None:
    """The attempt leaves the sign as it is and cuts groups of two digits: more tests fail."""
    played = game(
        functions=("format_cents",), inject=[BUG_FORMAT], solve=[NOTHING, WORSE_FORMAT],
        group_size=2, min_solve_groups=1, higher_order=1,
    )  # fmt: skip
    first = played.play(0)
    assert (first.num_new, first.num_grown) == (1, 1)
    parent, child = played.corpus.bugs()
    assert (child.parent, child.step, child.strategy) == (parent.task.bug_id, 0, "direct")
    assert bug_order(child.task.artifact) == 2
    assert set(parent.task.fail_to_pass) < set(child.task.fail_to_pass)
    assert (played.run_dir.path / "artifacts" / child.task.bug_id).is_dir()
    assert step_metrics(first)["curriculum/num_higher_order"] == 1.0
    second = played.play(1)
    (group,) = second.attempts
    assert {a.task.bug_id for a in group} == {child.task.bug_id}
    assert second.num_grown == 0, "never beyond order 2"
    assert len(played.corpus.bugs()) == 2


@pytest.mark.parametrize("higher_order", [0, 1])
def test_growth_is_bounded_by_the_rule(game: MakeGame, higher_order: int) -> None:
    played = game(
        functions=("format_cents",),
        inject=[BUG_FORMAT],
        solve=[WORSE_FORMAT],
        higher_order=higher_order,
    )
    assert played.play(0).num_grown == higher_order


def test_what_fails_the_same_tests_as_a_known_bug_does_not_grow(game: MakeGame) -> None:
    """Another wrong multiple: round_to's one test fails, as it did before."""
    played = game(solve=[OTHER_ROUND], higher_order=2)
    assert played.play(0).num_grown == 0
    assert len(played.corpus.bugs()) == 1


def test_only_a_judged_failure_with_a_patch_grows(game: MakeGame) -> None:
    played = game(functions=("format_cents",), inject=[BUG_FORMAT], solve=[WORSE_FORMAT])
    (group,) = played.play(0).attempts
    grows = replace(played.curriculum, shape=replace(played.shape, higher_order=1))
    pool = played.context.pool
    for change in ({"errored": True}, {"resolved": True}, {"patch": ""}):
        other = replace(group[0], outcome=replace(group[0].outcome, **change))
        assert grows.grow([[other]], 0, pool) == 0, change
    assert grows.grow([[]], 0, pool) == 0
    assert grows.grow([[replace(group[0])]], 0, pool) == 1
    assert grows.grow([[replace(group[0])]], 0, pool) == 1, "a repeated step finds its own child"
    assert len(played.corpus.bugs()) == 2


def test_a_child_that_is_resolved_is_mended_in_both_places(game: MakeGame) -> None:
    """Mending the first bug of a second-order bug is not enough."""
    played = game(
        functions=("format_cents",), inject=[BUG_FORMAT], solve=[WORSE_FORMAT, FIX_FORMAT],
        group_size=1, min_solve_groups=1, higher_order=1,
    )  # fmt: skip
    played.play(0)
    ((attempt,),) = played.play(1).attempts
    assert not attempt.outcome.resolved and attempt.outcome.reason.startswith("fail_to_pass")


def test_known_bugs_of_a_draw_are_planted_ones_of_earlier_steps(
    game: MakeGame, bugs: dict[str, SolveTask]
) -> None:
    """What "combine" puts together: no child, nothing of this step, nothing of another repo."""
    played = game()
    corpus, where = played.corpus, Target(path="a.py", function="f")
    keys = {"origin": "model", "strategy": "direct", "target": where}
    corpus.add_bug(bugs["round_to"], step=0, **keys)  # type: ignore[arg-type]
    corpus.add_bug(bugs["compound"], step=0, parent=bugs["round_to"].bug_id, **keys)  # type: ignore[arg-type]
    corpus.add_bug(bugs["Book.balance"], step=1, **keys)  # type: ignore[arg-type]
    seen: list[list[str]] = []

    class Listening:
        wanted = played.curriculum.sampler.wanted

        def draw(self, step, counts, known_bugs, *more):  # type: ignore[no-untyped-def]
            seen.append([a.bug_patch for a in known_bugs(REPO)])
            assert list(known_bugs("another")) == []
            return []

    asked = replace(played.curriculum, sampler=Listening())  # type: ignore[arg-type]
    asked.draw(1)
    asked.draw(2)
    first, second = (bugs[n].artifact.bug_patch for n in ("round_to", "Book.balance"))
    assert seen == [[first], [first, second]]


def test_draws_of_a_step_depend_on_earlier_steps_alone(
    game: MakeGame, bugs: dict[str, SolveTask]
) -> None:
    """Bugs and attempts of a try that was killed have no part in the one that repeats it."""
    played = game(
        functions=("round_to", "format_cents"), seeds_per_group=8, num_groups=2, solve=[NOTHING]
    )
    before = played.curriculum.draw(1)
    where = Target(path="ledger/money.py", function="round_to")
    for name, step in (("round_to", 1), ("compound", 2)):
        task = bugs[name]
        hinted = replace(task, artifact=replace(task.artifact, meta={"hint": "condition"}))
        played.corpus.add_bug(hinted, origin="model", strategy="direct", target=where, step=step)
        played.curriculum.keep_attempts([attempts(task, (True, False) * 20)], step)
    assert played.curriculum.draw(1) == before
    later = [task.target.function for s in range(3, 9) for task in played.curriculum.draw(s)]
    assert later.count("round_to") / len(later) < 0.25, "two bugs there weigh 1 to 9"


def test_real_bugs_have_their_share_and_take_turns(
    game: MakeGame, bugs: dict[str, SolveTask]
) -> None:
    played = game(solve=[FIX_ROUND, NOTHING], group_size=2, min_solve_groups=1, human_share=0.5)
    human = (bugs["compound"], bugs["Book.balance"])
    played.curriculum = replace(played.curriculum, human=human)
    assert len(played.curriculum.human_bugs(0, 2)) == 2
    assert len(played.curriculum.human_bugs(0, 1)) == 1 and played.curriculum.human_bugs(0, 0) == []
    names: list[str] = []
    for step in range(2):
        result = played.play(step)
        (group,) = [g for g in result.attempts if g[0].task in human]
        names.append(group[0].task.bug_id)
        assert len(result.attempts) == 2 and result.num_fresh <= 1
    assert sorted(names) == sorted(task.bug_id for task in human), "each once"
    origins = played.corpus.counts_by("origin")
    assert origins["mined"] == 2 and played.curriculum.replays(2, 0)[0] not in human


def test_given_tasks_are_played_alone_and_in_turn_however_alike(
    game: MakeGame, bugs: dict[str, SolveTask]
) -> None:
    """Without an injector nothing is drawn, replayed or grown. Two tasks with the same change are
    two tasks: who gave them knows why (their attempts had nowhere to be stored)."""
    played = game(solve=[FIX_ROUND, NOTHING], group_size=2, min_solve_groups=4, num_tasks=2)
    task = bugs["compound"]
    given = (task, replace(task, bug_id="again"), bugs["Book.balance"])
    played.curriculum = replace(played.curriculum, sampler=None, human=given)
    names: list[str] = []
    for step in range(3):
        result = played.play(step)
        assert not result.injections and result.num_grown == result.num_fresh == 0
        names += [group[0].task.bug_id for group in result.attempts]
    assert len(names) == 6 and len(set(names[:3])) == len(set(names[3:])) == 3
    assert all(len(played.corpus.attempts(task.bug_id)) == 4 for task in given)
    assert played.corpus.counts_by("origin") == {"given": 3}
    assert played.corpus.counts_by("repo", planted=True) == {}
