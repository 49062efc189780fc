"""The round trip of exported bugs, graded in a real sandbox."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import apply_patch
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import read_suite
from selfplay.export.swebench import export_swebench
from selfplay.export.verify import deleting_patch, editing_patch, verify_task
from selfplay.types import GradeReport, SolveTask, Target

from .conftest import TEST_FILE, MakeTask


def judge_with(runner: TestRunner):  # type: ignore[no-untyped-def]
    return lambda task, patch: grade(task, patch, runner)


def always(reward: int, reason: str = "") -> GradeReport:
    return GradeReport(
        resolved=reward > 0, reward=reward, fail_to_pass={}, pass_to_pass={}, reason=reason
    )


def test_a_bug_passes_its_round_trip(runner: TestRunner, make_task: MakeTask) -> None:
    task = make_task("x * 2", "x + 2")
    result = verify_task(task, runner.environment.tree, judge_with(runner))
    assert (result.gold, result.empty, result.deleting) == (1, -1, -1)
    assert (result.passed, result.problem) == (True, "")


def test_a_bug_survives_export_and_reading(
    tmp_path: Path, runner: TestRunner, make_task: MakeTask
) -> None:
    task = make_task("x * 2", "x * 3")
    (tmp_path / "run").mkdir()
    with Corpus(tmp_path / "run" / "corpus.sqlite") as corpus:
        seed = Target(path="calc/core.py", function="double")
        assert corpus.add_bug(task, origin="model", strategy="direct", target=seed, step=0)
    assert export_swebench(tmp_path / "run", tmp_path / "out", tmp_path) == 1
    [read] = read_suite(tmp_path / "out" / "suite.jsonl")
    result = verify_task(read.solve_task, runner.environment.tree, judge_with(runner))
    assert result.passed, result


def test_a_bug_that_is_none_is_found_out(runner: TestRunner, make_task: MakeTask) -> None:
    """The gold patch of a change that `test_head` never notices cannot make it pass again."""
    task = make_task("x * 2", "x + 2")
    lying = dataclasses.replace(task, fail_to_pass=(f"{TEST_FILE}::test_absent",))
    result = verify_task(lying, runner.environment.tree, judge_with(runner))
    assert result.gold == -1
    assert result.problem == "the gold patch gets -1 (fail_to_pass)"


def test_an_artifact_of_another_tree_is_a_problem_not_a_crash(
    tmp_path: Path, runner: TestRunner, make_task: MakeTask
) -> None:
    result = verify_task(make_task("x * 2", "x + 2"), tmp_path, judge_with(runner))
    assert not result.passed
    assert "does not fit the repository" in result.problem


def test_a_grader_that_is_too_kind_is_found_out(runner: TestRunner, make_task: MakeTask) -> None:
    task = make_task("x * 2", "x + 2")
    result = verify_task(task, runner.environment.tree, lambda task, patch: always(1))
    assert (result.gold, result.empty, result.deleting) == (1, 1, 1)
    assert result.problem == (
        "the empty patch gets +1 (resolved); "
        "a patch that deletes the oracle tests gets +1 (resolved); "
        "a patch that makes the oracle tests pass by editing them gets +1 (resolved)"
    )


@pytest.mark.parametrize("wrong", ["gold", "empty", "deleting", "editing"])
def test_each_of_the_four_counts(runner: TestRunner, make_task: MakeTask, wrong: str) -> None:
    task, tree = make_task("x * 2", "x + 2"), runner.environment.tree
    kinds = {"": "empty", deleting_patch(task, tree): "deleting"}
    kinds[editing_patch(task, tree)] = "editing"

    def judge(task: SolveTask, patch: str) -> GradeReport:
        kind = kinds.get(patch, "gold")
        return always((1 if kind == "gold" else -1) * (-1 if kind == wrong else 1), "why")

    result = verify_task(task, tree, judge)
    assert not result.passed
    assert result.problem.count(" gets ") == 1


def test_the_deleting_patch_deletes_the_oracle_tests_alone(
    runner: TestRunner, make_task: MakeTask
) -> None:
    task, tree = make_task("x * 2", "x + 2"), runner.environment.tree
    sealed = apply_patch(tree, {}, task.artifact.bug_patch)
    sealed = apply_patch(tree, sealed, task.artifact.weakening_patch)
    after = apply_patch(tree, sealed, deleting_patch(task, tree))
    assert after[TEST_FILE].content is None
    assert after["calc/core.py"] == sealed["calc/core.py"]
