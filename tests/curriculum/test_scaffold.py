"""The protocol of scaffolds: answers are judged once, and a new scaffold is one class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import selfplay
from selfplay.commands.compose import SCAFFOLDS, scaffold_class
from selfplay.config import FeedbackConfig, PolicyConfig, ScaffoldConfig
from selfplay.curriculum.compact import CompactScaffold, one_turn, trajectory
from selfplay.curriculum.injecting import inject, injector_episode, judge_injection
from selfplay.curriculum.scaffold import (
    Answer,
    Rollout,
    RolloutContext,
    Sampling,
    Scaffold,
    judge_once,
)
from selfplay.curriculum.solving import judge_attempt, solve, solve_rate, solver_episode
from selfplay.errors import SandboxError, UserError
from selfplay.roles.rejected import Rejected
from selfplay.sampling import SampleRequest
from selfplay.types import BugArtifact, Completion, InjectionTask, SolveTask, Target

from .game import BUG_ROUND, FIX_ROUND, NOTHING, OTHER_ROUND, REPO, Book, Move

ROUND = InjectionTask(
    task_id="step0/injector/r/direct/0/1",
    repo=REPO,
    strategy="direct",
    target=Target(path="ledger/money.py", function="round_to"),
)
SILENT = Rollout(trajectory=None, answer="", status="completed", policy_version=0)


def playing(
    context: RolloutContext, inject: Sequence[Move] = (), solve: Sequence[Move] = ()
) -> RolloutContext:
    return replace(context, policy=Book(inject, solve))


def completion(text: str = "x", **keys: object) -> Completion:
    plain: dict[str, object] = {"finish_reason": "stop", "policy_version": 4}
    return Completion(token_ids=(7, 8), logprobs=(-1.0, -2.0), text=text, **{**plain, **keys})  # type: ignore[arg-type]


def test_prompt_and_answer_are_aligned_lists() -> None:
    request = SampleRequest(prompt_ids=(5, 6), temperature=0.5)
    made = trajectory(request, completion())
    assert made.token_ids == (5, 6, 7, 8) and made.loss_mask == (0, 0, 1, 1)
    assert made.logprobs == (0.0, 0.0, -1.0, -2.0)
    assert (made.turns[0].start, made.turns[0].end, made.policy_version) == (2, 4, 4)
    assert made.temperature == 0.5
    assert one_turn(request, completion()).status == "completed"
    assert one_turn(request, completion(finish_reason="length")).status == "truncated"


def test_requests_are_named_by_seed_role_and_task() -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, seed=3)
    solver = sampling.request("solver", (1, 2), 4, "bug-1", 0)
    assert (solver.num_samples, solver.temperature, solver.top_p) == (4, 0.7, 0.9)
    injector = sampling.request("injector", (1, 2), 4, "bug-1", 0)
    assert injector.temperature == 0.7 and injector.seed != solver.seed
    assert sampling.request("solver", (9,), 1, "bug-1", 0).seed == solver.seed
    assert sampling.request("solver", (1, 2), 4, "bug-1", 1).seed != solver.seed
    other = replace(sampling, seed=4).request("solver", (1, 2), 4, "bug-1", 0)
    assert other.seed != solver.seed


def test_equal_answers_to_one_task_are_judged_once(context: RolloutContext) -> None:
    read: list[str] = []

    def answer(task: str, key: str) -> Answer[str]:
        def reader() -> str:
            read.append(f"{task}{key}")
            return key.upper()

        return Answer(rollout=SILENT, read=reader, key=key)

    tasks = [ROUND, replace(ROUND, task_id="other")]
    groups = [[answer("1", k) for k in "aba"], [answer("2", k) for k in "aab"]]
    judged = judge_once(context.pool, tasks, groups, lambda task, found: found.read() + task.repo)
    assert judged == [[k + REPO for k in "ABA"], [k + REPO for k in "AAB"]]
    assert sorted(read) == ["1a", "1b", "2a", "2b"]


def test_real_answers_are_validated_once_and_graded_once(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    played = inject(playing(context, [BUG_ROUND]), [ROUND], 3)
    assert len({id(injection.outcome) for injection in played}) == 1 and len(played) == 3
    moves = [FIX_ROUND, NOTHING, FIX_ROUND]
    (group,) = solve(playing(context, solve=moves), [bugs["round_to"]], 3)
    assert group[0].outcome is group[2].outcome is not group[1].outcome
    assert solve_rate(group) == pytest.approx(2 / 3)


def test_solve_without_tasks_asks_nobody(context: RolloutContext) -> None:
    silent = playing(context)
    assert solve(silent, [], 8) == [] and silent.policy.requests == []  # type: ignore[attr-defined]


def test_the_salt_separates_repeated_draws(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    played = playing(context, solve=[NOTHING])
    for salt in (0, 1, 0):
        solve(played, [bugs["round_to"]], 1, salt=salt)
    first, second, third = (request.seed for request in played.policy.requests)  # type: ignore[attr-defined]
    assert first == third != second


def raising(error: Exception) -> Answer[object]:
    def read() -> object:
        raise error

    return Answer(rollout=SILENT, read=read, key=0)


@pytest.mark.parametrize(
    ("error", "reason", "errored"),
    [
        (Rejected("bad_format", "no edit"), "bad_format", False),
        (Rejected("content_filter"), "content_filter", False),
        (Rejected("infrastructure: lost", errored=True), "infrastructure: lost", True),
        (SandboxError("the engine is gone"), "infrastructure: the engine is gone", True),
    ],
)
def test_an_answer_that_cannot_be_read(
    context: RolloutContext,
    bugs: dict[str, SolveTask],
    error: Exception,
    reason: str,
    errored: bool,
) -> None:
    """An answer that is none is judged; a fault of the machine is not: in both roles."""
    planted = judge_injection(context, ROUND, raising(error))  # type: ignore[arg-type]
    assert (planted.reason, planted.errored, planted.solve_task) == (reason, errored, None)
    mended = judge_attempt(context, bugs["round_to"], raising(error))  # type: ignore[arg-type]
    assert (mended.reason, mended.errored, mended.resolved) == (reason, errored, False)
    assert mended.patch == ""


def test_an_engine_that_gives_no_answer_costs_one_sample(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    class Filtered(Book):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
            (group,) = super().sample(requests)
            held = replace(group[1], problem="content_filter", errored=False)
            lost = replace(group[2], problem="infrastructure: gone", errored=True)
            return [[group[0], held, lost]]

    policy = Filtered([BUG_ROUND], [FIX_ROUND])
    (group,) = solve(replace(context, policy=policy), [bugs["round_to"]], 3)
    assert [a.outcome.reason for a in group] == ["", "content_filter", "infrastructure: gone"]
    assert [a.status for a in group] == ["completed", "completed", "errored"]
    assert solve_rate(group) == 0.5, "one of two that were judged"
    found = inject(replace(context, policy=policy), [ROUND], 3)
    assert [i.outcome.reason for i in found] == ["valid", "content_filter", "infrastructure: gone"]
    assert [i.status for i in found] == ["completed", "completed", "errored"]


def test_solve_rate_of_nothing_that_was_judged(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    (group,) = solve(playing(context, solve=[FIX_ROUND]), [bugs["round_to"]], 1)
    lost = replace(group[0], outcome=replace(group[0].outcome, errored=True))
    assert solve_rate([lost]) is None and solve_rate([]) is None
    assert solve_rate([lost, group[0]]) == 1.0


def test_records_of_both_roles(context: RolloutContext, bugs: dict[str, SolveTask]) -> None:
    (found,) = inject(playing(context, [BUG_ROUND]), [ROUND], 1)

    def record(**keys: object):  # type: ignore[no-untyped-def]
        plain = {"solve_rate": 0.5, "is_duplicate": False}
        return injector_episode(
            2, 7, found, reward=lambda valid, s: float(valid) + (s or 0.0), **{**plain, **keys}
        )

    one = record()
    assert (one.episode_id, one.group_id) == ("step2/injector/7", "step0/injector/r/direct/0")
    assert (one.reward, one.status, one.bug_id) == (1.5, "completed", found.bug_id)
    double = record(is_duplicate=True)
    assert (double.reward, double.reason, double.info["solve_rate"]) == (0.0, "duplicate", 0.5)
    unknown = record(solve_rate=None)
    assert (unknown.reward, unknown.status, unknown.reason) == (None, "errored", "valid")
    (group,) = solve(playing(context, solve=[OTHER_ROUND]), [bugs["round_to"]], 1)
    seen: list[tuple[bool, str, str]] = []

    def reward(resolved: bool, patch: str, bug_patch: str) -> float:
        seen.append((resolved, patch, bug_patch))
        return -0.25

    attempt = solver_episode(2, 3, group[0], reward)
    bug_id = bugs["round_to"].bug_id
    assert attempt.episode_id == f"step2/solver/{bug_id}/3"
    assert attempt.group_id == f"step2/solver/{bug_id}" and attempt.reward == -0.25
    assert seen == [(False, attempt.info["patch"], bugs["round_to"].artifact.bug_patch)]
    lost = replace(group[0], outcome=replace(group[0].outcome, errored=True))
    assert solver_episode(2, 3, lost, reward).reward is None and len(seen) == 1


@dataclass(frozen=True, kw_only=True)
class SecondThoughts(CompactScaffold):
    """A third scaffold, as an addition of one class: the solver looks at the verdict of its first
    answer and may give another one in the same episode."""

    tries: int = 2

    def solve(
        self, context: RolloutContext, tasks: Sequence[SolveTask], num_samples: int, salt: object
    ) -> list[list[Answer[str]]]:
        answers = super().solve(context, tasks, num_samples, salt)
        for number in range(1, self.tries):
            again = super().solve(context, tasks, num_samples, (salt, number))
            answers = [
                [
                    old if judge_attempt(context, task, old).resolved else new
                    for old, new in zip(*groups, strict=True)
                ]
                for task, *groups in zip(tasks, answers, again, strict=True)
            ]
        return answers


def test_a_third_scaffold_is_one_class(context: RolloutContext, bugs: dict[str, SolveTask]) -> None:
    """Nothing that judges, pays or stores knows which scaffold it is."""
    assert isinstance(context.scaffold, CompactScaffold)
    patient: Scaffold = SecondThoughts(roles=context.scaffold.roles)
    moves = [NOTHING, FIX_ROUND, FIX_ROUND, OTHER_ROUND]
    (once,) = solve(playing(context, solve=moves), [bugs["round_to"]], 2)
    assert [a.outcome.resolved for a in once] == [False, True]
    (twice,) = solve(
        replace(playing(context, solve=moves), scaffold=patient), [bugs["round_to"]], 2
    )
    assert [a.outcome.resolved for a in twice] == [True, True]
    (found,) = inject(replace(playing(context, [BUG_ROUND]), scaffold=patient), [ROUND], 1)
    assert found.outcome.reason == "valid"


def test_scaffolds_are_known_by_their_names() -> None:
    policy = PolicyConfig(max_new_tokens=80)
    for kind, found in SCAFFOLDS.items():
        config = ScaffoldConfig(kind=kind)
        assert scaffold_class(config) is found
        assert found.scripted().tokenizer is not None
        assert found.longest(config, policy) > 0
    assert SCAFFOLDS["compact"].longest(ScaffoldConfig(max_prompt_tokens=640), policy) == 720
    tries = ScaffoldConfig(feedback=FeedbackConfig(max_tries=3, max_feedback_tokens=100))
    assert SCAFFOLDS["feedback"].longest(tries, policy) == 640 + 3 * 80 + 2 * 100
    with pytest.raises(UserError, match="must be one of compact, feedback, agentic"):
        scaffold_class(ScaffoldConfig(kind="odd"))


def test_reading_twice_gives_the_same(context: RolloutContext) -> None:
    """`judge_once` may be asked again after a kill: reading changes nothing."""
    ((answer,),) = context.scaffold.inject(playing(context, [BUG_ROUND]), [ROUND], 1)
    first, second = answer.read(), answer.read()
    assert isinstance(first, BugArtifact) and first == second
    one, two = (judge_injection(context, ROUND, answer) for _ in range(2))
    assert one.reason == "valid" and one.solve_task == two.solve_task


def test_no_command_asks_which_scaffold_it_is() -> None:
    """A third scaffold would be forgotten there: what differs is a method of the scaffold."""
    package = Path(selfplay.__file__).parent
    found = [
        file.name
        for file in package.rglob("*.py")
        if re.search(r"scaffold\.kind\s*[!=]=|\w+ in \(\"compact\"", file.read_text("utf-8"))
    ]
    assert found == []
