"""Each alarm speaks when its trouble begins, once, and again after it has ceased."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from selfplay.config import AlarmsConfig
from selfplay.curriculum.injecting import Injection, InjectionOutcome
from selfplay.curriculum.rounds.tripwires import Tripwires
from selfplay.curriculum.scaffold import Rollout
from selfplay.curriculum.step import StepResult
from selfplay.types import InjectionTask, SolveTask, Strategy, Target

GOOD: Mapping[str, float] = {
    "learner/groups_trained": 2, "injector/num_injections": 10, "injector/num_valid": 5,
    "solver/num_attempts": 40, "solver/num_resolved": 4, "solver/entropy": 0.5,
    "play/num_tokens": 1000, "curriculum/num_new_bugs": 5,
}  # fmt: skip
BAD: dict[str, tuple[dict[str, float], str]] = {
    "no_signal": ({"learner/groups_trained": 0}, "each bug was solved always or never"),
    "valid": ({"injector/num_valid": 0, "injector/reason/syntax_error": 10}, "syntax_error (30)"),
    "duplicates": (
        {"injector/reason/duplicate": 9, "curriculum/num_new_bugs": 1}, "18 of 20 valid bugs",
    ),
    "gibberish": ({"learner/num_dropped_gibberish": 90}, "noise or loops"),
    "entropy": ({"solver/entropy": 0.05}, "0.05 nats"),
    "errors": (
        {"play/num_errored": 30, "solver/reason/infrastructure": 30}, "(infrastructure)",
    ),
}  # fmt: skip


def made(*injections: tuple[Strategy, str]) -> StepResult:
    """Valid bugs of these strategies in these files."""
    found = []
    for strategy, path in injections:
        task = InjectionTask(task_id="t", repo="r", strategy=strategy, target=Target(path=path))
        rollout = Rollout(trajectory=None, answer="", status="completed", policy_version=0)
        bug = cast(SolveTask, type("Bug", (), {"bug_id": "b"})())
        outcome = InjectionOutcome(reason="valid", solve_task=bug)
        found.append(Injection(task=task, rollout=rollout, outcome=outcome))
    return StepResult(
        injections=tuple(found), attempts=(), episodes=(), groups=(), num_new=0, num_fresh=0,
        num_grown=0, probabilities={},
    )  # fmt: skip


def wires(learns: bool = True) -> Tripwires:
    return Tripwires(config=AlarmsConfig(), entropy=0.1, learns=learns)


@pytest.mark.parametrize("name", BAD)
def test_an_alarm_speaks_once_and_again_after_it_has_ceased(name: str) -> None:
    change, text = BAD[name]
    alarms, told = wires(), []
    for step in range(12):
        row = GOOD if 5 <= step < 9 else {**GOOD, **change}
        told += alarms.check(step, row, made())
    assert len(told) == 2, told
    assert text in told[0] and told[0].startswith("step ")
    assert set(alarms.tripped) == {name}


def test_a_run_without_an_injector_is_not_told_of_its_bugs() -> None:
    wires = Tripwires(config=AlarmsConfig(window=1), entropy=0.0, learns=True)
    row = {**GOOD, "learner/groups_trained": 0, "solver/num_resolved": 0}
    row |= {"injector/num_injections": 0, "injector/num_valid": 0}
    (said,) = wires.check(0, row, made())
    assert "no bug was solved" in said


def test_nothing_is_said_of_a_good_run() -> None:
    alarms = wires()
    assert not any(alarms.check(step, GOOD, made()) for step in range(9))


def test_a_run_that_does_not_learn_is_not_told_to() -> None:
    alarms = wires(learns=False)
    row = {**GOOD, "learner/groups_trained": 0.0, "solver/entropy": 0.0}
    assert not any(alarms.check(step, row, made()) for step in range(9))


@pytest.mark.parametrize(
    ("others", "whose"),
    [
        ([("removal", "b.py")], "strategy direct: lower its weight in injector.strategies"),
        ([("direct", "b.py")], "file r/a.py: set curriculum.max_bugs_per_file"),
        ([], ""),
    ],
)
def test_one_place_takes_over(others: list[tuple[Strategy, str]], whose: str) -> None:
    """Where nothing else was asked for, nothing took over."""
    result = made(*[("direct", "a.py")] * 20, *others)
    (line,) = wires().check(0, GOOD, result) or [""]
    assert line.endswith(whose) and bool(line) == bool(whose)


def test_a_resumed_run_says_nothing_twice() -> None:
    alarms, row = wires(), {**GOOD, "solver/entropy": 0.0}
    assert len(alarms.check(0, row, made())) == 1
    again = wires()
    again.restore(alarms.to_json())
    assert again.check(1, row, made()) == [] and len(again.window) == 2
