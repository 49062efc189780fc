"""Whole agentic rounds on real repositories, in both sandboxes: explored, planted, validated,
solved, graded. Scripted agents drive the very loop that a model drives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from selfplay.commands.compose import make_stage, prepare_repos, sandbox_pool
from selfplay.config import ReposConfig, SandboxConfig, ScaffoldConfig
from selfplay.curriculum.arena import Sampling, Stage
from selfplay.curriculum.injecting import Injection, inject
from selfplay.curriculum.solving import Attempt, solve
from selfplay.scripted.agents import ScriptedAgents
from selfplay.types import InjectionTask, Seed, Strategy

CASES: dict[str, dict[str, Strategy]] = {
    "bubblewrap": {
        "cachetools": "direct",
        "toolz": "history",
        "sqlparse": "direct",
        "sample-timetable": "direct",
    },
    "docker": {
        "cachetools": "history",
        "toolz": "direct",
        "sqlparse": "removal",
        "sample-timetable": "direct",
    },
}


@pytest.fixture(scope="module", params=["bubblewrap", pytest.param("docker", marks=[
    pytest.mark.docker])])  # fmt: skip
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with sandbox_pool(SandboxConfig(name=request.param)) as pool:
        repos = prepare_repos(list(CASES[request.param]), ReposConfig(), pool)
        yield make_stage(ScriptedAgents(), repos, pool, ScaffoldConfig(kind="agentic"), Sampling())


@pytest.fixture(scope="module")
def injections(stage: Stage) -> dict[str, Injection]:
    name = getattr(stage.pool.sandbox, "name", "")
    tasks = [
        InjectionTask(task_id=repo, repo=repo, strategy=strategy, seed=Seed())
        for repo, strategy in CASES[name].items()
    ]
    return {i.task.repo: i for i in inject(stage, tasks, 1)}


@pytest.fixture(scope="module")
def attempts(stage: Stage, injections: dict[str, Injection]) -> dict[str, Attempt]:
    tasks = [i.outcome.solve_task for i in injections.values() if i.outcome.solve_task]
    return {group[0].task.repo: group[0] for group in solve(stage, tasks, 1)}


@pytest.mark.slow
def test_every_injection_is_valid(injections: dict[str, Injection]) -> None:
    for repo, injection in injections.items():
        assert (injection.status, injection.outcome.reason) == ("completed", "valid"), repo
        artifact = injection.outcome.artifact
        assert artifact is not None and artifact.meta["strategy"] == injection.task.strategy
        tools = {turn["tool"] for turn in injection.play.info["turns"]}
        assert {"bash", "create", "submit"} <= tools
        if injection.task.strategy == "history":
            said = [turn["observation"] for turn in injection.play.info["turns"]]
            assert any("@@ " in text for text in said), "a past change was looked at"
        elif injection.task.strategy in ("direct", "removal"):
            assert "edit" in tools


@pytest.mark.slow
def test_every_attempt_is_graded_and_small_bugs_are_repaired(
    attempts: dict[str, Attempt], injections: dict[str, Injection]
) -> None:
    assert set(attempts) == set(injections)
    for repo, attempt in attempts.items():
        verdict = attempt.judgement
        assert attempt.status == "completed" and not verdict.errored, repo
        assert verdict.report is not None and verdict.patch
        if injections[repo].task.strategy == "direct":
            assert verdict.resolved, (repo, verdict.reason)
            assert "edit" in {turn["tool"] for turn in attempt.play.info["turns"]}
        first = attempt.play.info["turns"][0]["observation"]
        assert first.splitlines()[0].endswith("Initial commit")  # one commit, no past
        assert first.count("commit") == 1


@pytest.mark.slow
def test_every_token_is_accounted_for(
    attempts: dict[str, Attempt], injections: dict[str, Injection]
) -> None:
    for play in [*(a.play for a in attempts.values()), *(i.play for i in injections.values())]:
        trajectory = play.trajectory
        assert trajectory is not None
        assert len(trajectory.turns) == len(play.info["turns"])
        sampled = sum(turn.end - turn.start for turn in trajectory.turns)
        assert sampled == sum(trajectory.loss_mask) > 0
        ends = [trajectory.token_ids[turn.end - 1] for turn in trajectory.turns]
        assert set(ends) == {256}
