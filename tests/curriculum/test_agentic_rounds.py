"""Whole agentic rounds on real repositories, in both sandboxes: explored, planted, validated,
solved, graded. Scripted agents drive the very loop that a model drives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from selfplay.commands.compose import make_rollout_context, prepare_repos, sandbox_pool
from selfplay.config import ReposConfig, SandboxConfig, ScaffoldConfig
from selfplay.curriculum.injecting import Injection, inject
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.solving import Attempt, solve
from selfplay.scripted.agents import ScriptedAgents
from selfplay.types import InjectionTask, Strategy, Target

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
def context(request: pytest.FixtureRequest) -> Iterator[RolloutContext]:
    with sandbox_pool(SandboxConfig(name=request.param)) as pool:
        repos = prepare_repos(list(CASES[request.param]), ReposConfig(), pool)
        yield make_rollout_context(
            ScriptedAgents(), repos, pool, ScaffoldConfig(kind="agentic"), Sampling()
        )


@pytest.fixture(scope="module")
def injections(context: RolloutContext) -> dict[str, Injection]:
    name = getattr(context.pool.sandbox, "name", "")
    tasks = [
        InjectionTask(task_id=repo, repo=repo, strategy=strategy, target=Target())
        for repo, strategy in CASES[name].items()
    ]
    return {i.task.repo: i for i in inject(context, tasks, 1)}


@pytest.fixture(scope="module")
def attempts(context: RolloutContext, injections: dict[str, Injection]) -> dict[str, Attempt]:
    tasks = [i.outcome.solve_task for i in injections.values() if i.outcome.solve_task]
    return {group[0].task.repo: group[0] for group in solve(context, tasks, 1)}


@pytest.mark.slow
def test_every_injection_is_valid(injections: dict[str, Injection]) -> None:
    for repo, injection in injections.items():
        assert (injection.status, injection.outcome.reason) == ("completed", "valid"), repo
        artifact = injection.outcome.artifact
        assert artifact is not None and artifact.meta["strategy"] == injection.task.strategy
        tools = {turn["tool"] for turn in injection.rollout.info["turns"]}
        assert {"bash", "create", "submit"} <= tools
        if injection.task.strategy == "history":
            said = [turn["observation"] for turn in injection.rollout.info["turns"]]
            assert any("@@ " in text for text in said), "a past change was looked at"
        elif injection.task.strategy in ("direct", "removal"):
            assert "edit" in tools


@pytest.mark.slow
def test_every_attempt_is_graded_and_small_bugs_are_repaired(
    attempts: dict[str, Attempt], injections: dict[str, Injection]
) -> None:
    assert set(attempts) == set(injections)
    for repo, attempt in attempts.items():
        verdict = attempt.outcome
        assert attempt.status == "completed" and not verdict.errored, repo
        assert verdict.report is not None and verdict.patch
        if injections[repo].task.strategy == "direct":
            assert verdict.resolved, (repo, verdict.reason)
            assert "edit" in {turn["tool"] for turn in attempt.rollout.info["turns"]}
        first = attempt.rollout.info["turns"][0]["observation"]
        assert first.splitlines()[0].endswith("Initial commit")  # one commit, no past
        assert first.count("commit") == 1


@pytest.mark.slow
def test_every_token_is_accounted_for(
    attempts: dict[str, Attempt], injections: dict[str, Injection]
) -> None:
    for rollout in [
        *(a.rollout for a in attempts.values()),
        *(i.rollout for i in injections.values()),
    ]:
        trajectory = rollout.trajectory
        assert trajectory is not None
        assert len(trajectory.turns) == len(rollout.info["turns"])
        sampled = sum(turn.end - turn.start for turn in trajectory.turns)
        assert sampled == sum(trajectory.loss_mask) > 0
        ends = [trajectory.token_ids[turn.end - 1] for turn in trajectory.turns]
        assert set(ends) == {256}
