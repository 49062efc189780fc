"""New bugs are chosen by how likely their gold answer is; what is not played is no failure."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from selfplay.commands.opening import screening_of
from selfplay.config import CurriculumConfig, LearnerConfig, PolicyConfig, TrainConfig
from selfplay.curriculum.groups.guidance import guided
from selfplay.curriculum.groups.screening import Screening, chosen, gold_trajectories
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.curriculum.solving import solver_group
from selfplay.curriculum.step import step_metrics
from selfplay.errors import UserError
from selfplay.learner.advantages import training_samples
from selfplay.roles.rewards import expected_reward, injector_reward
from selfplay.sampling import ScoreRequest
from selfplay.types import InjectionTask, PeerGroup, SolveTask, Target, Trajectory

from .conftest import MakeGame
from .game import (
    BUG_FORMAT,
    BUG_ROUND,
    FIX_ROUND,
    NOTHING,
    REPO,
    Book,
    Game,
    Knowing,
    edit,
    of_role,
)


def screened(game: MakeGame, name: str, rule: Screening | None, *, pays: bool = False) -> Game:
    played = game(
        name, functions=("round_to", "format_cents"), inject=[BUG_ROUND, BUG_FORMAT] * 2,
        solve=[FIX_ROUND, NOTHING], num_groups=2, seeds_per_group=4, group_size=2,
    )  # fmt: skip
    policy = Knowing([BUG_ROUND], [FIX_ROUND, NOTHING])
    policy.moves = {"injector": [], "solver": [FIX_ROUND, NOTHING]}
    played.policy = policy
    played.context = replace(played.context, policy=policy)
    played.rules = replace(played.rules, screening=rule, pays_unplayed=pays)
    return played


def test_the_likeliest_below_the_cap_are_played(bugs: Mapping[str, SolveTask]) -> None:
    tasks = {task.bug_id: task for task in bugs.values()}
    a, b, c, d, e = tasks
    known = {a: 0.9, b: 0.5, c: 0.01, d: 0.2, e: 0.0}
    rule = Screening(max_groups=2, floor=0.001, cap=0.7)
    assert [t.bug_id for t in chosen(tasks, known, rule)] == [b, d]
    many = replace(rule, max_groups=9)
    assert [t.bug_id for t in chosen(tasks, known, many)] == [b, d, c]
    assert chosen(tasks, known, None) == chosen(tasks, {}, rule) == list(tasks.values())


def test_the_gold_answer_is_what_the_solver_would_write(
    context: RolloutContext, bugs: Mapping[str, SolveTask]
) -> None:
    task = bugs["round_to"]
    answer = context.scaffold.gold_answer(task)  # type: ignore[attr-defined]
    assert answer is not None
    prompt = context.scaffold.roles[REPO].solver.prompt(task)  # type: ignore[attr-defined]
    text = context.policy.tokenizer.decode(answer[1])
    assert (
        answer[0] == prompt.prompt_ids and answer[1][-1] == context.policy.tokenizer.end_of_turn_id
    )
    assert text.endswith("rest * 2 >= step:") or "rest * 2 >= step" in text
    assert context.scaffold._prompt(task) is context.scaffold.screened[task.bug_id]  # type: ignore[attr-defined]
    assert gold_trajectories(context, [task]) == {}, "this policy cannot tell"


def test_a_bug_that_is_not_played_is_kept_and_not_paid(game: MakeGame) -> None:
    played = screened(game, "plain", Screening(max_groups=1, floor=0.0, cap=0.7))
    result = plant_both(played)
    assert len(played.bug_ids()) == 2
    assert len(result.attempts) == 1
    assert (result.num_new, result.num_fresh) == (2, 1)
    told = {e.reason: e for e in of_role(result, "injector")}
    assert set(told) == {"valid", "not_played"}
    left = told["not_played"]
    assert (left.reward, left.status) == (None, "completed")
    assert left.info["gold_probability"] == pytest.approx(0.01)
    paid = {reward for g in result.groups if g.role == "injector" for reward in g.rewards}
    assert paid == {told["valid"].reward}
    row = step_metrics(result)
    assert row["curriculum/gold_probability"] == pytest.approx(0.155)
    assert (row["curriculum/num_new_bugs"], row["solver/num_fresh_groups"]) == (2.0, 1.0)
    assert row["curriculum/num_within_reach"] == 2.0 and row["play/num_errored"] == 0.0


def test_an_unplayed_bug_may_be_paid_what_is_to_be_expected(game: MakeGame) -> None:
    played = screened(game, "paid", Screening(max_groups=1, floor=0.0, cap=0.7), pays=True)
    left = next(e for e in of_role(plant_both(played), "injector") if e.reason == "not_played")
    flat, half = 0.99**2 + 0.01**2, 2 * 0.01 * 0.99
    assert left.reward == pytest.approx(-0.8 * flat + 0.1 * half)


def test_a_gold_answer_may_join_the_attempts_on_its_bug(game: MakeGame) -> None:
    """Of the bug that is played alone; the attempts stay as they are."""
    rule = Screening(max_groups=1, floor=0.0, cap=0.7)
    plain = plant_both(screened(game, "alone", rule))
    played = screened(game, "guided", rule)
    played.rules = replace(played.rules, shows_gold=True)
    result = plant_both(played)
    (group,) = [g for g in result.groups if g.role == "solver"]
    (bare,) = [g for g in plain.groups if g.role == "solver"]
    assert group.rewards == (*bare.rewards, 1.0) and len(group.trajectories) == 3
    assert group.trajectories[:2] == bare.trajectories
    gold, attempt = group.trajectories[2], group.trajectories[0]
    assert gold.prompt_ids == attempt.prompt_ids
    said = played.policy.tokenizer.decode(gold.token_ids[len(gold.prompt_ids) :])
    assert "rest * 2 >= step" in said
    assert sum(gold.logprobs) == pytest.approx(math.log(0.3))
    assert gold.policy_version == attempt.policy_version
    assert gold.temperature == attempt.temperature
    assert len(of_role(result, "solver")) == 2, "it is no episode"
    assert [g for g in result.groups if g.role == "injector"] == [
        g for g in plain.groups if g.role == "injector"
    ]


def test_a_gold_answer_may_stand_for_the_attempts_that_are_to_be_expected(game: MakeGame) -> None:
    """Two attempts, one of them the gold answer, at p = 0.3: it counts 0.6, the other one 1.4."""
    played = screened(game, "expected", Screening(max_groups=1, floor=0.0, cap=0.7))
    played.rules = replace(played.rules, shows_gold=True, gold_counts="expected")
    (group,) = [g for g in plant_both(played).groups if g.role == "solver"]
    assert group.counts == pytest.approx((1.4, 0.6))
    assert group.rewards == (-1.0, 1.0) and len(group.trajectories) == 2


def test_expected_counts_take_the_step_of_sampling_with_less_noise() -> None:
    """Every draw of three attempts from three answers, the first of them gold, by hand: both
    estimates of the gradient of the expected reward (of the logits: p_i (r_i - mean)) point its
    way on average, and the one with expected counts varies less."""
    probs, rewards, size = (0.3, 0.5, 0.2), (1.0, -1.0, -1.0), 3
    mean = sum(p * r for p, r in zip(probs, rewards, strict=True))
    true = [p * (r - mean) for p, r in zip(probs, rewards, strict=True)]
    gold = answer_of(0, math.log(probs[0]))

    def gradient(group: PeerGroup) -> list[float]:
        total = [0.0] * 3
        for sample in training_samples([group]).samples:
            said, advantage = sample.token_ids[-1], sample.advantages[-1]
            for i, p in enumerate(probs):
                total[i] += advantage * ((i == said) - p) / size
        return total

    sums: dict[str, list[float]] = {}
    noise: Counter[str] = Counter()
    weight = 0.0
    for draw in itertools.product(range(3), repeat=size):
        if set(draw) == {0}:
            continue  # nothing is known of the other answers: no estimate
        chance = math.prod(probs[i] for i in draw)
        weight += chance
        plain = PeerGroup(
            group_id=solver_group(0, "bug"),
            trajectories=tuple(answer_of(i, math.log(probs[i])) for i in draw),
            rewards=tuple(rewards[i] for i in draw),
        )
        (counted,) = guided([plain], 0, {"bug": gold}, "expected")
        for name, group in (("plain", plain), ("counted", counted)):
            found = gradient(group)
            kept = sums.setdefault(name, [0.0] * 3)
            sums[name] = [k + chance * f for k, f in zip(kept, found, strict=True)]
            noise[name] += chance * sum((f - t) ** 2 for f, t in zip(found, true, strict=True))
    assert [total / weight for total in sums["counted"]] == pytest.approx(true)
    assert noise["counted"] < noise["plain"] / 3


def answer_of(token: int, logprob: float) -> Trajectory:
    """A prompt of one token and an answer of one."""
    return Trajectory(
        token_ids=(9, token), loss_mask=(0, 1), logprobs=(0.0, logprob), policy_version=0
    )


def test_a_gold_answer_is_labelled_as_a_greedy_answer_of_the_weights_that_scored_it(
    context: RolloutContext, bugs: Mapping[str, SolveTask]
) -> None:
    """Greedy ones are told at 1; weights may be published while an answer is scored."""

    class Trained(Knowing):
        def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
            self.version += 1
            return super().score(requests)

    policy = Trained([], [])
    before = policy.version
    greedy = replace(context.sampling, temperature=0.0)
    task = bugs["round_to"]
    gold = gold_trajectories(replace(context, policy=policy, sampling=greedy), [task])[task.bug_id]
    assert gold is not None
    assert (gold.temperature, gold.policy_version) == (1.0, before)


def test_gold_answers_need_screening() -> None:
    with pytest.raises(UserError, match="max_fresh_groups"):
        CurriculumConfig(show_gold=True)
    with pytest.raises(UserError, match="show_gold=false"):
        CurriculumConfig(gold_counts="expected")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learner": LearnerConfig(advantage="pass_at_k")}, "advantage=pass_at_k"),
        ({"policy": PolicyConfig(top_p=0.9)}, "top_p=0.9"),
        ({"policy": PolicyConfig(temperature=0.0)}, "temperature=0"),
    ],
)
def test_expected_counts_need_the_probability_of_being_sampled(
    change: Mapping[str, Any], named: str
) -> None:
    shape = CurriculumConfig(max_fresh_groups=2, show_gold=True, gold_counts="expected")
    good = TrainConfig(curriculum=shape)
    with pytest.raises(UserError, match=re.escape(named)):
        replace(good, **change)


def test_the_expected_reward_by_hand() -> None:
    """Two attempts at p = 0.5: -0.8, 0.1, -0.8 with 1/4, 1/2, 1/4."""

    def reward(valid: bool, rate: float | None) -> float:
        assert valid and rate is not None
        return injector_reward(rate)

    assert expected_reward(0.5, 2, reward) == pytest.approx(-0.35)
    assert expected_reward(0.0, 8, reward) == expected_reward(1.0, 8, reward) == -0.8


def plant_both(played: Game):  # type: ignore[no-untyped-def]
    """A step in which a bug is planted in each function that is asked for."""
    policy = played.policy

    def answer(request):  # type: ignore[no-untyped-def]
        prompt = policy.tokenizer.user_text(request.prompt_ids)
        policy.moves["injector"] = [BUG_ROUND if "rest * 2 >= step" in prompt else BUG_FORMAT]
        return Book._answer(policy, request)

    policy._answer = answer  # type: ignore[method-assign]
    return played.play(0)


def test_an_edit_that_is_hopeless_to_take_back_is_not_validated(game: MakeGame) -> None:
    """The likeliest edit is validated; answers that are no edit cost no run and are judged."""
    rule = Screening(max_groups=9, floor=0.0, cap=0.7, max_validations=1)
    played = screened(game, "early", rule)
    result = plant_both(played)
    told = Counter(e.reason for e in of_role(result, "injector"))
    assert set(told) == {"valid", "not_validated"} and len(played.bug_ids()) == 1
    left = [e for e in of_role(result, "injector") if e.reason == "not_validated"]
    assert {(e.reward, e.status, e.info["function"]) for e in left} == {
        (None, "completed", "format_cents")
    }
    row = step_metrics(result)
    assert row["injector/num_injections"] == row["injector/num_valid"] == told["valid"]
    assert row["injector/reason/not_validated"] == told["not_validated"]


def test_the_undo_of_an_edit_is_the_edit_that_takes_it_back(context: RolloutContext) -> None:
    injector = context.scaffold.roles[REPO].injector  # type: ignore[attr-defined]
    task = InjectionTask(
        task_id="t/0", repo=REPO, strategy="direct",
        target=Target(path="ledger/money.py", function="round_to"),
    )  # fmt: skip
    prompt = injector.prompt(task)
    found = injector.undo(prompt, edit(prompt.text, BUG_ROUND))
    assert found is not None
    tokenizer = context.policy.tokenizer
    shown = tokenizer.user_text(found[0])  # type: ignore[attr-defined]
    assert "rest * 2 > step" in shown and "rest * 2 >= step" not in shown
    assert (
        "rest * 2 >= step" in tokenizer.decode(found[1])
        and found[1][-1] == tokenizer.end_of_turn_id
    )
    assert injector.undo(prompt, NOTHING) is None
    assert injector.undo(prompt, "1| def nothing(:") is None


def test_the_rule_is_what_the_configuration_says(context: RolloutContext) -> None:
    """Each key reaches the rule; a policy that cannot tell probabilities is refused."""
    shape = CurriculumConfig(max_fresh_groups=3, max_validations=5, gold_floor=0.01, gold_cap=0.6)
    config = TrainConfig(curriculum=shape)
    able = replace(context, policy=Knowing())
    rule = Screening(max_groups=3, floor=0.01, cap=0.6, max_validations=5)
    assert screening_of(config, able) == rule
    assert screening_of(TrainConfig(), context) is None
    with pytest.raises(UserError, match="cannot tell how likely"):
        screening_of(config, context)
