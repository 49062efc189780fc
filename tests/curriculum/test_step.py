"""One step of self-play, played for real: what is paid, what is a duplicate, what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.curriculum.compact import CompactScaffold
from selfplay.curriculum.scaffold import RepoContext
from selfplay.curriculum.step import StepResult, peer_groups, step_metrics
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Job, RunResult, Sandbox
from selfplay.types import Episode, Trajectory

from .conftest import MakeGame
from .game import (
    BUG_FORMAT,
    BUG_ROUND,
    FIX_ROUND,
    NOTHING,
    OTHER_ROUND,
    REPO,
    SCAFFOLD,
    UNNOTICED,
    of_role,
)

UNLIKE_GOLD = ("rest * 2 > step", "rest * 2 >= step + 0")


class Faulty:
    """The real sandbox, which breaks for good after `num_good` jobs, or when it is told to."""

    name = "faulty"

    def __init__(self, inner: Sandbox, num_good: int = 10**6) -> None:
        self.inner, self.num_left, self.broken = inner, num_good, False

    def run(self, job: Job) -> RunResult:
        self.num_left -= 1
        if self.broken or self.num_left < 0:
            raise SandboxError("the engine is gone")
        return self.inner.run(job)

    def close(self) -> None:
        pass


def on(game: MakeGame, sandbox: Faulty, *, break_at: str = "", **keys: object) -> StepResult:
    """A step on a sandbox that breaks, at a phase or by itself; no run of before is at hand."""
    prepared = game("whole").context.repo_contexts[REPO].prepared
    repos = {REPO: RepoContext(prepared=prepared, runner=TestRunner(sandbox, prepared.environment))}
    played = game(repos=repos, **keys)
    scaffold = CompactScaffold.open(SCAFFOLD, played.policy, repos)
    played.context = replace(played.context, scaffold=scaffold)

    def report(phase: str) -> None:
        sandbox.broken = phase == break_at

    return played.play(0, report)


def test_three_of_eight_pay_the_injector_by_hand(game: MakeGame) -> None:
    """s = 3/8: 1 - 1.8 x 0.375 = 0.325; the solver's group is 3 x +1 and 5 x -1."""
    solve = [FIX_ROUND, NOTHING, OTHER_ROUND, FIX_ROUND, NOTHING, NOTHING, FIX_ROUND, NOTHING]
    played = game(solve=solve, group_size=8)
    result = played.play(0)
    (planted,) = of_role(result, "injector")
    assert planted.reward == pytest.approx(0.325)
    assert (planted.reason, planted.status) == ("valid", "completed")
    assert planted.info["solve_rate"] == 0.375 and planted.info["function"] == "round_to"
    attempts = of_role(result, "solver")
    assert [e.reward for e in attempts] == [1, -1, -1, 1, -1, -1, 1, -1]
    assert {e.bug_id for e in attempts} == {planted.bug_id}
    assert [e.reason for e in attempts[:3]] == ["", "bad_format", "fail_to_pass"]
    assert attempts[1].info["patch"] == "" and "units += 2" in attempts[2].info["patch"]
    weights = {group.role: group.weight for group in result.groups}
    assert weights == {"injector": 0.5, "solver": 2.0}
    assert played.corpus.solve_rates() == {planted.bug_id: 0.375}


@pytest.mark.parametrize(("solve", "reward"), [([FIX_ROUND], -0.8), ([NOTHING], -0.8)])
def test_always_and_never_solved_is_paid_alike(
    game: MakeGame, solve: list[str], reward: float
) -> None:
    result = game(solve=solve, group_size=2).play(0)
    assert [e.reward for e in of_role(result, "injector")] == [reward]


def test_what_is_no_bug_is_paid_minus_one_and_not_solved(game: MakeGame) -> None:
    played = game(inject=[UNNOTICED, NOTHING, ("units", "un its")], samples_per_seed=3)
    result = played.play(0)
    assert [e.reason for e in result.episodes] == ["no_failing_test", "bad_format", "syntax_error"]
    assert [e.reward for e in result.episodes] == [-1.0, -1.0, -1.0]
    assert result.attempts == () and played.bug_ids() == []
    (group,) = result.groups
    assert group.rewards == (-1.0, -1.0, -1.0) and group.role == "injector"


def test_both_finders_of_a_bug_get_its_reward(game: MakeGame) -> None:
    """Found twice in a step: stored once, solved once, paid twice."""
    played = game(solve=[FIX_ROUND, NOTHING, NOTHING, NOTHING], samples_per_seed=2, group_size=4)
    result = played.play(0)
    first, second = of_role(result, "injector")
    assert first.bug_id == second.bug_id and first.episode_id != second.episode_id
    assert [first.reward, second.reward] == pytest.approx([0.55, 0.55])
    assert len(result.attempts) == 1 and len(result.attempts[0]) == 4
    assert played.bug_ids() == [first.bug_id]
    row = step_metrics(result)
    assert (row["injector/num_valid"], row["curriculum/num_new_bugs"]) == (2.0, 1.0)


def test_a_duplicate_of_an_earlier_step_is_invalid_and_paid_so(game: MakeGame) -> None:
    played = game(solve=[FIX_ROUND, NOTHING], group_size=2)
    (found,) = of_role(played.play(0), "injector")
    result = played.play(1)
    (again,) = of_role(result, "injector")
    assert (again.reason, again.reward, again.status) == ("duplicate", -1.0, "completed")
    assert again.bug_id == found.bug_id
    assert result.attempts == () and result.num_new == 0
    (group,) = result.groups
    assert group.rewards == (-1.0,)
    assert played.bug_ids() == [found.bug_id] and played.corpus.bugs()[0].step == 0


def test_a_bug_that_is_the_same_in_effect_is_a_duplicate_too(game: MakeGame) -> None:
    played = game(inject=[BUG_ROUND, ("rest * 2 >= step", "(rest * 2) > step")])
    played.play(0)
    (again,) = of_role(played.play(1), "injector")
    assert again.reason == "duplicate" and again.bug_id not in played.bug_ids()


def test_a_machine_that_fails_while_injecting_is_no_verdict(game: MakeGame) -> None:
    sandbox = Faulty(game("real").context.pool.sandbox, num_good=0)
    result = on(game, sandbox)
    (lost,) = result.episodes
    assert lost.status == "errored" and lost.reward is None
    assert lost.reason.startswith("infrastructure:")
    assert result.groups == () and result.attempts == ()


def test_an_undecided_validation_is_errored_and_out_of_its_group(game: MakeGame) -> None:
    """The oracle tests ran once on the bug; then the machine was gone."""
    sandbox = Faulty(game("real").context.pool.sandbox, num_good=2)
    result = on(game, sandbox, inject=[BUG_ROUND, NOTHING], samples_per_seed=2)
    lost, refused = result.episodes
    assert (lost.status, lost.reward, lost.bug_id) == ("errored", None, None)
    assert (refused.status, refused.reward) == ("completed", -1.0)
    (group,) = result.groups
    assert group.rewards == (-1.0,), "what has no verdict has no part in the baseline"


def test_attempts_that_nobody_could_judge_pay_nobody(game: MakeGame) -> None:
    """Errored attempts are no failures: the bug has no solve rate, so its finder has no reward."""
    # the gold text itself was graded by the validation already
    sandbox = Faulty(game("real").context.pool.sandbox)
    result = on(game, sandbox, break_at="solve", solve=[UNLIKE_GOLD, OTHER_ROUND], group_size=2)
    assert [e.status for e in result.episodes] == ["errored"] * 3
    assert [e.reward for e in result.episodes] == [None] * 3
    assert result.groups == ()
    (planted,) = of_role(result, "injector")
    assert planted.reason == "valid" and planted.bug_id is not None
    assert step_metrics(result)["play/num_errored"] == 3.0
    assert step_metrics(result)["solver/solve_rate"] == 0.0


def test_the_row_of_a_step_by_hand(game: MakeGame) -> None:
    """A bug that is found twice and two answers that are none; two of four attempts resolve it:
    1 - 1.8 x 0.5 = 0.1 for the bug, so (0.1 + 0.1 - 1 - 1) / 4 = -0.45 for the injector."""
    played = game(
        inject=[BUG_ROUND, BUG_ROUND, NOTHING, UNNOTICED],
        solve=[FIX_ROUND, NOTHING, FIX_ROUND, OTHER_ROUND],
        samples_per_seed=4,
        group_size=4,
    )
    result = played.play(0)
    row = step_metrics(result)
    assert row.pop("play/num_tokens") == sum(len(e.answer) + 1 for e in result.episodes)
    injected = {"valid": 2, "bad_format": 1, "no_failing_test": 1}
    solved = {"resolved": 2, "bad_format": 1, "fail_to_pass": 1}
    assert row == pytest.approx(
        {
            "play/num_errored": 0,
            "curriculum/num_new_bugs": 1,
            "curriculum/num_higher_order": 0,
            "injector/num_injections": 4,
            "injector/num_valid": 2,
            "injector/valid_rate": 0.5,
            "injector/reward": -0.45,
            "injector/groups_with_variance": 1,
            "solver/num_attempts": 4,
            "solver/num_resolved": 2,
            "solver/solve_rate": 0.5,
            "solver/num_first_attempts": 4,
            "solver/num_first_resolved": 2,
            "solver/overfit_rate": 0,
            "solver/reward": 0,
            "solver/groups_with_variance": 1,
            "solver/num_groups": 1,
            "solver/num_fresh_groups": 1,
            "solver/num_informative_groups": 1,
            "solver/num_informative_fresh_groups": 1,
            "solver/distinct_answers": 3,
            "injector/entropy": 0.5,
            "solver/entropy": 0.5,
            **{f"injector/reason/{code}": count for code, count in injected.items()},
            **{f"solver/reason/{code}": count for code, count in solved.items()},
        }
    )


def test_replays_are_attempts_but_not_first_ones(game: MakeGame) -> None:
    played = game(solve=[FIX_ROUND, NOTHING], group_size=2, min_solve_groups=2)
    played.play(0)
    result = played.play(1)
    row = step_metrics(result)
    assert len(result.attempts) == 1 and result.num_new == 0
    assert (row["solver/num_attempts"], row["solver/num_first_attempts"]) == (2.0, 0.0)
    (again,) = of_role(result, "injector")
    assert again.reason == "duplicate" and again.info["solve_rate"] == 0.5


def test_a_group_of_unresolved_attempts_is_informative_where_their_rewards_differ(
    game: MakeGame,
) -> None:
    """As with `reward=similarity`, which learns from them."""
    result = game(solve=[NOTHING], group_size=2).play(0)
    assert step_metrics(result)["solver/num_informative_groups"] == 0.0
    rewards = {e.episode_id: 0.1 * i for i, e in enumerate(of_role(result, "solver"))}
    paid = [replace(e, reward=rewards.get(e.episode_id, e.reward)) for e in result.episodes]
    row = step_metrics(replace(result, episodes=tuple(paid)))
    assert row["solver/num_resolved"] == 0.0
    assert row["solver/num_informative_groups"] == row["solver/num_groups"] == 1.0
    assert row["solver/num_informative_fresh_groups"] == 1.0


def test_nothing_is_asked_of_the_solver_without_bugs(game: MakeGame) -> None:
    played = game(inject=[NOTHING], min_solve_groups=4)
    phases: list[str] = []
    result = played.play(0, phases.append)
    assert phases == ["inject", "solve"] and result.attempts == ()
    assert len(played.policy.requests) == 1


def episode(number: int, group: str, role: str, reward: float | None) -> Episode:
    trajectory = Trajectory(
        token_ids=(1, 2), loss_mask=(0, 1), logprobs=(0.0, -1.0), policy_version=0
    )
    return Episode(
        episode_id=str(number), group_id=group, role=role, repo="r", task_id="t",  # type: ignore[arg-type]
        bug_id=None, status="errored" if reward is None else "completed", reward=reward,
        reason="", trajectory=trajectory, answer="", policy_version=0,
    )  # fmt: skip


def test_peer_groups_hold_who_has_a_reward() -> None:
    groups = peer_groups(
        [
            episode(0, "a", "solver", 1.0),
            episode(1, "b", "injector", -1.0),
            episode(2, "a", "solver", None),
            episode(3, "a", "solver", -1.0),
            episode(4, "c", "solver", None),
        ],
        {"solver": 3.0},
    )
    assert [(g.group_id, g.rewards, g.weight, g.role) for g in groups] == [
        ("a", (1.0, -1.0), 3.0, "solver"),
        ("b", (-1.0,), 1.0, "injector"),
    ]
    assert all(len(g.trajectories) == len(g.rewards) for g in groups)


def test_an_episode_in_which_nothing_was_sampled_has_no_part() -> None:
    silent = replace(episode(0, "a", "solver", 1.0), trajectory=None)
    (group,) = peer_groups([silent, episode(1, "a", "solver", -1.0)], {})
    assert group.rewards == (-1.0,)


def test_a_group_never_mixes_roles() -> None:
    with pytest.raises(AssertionError, match="group a mixes roles"):
        peer_groups([episode(0, "a", "solver", 1.0), episode(1, "a", "injector", 1.0)], {})


def test_groups_of_a_real_step_are_of_one_role_and_of_their_own_bug(game: MakeGame) -> None:
    played = game(
        functions=("round_to", "format_cents"), inject=[BUG_ROUND, BUG_FORMAT],
        solve=[FIX_ROUND, NOTHING], num_groups=2, seeds_per_group=2, samples_per_seed=2,
        group_size=2,
    )  # fmt: skip
    result = played.play(0)
    members: dict[str, set[tuple[str, str | None]]] = {}
    for one in result.episodes:
        of = one.bug_id if one.role == "solver" else None
        members.setdefault(one.group_id, set()).add((one.role, of))
    assert all(len(kinds) == 1 for kinds in members.values())
    assert sum(g.role == "injector" for g in result.groups) == 2
    assert sum(len(g.rewards) for g in result.groups) == len(result.episodes)


def test_groups_without_variance_are_handed_on_and_counted(game: MakeGame) -> None:
    """The learner leaves them out of the loss; the row says how many would have taught."""
    flat = game(solve=[FIX_ROUND], group_size=2).play(0)
    assert [set(g.rewards) for g in flat.groups if g.role == "solver"] == [{1.0}]
    assert step_metrics(flat)["solver/groups_with_variance"] == 0.0
    varied = game("varied", solve=[FIX_ROUND, NOTHING], group_size=2).play(0)
    assert step_metrics(varied)["solver/groups_with_variance"] == 1.0
