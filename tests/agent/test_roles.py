"""Agentic roles on a vendored sample: prompts, fix patches, refusals, strategies, faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from jinja2 import UndefinedError

from selfplay.agent.fenced import write_call
from selfplay.bugs.artifact import solve_task
from selfplay.bugs.patches.layers import reverse_patch
from selfplay.chat import ToolCall
from selfplay.commands.compose import make_rollout_context, prepare_repos, sandbox_pool
from selfplay.config import (
    AgentConfig,
    CurriculumConfig,
    InjectorConfig,
    ReposConfig,
    RewardConfig,
    SandboxConfig,
    ScaffoldConfig,
)
from selfplay.curriculum.agentic import AgenticScaffold
from selfplay.curriculum.compact import CompactRoles
from selfplay.curriculum.injecting import inject
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.solving import solve, solver_episode
from selfplay.curriculum.step import peer_groups
from selfplay.curriculum.targets import RepoTargets, TaskSampler
from selfplay.errors import SandboxError
from selfplay.roles.agentic.solver import TaskView, show
from selfplay.roles.prompts import render
from selfplay.roles.rewards import make_solver_reward
from selfplay.scripted.agents import ScriptedAgents
from selfplay.types import InjectionTask, Limits, SolveTask, Strategy, Target
from selfplay.warmstart.procedural_bugs import ProceduralBug, validated_bugs

from .conftest import Told

REPO = "sample-ledger"
LOOK = write_call(ToolCall(name="bash", arguments={"command": "git log --oneline"}))
SUBMIT = "```submit\n```"


@pytest.fixture(scope="module")
def context() -> Iterator[RolloutContext]:
    with sandbox_pool(SandboxConfig(name="bubblewrap")) as pool:
        repos = prepare_repos([REPO], ReposConfig(), pool)
        yield make_rollout_context(
            ScriptedAgents(), repos, pool, ScaffoldConfig(kind="agentic"), Sampling()
        )


@pytest.fixture(scope="module")
def bugs(context: RolloutContext) -> list[ProceduralBug]:
    """Two valid bugs of two functions."""
    found: dict[str, ProceduralBug] = {}
    tokenizer = context.policy.tokenizer
    roles = CompactRoles.on(context.repo_contexts[REPO], tokenizer, ScaffoldConfig())
    for bug in validated_bugs(roles.injector, context.pool, seed=3, num_tries=14):
        if bug.solve_task() is not None:
            found.setdefault(bug.task.target.path, bug)
        if len(found) == 2:
            break
    return list(found.values())


@pytest.fixture(scope="module")
def solve_me(bugs: list[ProceduralBug]) -> SolveTask:
    task = bugs[0].solve_task()
    assert task is not None
    return task


def task(strategy: Strategy = "direct", **keywords: Any) -> InjectionTask:
    return InjectionTask(
        task_id="t", repo=REPO, strategy=strategy, **{"target": Target(), **keywords}
    )


def told(context: RolloutContext, answers: Sequence[str]) -> RolloutContext:
    return replace(context, policy=Told(answers))


def prompt(context: RolloutContext, asked: InjectionTask) -> str:
    return scaffold(context).roles[REPO].injector.prompt(asked)[1]


def scaffold(context: RolloutContext) -> AgenticScaffold:
    assert isinstance(context.scaffold, AgenticScaffold)
    return context.scaffold


def test_injector_prompts_say_what_is_asked(
    context: RolloutContext, bugs: list[ProceduralBug]
) -> None:
    limits = Limits(min_passing_tests=7, min_failing_tests=3, script_timeout_s=45)
    plain = prompt(context, task(limits=limits))
    assert "at least 7 tests pass" in plain and "at least 3 of the tests" in plain
    assert "within 45 seconds" in plain and "Where:" not in plain
    assert "take away code" in prompt(context, task("removal"))
    assert "no history here" in prompt(context, task("history"))
    assert "small, sensible feature" in prompt(context, task("feature_add"))
    seeded = prompt(context, task(target=Target(path="a/b.py", function="f", commit="c0ffee")))
    assert "Where: look at commit c0ffee, and there at a/b.py, f." in seeded
    material = tuple(bug.artifact for bug in bugs if bug.artifact)
    assert "2 known bugs" in prompt(context, task("combine", material=material))
    assert "{" not in plain.replace('{"<test id>"', "") and "\n\n\n" not in plain
    with pytest.raises(UndefinedError):
        render("agent_injector", strategy="direct")


def test_a_solver_is_told_the_tests_or_the_issue() -> None:
    tests = show(TaskView(oracle_patch="+assert total() == 6", problem_statement=""))
    assert "+assert total() == 6" in tests and "/tmp/tests.diff" in tests
    issue = show(TaskView(oracle_patch="+assert secret", problem_statement="It is too high."))
    assert "It is too high." in issue and "secret" not in issue
    long = show(TaskView(oracle_patch="x" * 50_000, problem_statement=""))
    assert "34000 more characters" in long and len(long) < 20_000


def test_combine_brings_two_bugs_together(
    context: RolloutContext, bugs: list[ProceduralBug]
) -> None:
    material = tuple(bug.artifact for bug in bugs if bug.artifact)
    (injection,) = inject(context, [task("combine", material=material)], 1)
    assert injection.outcome.reason == "valid", injection.outcome.report
    artifact = injection.outcome.artifact
    assert artifact is not None
    for bug in bugs:
        assert f"+++ b/{bug.task.target.path}" in artifact.bug_patch


def test_the_tree_is_the_answer_whatever_is_said(
    context: RolloutContext, solve_me: SolveTask
) -> None:
    gold = reverse_patch(solve_me.artifact.bug_patch)
    mend = ToolCall(name="bash", arguments={"command": f"git apply <<'E'\n{gold}E\nls"})
    junk = "mkdir -p build/lib .pytest_cache; touch build/lib/x .pytest_cache/y a.orig; rm -rf .git"
    answers = [LOOK, write_call(mend), f"```bash\n{junk}\n```", SUBMIT]
    ((attempt,),) = solve(told(context, answers), [solve_me], 1)
    assert attempt.outcome.resolved, attempt.outcome.reason
    assert attempt.outcome.patch.count("diff --git") == 1
    assert attempt.rollout.info["turns"][0]["observation"].count("Initial commit") == 1
    ((liar,),) = solve(told(context, ["I mended it.\n" + SUBMIT]), [solve_me], 1)
    assert (liar.outcome.reason, liar.outcome.patch) == ("empty_patch", "")


def test_a_closed_file_is_no_repair(context: RolloutContext, solve_me: SolveTask) -> None:
    """Bug: what could not be read counted as unchanged against the original, that is as mended."""
    close = "```bash\nfind . -name '*.py' -exec chmod 0 {} +\n```"
    ((attempt,),) = solve(told(context, [close, SUBMIT]), [solve_me], 1)
    assert not attempt.outcome.resolved and attempt.outcome.patch == ""


def test_the_solver_finds_no_trace_of_the_original(
    context: RolloutContext, solve_me: SolveTask
) -> None:
    removed = [
        line[1:].strip()
        for line in solve_me.artifact.bug_patch.splitlines()
        if line.startswith("-") and not line.startswith("---")
    ]
    word = max(removed, key=len)
    grep = f"grep -rFl -- {word!r} /testbed /tmp /opt /in /out 2>/dev/null; git count-objects -v"
    call = ToolCall(name="bash", arguments={"command": grep + "; git rev-list --all | wc -l"})
    ((attempt,),) = solve(told(context, [write_call(call), SUBMIT]), [solve_me], 1)
    said = attempt.rollout.info["turns"][0]["observation"]
    assert "packs: 0" in said and "\n1\n[exit" in said
    assert ".py" not in said and "objects/" not in said


@pytest.mark.parametrize(
    ("answers", "reason", "status"),
    [
        ([SUBMIT], "submission_missing", "completed"),
        ([LOOK], "not_submitted: turns", "truncated"),
        (["what?"], "bad_calls", "completed"),
        (
            ["```bash\nmkdir /tmp/submission; cd /tmp/submission; ln -s x bug_inject.diff; "
             "touch test_script.sh test_files.txt test_parser.py test_weaken.diff\n```", SUBMIT],
            "submission_link",
            "completed",
        ),
        (
            ["```bash\nmkdir /tmp/submission; cd /tmp/submission; "
             "touch bug_inject.diff test_script.sh test_files.txt test_parser.py "
             "test_weaken.diff\n```", SUBMIT],
            "no_test_files",
            "completed",
        ),
    ],
)  # fmt: skip
def test_bad_injections_end_with_a_reason(
    context: RolloutContext, answers: list[str], reason: str, status: str
) -> None:
    limits = replace(scaffold(context).limits, max_turns=4, max_bad_calls=2)
    short = replace(told(context, answers), scaffold=replace(scaffold(context), limits=limits))
    (injection,) = inject(short, [task()], 1)
    assert (injection.outcome.reason, injection.status) == (reason, status)
    assert injection.outcome.solve_task is None


def test_a_refused_submission_may_be_mended(context: RolloutContext) -> None:
    config = AgentConfig(num_resubmit=2)
    roles = scaffold(context).roles[REPO]
    roles = replace(roles, injector=replace(roles.injector, config=config))
    patient = replace(context, scaffold=replace(scaffold(context), roles={REPO: roles}))
    make = (
        "```bash\nmkdir /tmp/submission; cd /tmp/submission; echo tests/none.py > test_files.txt; "
    )
    make += "touch bug_inject.diff test_script.sh test_parser.py test_weaken.diff\n```"
    (injection,) = inject(told(patient, [SUBMIT, make, SUBMIT, SUBMIT]), [task()], 1)
    said = [turn["observation"] for turn in injection.rollout.info["turns"]]
    assert "refused: submission_missing" in said[0] and "2 chances left" in said[0]
    assert "refused: test_file_missing" in said[2] and "1 chance left" in said[2]
    assert injection.outcome.reason == "test_file_missing" and len(said) == 4


def test_a_lost_sandbox_is_errored_and_out_of_the_baseline(
    context: RolloutContext, solve_me: SolveTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    import selfplay.roles.agentic.workspace as workspace

    real, opened = workspace.Session, [0]

    def sometimes(*words: Any) -> Any:
        opened[0] += 1
        if opened[0] == 1:
            raise SandboxError("the engine is gone")
        return real(*words)

    monkeypatch.setattr(workspace, "Session", sometimes)
    ((first, second),) = solve(told(context, [SUBMIT]), [solve_me], 2)
    assert sorted([first.status, second.status]) == ["completed", "errored"]
    reward = make_solver_reward(RewardConfig())
    episodes = [solver_episode(0, i, a, reward) for i, a in enumerate((first, second))]
    lost = next(e for e in episodes if e.status == "errored")
    assert lost.reward is None and lost.trajectory is None and "engine is gone" in lost.reason
    (group,) = peer_groups(episodes, {})
    assert group.rewards == (-1.0,)


def test_the_sampler_knows_what_each_strategy_needs(
    context: RolloutContext, bugs: list[ProceduralBug]
) -> None:
    known = [bug.artifact for bug in bugs if bug.artifact]
    every = InjectorConfig(strategies={"combine": 1.0, "history": 1.0})
    curriculum = CurriculumConfig(num_groups=1, seeds_per_group=1)
    targets = {REPO: RepoTargets(context.repo_contexts[REPO].prepared, ScaffoldConfig())}

    def sampler(played: AgenticScaffold) -> TaskSampler:
        return TaskSampler(targets, played, curriculum=curriculum, injector=every, seed=0)

    (alone,) = sampler(scaffold(context)).draw(0, {})
    assert (alone.strategy, alone.material) == ("direct", ())
    assert alone.target.path
    (both,) = sampler(scaffold(context)).draw(0, {}, lambda repo: known)
    assert both.strategy == "combine"
    assert sorted(map(id, both.material)) == sorted(map(id, known))
    (own,) = sampler(replace(scaffold(context), targeted=False)).draw(0, {})
    assert own.target == Target()


def test_solve_task_of_a_combined_bug_keeps_its_limits(bugs: list[ProceduralBug]) -> None:
    assert bugs[0].artifact is not None and bugs[0].report is not None
    made = solve_task(REPO, bugs[0].artifact, bugs[0].report, bugs[0].task.limits)
    assert made.limits == bugs[0].task.limits and made == bugs[0].solve_task()
