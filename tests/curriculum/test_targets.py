"""What is drawn: where the corpus is thin, within the caps, and as a function of names alone."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.config import AgentConfig, CurriculumConfig, InjectorConfig, ScaffoldConfig
from selfplay.curriculum.agentic import AgenticScaffold
from selfplay.curriculum.compact import CompactScaffold
from selfplay.curriculum.scaffold import RolloutContext, Scaffold
from selfplay.curriculum.targets import (
    MIN_FUNCTION_LINES,
    RepoTargets,
    TaskSampler,
    mean_worth,
    promise,
)
from selfplay.repo.prepare import PreparedRepo
from selfplay.scripted.agents import ScriptedAgents
from selfplay.types import InjectionTask, SolveTask, Target

from .game import REPO, SCAFFOLD

ROUND, FORMAT = "ledger/money.py::round_to", "ledger/money.py::format_cents"


@pytest.fixture(scope="module")
def targets(prepared: PreparedRepo) -> RepoTargets:
    return RepoTargets(prepared, SCAFFOLD)


@pytest.fixture(scope="module")
def agentic() -> AgenticScaffold:
    return AgenticScaffold.open(ScaffoldConfig(kind="agentic"), ScriptedAgents(), {})


@pytest.fixture(scope="module")
def compact(context: RolloutContext) -> Scaffold:
    return context.scaffold


@pytest.fixture(scope="module")
def with_history(prepared: PreparedRepo, tmp_path_factory: pytest.TempPathFactory) -> PreparedRepo:
    """The sample after a past change of `round_to` alone, one of a comment and one too long."""
    folder = tmp_path_factory.mktemp("history")
    tree = folder / "tree"
    shutil.copytree(prepared.environment.tree, tree, ignore=shutil.ignore_patterns(".git"))
    file = tree / "ledger" / "money.py"
    now = file.read_text()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tree)]
    subprocess.run([*git, "init", "-q"], check=True)
    before = now.replace("rest * 2 >= step", "rest * 2 > step")
    commented = before.replace('sign = "-" if', '# the sign\n    sign = "-" if')
    long = commented.replace("    total = sum(weights)\n", "    total = sum(weights)\n" * 14)
    for text, message in (
        (long, "first"), (commented, "shorter"), (before, "no comment"), (now, "Ties go away"),
    ):  # fmt: skip
        file.write_text(text)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", message], check=True)
    (tree / ".git").rename(folder / "history.git")
    bare = ["git", "-C", str(folder / "history.git"), "config", "core.bare", "true"]
    subprocess.run(bare, check=True)
    return replace(prepared, history=folder / "history.git")


def sampler(
    targets: Mapping[str, RepoTargets],
    scaffold: Scaffold,
    strategies: Mapping[str, float] | None = None,
    seed: int = 0,
    **shape: Any,
) -> TaskSampler:
    return TaskSampler(
        targets,
        scaffold,
        curriculum=CurriculumConfig(**shape),
        injector=InjectorConfig(strategies=dict(strategies or {"direct": 1.0})),
        seed=seed,
    )


def places(tasks: list[InjectionTask]) -> Counter[str]:
    return Counter(f"{task.target.path}::{task.target.function}" for task in tasks)


def test_bugs_are_asked_for_where_tests_reach_and_a_prompt_shows_all(
    targets: RepoTargets, prepared: PreparedRepo
) -> None:
    names = {function.qualname for function in targets.functions}
    assert {"round_to", "format_cents", "Book.balance", "Posting.touches"} <= names
    for function in targets.functions:
        assert function.end_line - function.start_line + 1 >= MIN_FUNCTION_LINES
        assert prepared.profile.tests_reaching(function.path, function.qualname)
        assert not function.path.startswith("tests/")
    tight = RepoTargets(prepared, replace_config(max_function_lines=6))
    assert {f.qualname for f in tight.functions} < names
    assert RepoTargets(prepared, replace_config(max_oracle_s=0.0)).functions == []
    assert RepoTargets(prepared, replace_config(max_oracle_files=0)).functions == []


def replace_config(**keys: Any) -> ScaffoldConfig:
    return ScaffoldConfig(max_prompt_tokens=6000, **keys)


def test_tasks_are_named_by_step_repository_strategy_and_number(
    targets: RepoTargets, compact: Scaffold
) -> None:
    tasks = sampler({REPO: targets}, compact, num_groups=2, seeds_per_group=3).draw(7, {})
    assert [task.task_id for task in tasks] == [
        f"step7/injector/{REPO}/direct/{group}/{number}" for group in (0, 1) for number in (0, 1, 2)
    ]
    assert [task.group_id for task in tasks] == [
        f"step7/injector/{REPO}/direct/{group}" for group in (0, 0, 0, 1, 1, 1)
    ]
    assert {task.repo for task in tasks} == {REPO}


def test_limits_of_the_configuration_travel_with_the_task(
    targets: RepoTargets, compact: Scaffold
) -> None:
    drawn = TaskSampler(
        {REPO: targets},
        compact,
        curriculum=CurriculumConfig(num_groups=1, seeds_per_group=1),
        injector=InjectorConfig(strategies={"direct": 1.0}, min_failing_tests=3),
        seed=0,
    ).draw(0, {})
    assert drawn[0].limits.min_failing_tests == 3


def test_a_draw_is_a_function_of_seed_step_and_counts(
    targets: RepoTargets, compact: Scaffold, prepared: PreparedRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the clock, of what was drawn before, or of the order in which counts come."""
    counts = {REPO: {ROUND: 2, FORMAT: 1}}
    shape = {"num_groups": 3, "seeds_per_group": 4}
    drawn = sampler({REPO: targets}, compact, **shape).draw(5, counts)
    other = sampler({REPO: RepoTargets(prepared, SCAFFOLD)}, compact, **shape)
    monkeypatch.setattr("time.time", lambda: 4e9)
    random.seed(99)
    for step in (9, 0, 4):
        other.draw(step, {})
    turned = {REPO: dict(reversed(counts[REPO].items()))}
    assert other.draw(5, turned) == drawn
    assert other.draw(6, counts) != drawn
    assert sampler({REPO: targets}, compact, seed=1, **shape).draw(5, counts) != drawn
    assert other.draw(5, {REPO: {ROUND: 9}}) != drawn


def test_a_full_function_is_never_drawn(targets: RepoTargets, compact: Scaffold) -> None:
    shape = {"num_groups": 1, "seeds_per_group": 40, "max_bugs_per_function": 2}
    drawn = sampler({REPO: targets}, compact, **shape)
    counts = {REPO: {ROUND: 2, FORMAT: 3}}
    for step in range(5):
        seen = places(drawn.draw(step, counts))
        assert ROUND not in seen and FORMAT not in seen and seen.total() == 40
    below = {REPO: {ROUND: 1}}
    assert any(ROUND in places(drawn.draw(step, below)) for step in range(20))


def test_nothing_is_drawn_where_all_is_full(targets: RepoTargets, compact: Scaffold) -> None:
    shape = {"num_groups": 2, "seeds_per_group": 2, "max_bugs_per_function": 1}
    full = {f"{f.path}::{f.qualname}": 1 for f in targets.functions}
    drawn = sampler({REPO: targets}, compact, **shape)
    assert drawn.draw(0, {REPO: full}) == []
    last = next(iter(full))
    left = {name: count for name, count in full.items() if name != last}
    assert set(places(drawn.draw(0, {REPO: left}))) == {last}
    assert sampler({}, compact, **shape).draw(0, {}) == []


def test_a_function_with_a_bug_is_drawn_a_quarter_as_often(
    prepared: PreparedRepo, compact: Scaffold
) -> None:
    """Weights 1 / (1 + bugs)^2: 1 against 1/4, so 4 of 5 draws go to the empty one."""
    two = RepoTargets(prepared, SCAFFOLD)
    two.functions = [f for f in two.functions if f.qualname in ("round_to", "format_cents")]
    rng = random.Random(0)
    drawn = Counter(
        two.draw(rng, "direct", {ROUND: 1}, cap=9).function  # type: ignore[union-attr]
        for _ in range(3000)
    )
    assert drawn["format_cents"] / 3000 == pytest.approx(0.8, abs=0.03)
    drawn = Counter(
        two.draw(rng, "direct", {ROUND: 2}, cap=9).function  # type: ignore[union-attr]
        for _ in range(3000)
    )
    assert drawn["format_cents"] / 3000 == pytest.approx(0.9, abs=0.03)


def test_least_covered_asks_for_every_function_before_one_comes_again(
    targets: RepoTargets, compact: Scaffold
) -> None:
    """As many questions as functions, in one draw and in many that know the bugs before; drawn
    uniformly 1 - 1/e of the functions are asked for."""
    number = len(targets.functions)

    def share(name: str, draws: int) -> float:
        drawn = sampler(
            {REPO: targets}, compact, num_groups=1, seeds_per_group=number // draws, sampler=name
        )
        found = 0
        for seed in range(20):
            counts: Counter[str] = Counter()
            for step in range(draws):
                counts += places(drawn.draw(seed * draws + step, {REPO: counts}))
            found += len(counts)
        return found / (20 * draws * (number // draws))

    assert share("uniform", 1) == pytest.approx(0.63, abs=0.06)
    assert share("promising", 3) < 0.9
    for draws in (1, 3):
        assert share("least_covered", draws) > 0.95


def test_repositories_with_fewer_bugs_come_first(prepared: PreparedRepo, compact: Scaffold) -> None:
    three = {name: RepoTargets(prepared, SCAFFOLD) for name in ("a", "b", "c")}
    drawn = sampler(three, compact, num_groups=2, seeds_per_group=1)
    counts = {"a": {ROUND: 5}, "b": {FORMAT: 1, ROUND: 1}}
    for step in range(10):
        assert [task.repo for task in drawn.draw(step, counts)] == ["c", "b"]
    firsts = {drawn.draw(step, {})[0].repo for step in range(30)}
    assert firsts == {"a", "b", "c"}, "equals are drawn at random"
    more = sampler(three, compact, num_groups=7, seeds_per_group=1).draw(0, {})
    assert sorted(Counter(task.repo for task in more).values()) == [2, 2, 3]
    three["c"].functions = []
    assert "c" not in {task.repo for step in range(9) for task in drawn.draw(step, counts)}


def strategies_of(drawn: TaskSampler, steps: int, *known: Any) -> Counter[str]:
    return Counter(task.strategy for step in range(steps) for task in drawn.draw(step, {}, *known))


def test_strategies_come_by_weight(targets: RepoTargets, compact: Scaffold) -> None:
    weights = {"direct": 3.0, "removal": 1.0}
    drawn = sampler({REPO: targets}, compact, weights, num_groups=20, seeds_per_group=1)
    seen = strategies_of(drawn, 50)
    assert seen["direct"] / seen.total() == pytest.approx(0.75, abs=0.04)
    assert seen["removal"] + seen["direct"] == seen.total() == 1000


def test_a_scaffold_is_asked_for_its_own_strategies_alone(
    targets: RepoTargets, compact: Scaffold, agentic: AgenticScaffold
) -> None:
    weights = {"feature_add": 1.0, "removal": 1.0}
    keys: dict[str, Any] = {"num_groups": 8, "seeds_per_group": 1}
    assert set(strategies_of(sampler({REPO: targets}, compact, weights, **keys), 9)) == {"removal"}
    both = strategies_of(sampler({REPO: targets}, agentic, weights, **keys), 9)
    assert set(both) == {"feature_add", "removal"}
    nothing = sampler({REPO: targets}, compact, {"feature_add": 1.0}, **keys)
    assert set(strategies_of(nothing, 2)) == {"direct"}, "where no weight is left"


def test_combine_needs_two_known_bugs(
    targets: RepoTargets, agentic: AgenticScaffold, bugs: dict[str, SolveTask]
) -> None:
    artifacts = [task.artifact for task in bugs.values()]
    drawn = sampler(
        {REPO: targets}, agentic, {"combine": 1.0, "direct": 0.0}, num_groups=2, seeds_per_group=2
    )
    for known in ([], artifacts[:1]):
        tasks = drawn.draw(0, {}, lambda repo, known=known: known)
        assert {task.strategy for task in tasks} == {"direct"}
        assert all(task.material == () and task.target.function for task in tasks)
    tasks = drawn.draw(0, {}, lambda repo: artifacts)
    assert {task.strategy for task in tasks} == {"combine"}
    for task in tasks:
        one, other = task.material
        assert one is not other and one in artifacts and other in artifacts
        assert task.target == Target()
    assert len({tuple(map(id, task.material)) for task in tasks}) > 1


def test_history_is_asked_for_only_where_there_is_one(
    targets: RepoTargets, with_history: PreparedRepo, compact: Scaffold
) -> None:
    keys: dict[str, Any] = {"num_groups": 1, "seeds_per_group": 6}
    none = sampler({REPO: targets}, compact, {"history": 1.0}, **keys).draw(0, {})
    assert {task.strategy for task in none} == {"direct"} and len(none) == 6
    past = RepoTargets(with_history, SCAFFOLD)
    drawn = sampler({REPO: past}, compact, {"history": 1.0}, **keys)
    tasks = [task for step in range(6) for task in drawn.draw(step, {})]
    assert tasks and {task.strategy for task in tasks} == {"history"}
    assert set(places(tasks)) == {ROUND}, "the one function with a change worth undoing"
    assert len({task.target.commit for task in tasks}) == 1 and tasks[0].target.commit


def test_past_changes_worth_undoing_are_short_of_code_and_still_there(
    with_history: PreparedRepo,
) -> None:
    past = RepoTargets(with_history, SCAFFOLD)
    by_name = {f.qualname: f for f in past.functions}
    (change,) = past.undoable_changes(by_name["round_to"])
    assert change.subject == "Ties go away"
    assert change.changed_lines() == ["-     if rest * 2 > step:", "+     if rest * 2 >= step:"]
    assert past.undoable_changes(by_name["format_cents"]) == [], "a comment is no code"
    assert past.undoable_changes(by_name["split_cents"]) == [], "more lines than are shown"
    assert past.undoable_changes(by_name["compound"]) == []


def test_a_scaffold_that_does_not_target_is_told_no_place(
    targets: RepoTargets, agentic: AgenticScaffold
) -> None:
    free = replace(agentic, targeted=False)
    tasks = sampler({REPO: targets}, free, num_groups=1, seeds_per_group=3).draw(0, {})
    assert [task.target for task in tasks] == [Target()] * 3
    bound = sampler({REPO: targets}, agentic, num_groups=1, seeds_per_group=3).draw(0, {})
    assert all(task.target.function for task in bound)
    assert agentic.targeted and CompactScaffold(roles={}).targeted
    own = ScaffoldConfig(kind="agentic", agent=AgentConfig(seeded=False))
    assert not AgenticScaffold.open(own, ScriptedAgents(), {}).targeted


def test_kinds_come_in_the_order_of_what_they_taught(
    targets: RepoTargets, compact: Scaffold
) -> None:
    keys: dict[str, Any] = {"num_groups": 1, "seeds_per_group": 1}
    taught = {("direct", "condition"): (80, 0)}
    drawn = sampler({REPO: targets}, compact, **keys)
    firsts = Counter(drawn.draw(s, {}, lambda repo: (), taught)[0].kinds[0] for s in range(20))
    assert firsts.most_common(1)[0] == ("condition", 20)
    off = sampler({REPO: targets}, compact, sampler="least_covered", **keys)
    assert off.draw(0, {}, lambda repo: (), taught)[0].kinds == ()


def test_a_profile_of_another_folder_draws_the_same(
    prepared: PreparedRepo, compact: Scaffold, tmp_path: Path
) -> None:
    """Where the cache lies has no part in what is drawn."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(prepared.environment.tree, copy)
    moved = replace(prepared, environment=replace(prepared.environment, tree=copy))
    keys: dict[str, Any] = {"num_groups": 2, "seeds_per_group": 4}
    here = sampler({REPO: RepoTargets(prepared, SCAFFOLD)}, compact, **keys).draw(3, {})
    assert sampler({REPO: RepoTargets(moved, SCAFFOLD)}, compact, **keys).draw(3, {}) == here


def test_functions_whose_bugs_can_be_inferred_are_asked_for_more_often(
    targets: RepoTargets,
) -> None:
    """Mean (1 + 2) / (10 + 4): a good place counts (3/14 + 2) / 3 / (3/14) = 3.4, a bad one 1/3."""
    worth = {ROUND: (2.0, 0.0), FORMAT: (0.0, 2.0)}
    mean = mean_worth(worth)
    assert mean == pytest.approx(3 / 14) and promise(None, mean) == 1.0
    assert promise(worth[ROUND], mean) == pytest.approx(31 / 9)
    assert promise(worth[FORMAT], mean) == pytest.approx(1 / 3)
    counts = {ROUND: 2, FORMAT: 2}
    drawn = Counter(
        target.function
        for seed in range(600)
        if (target := targets.draw(random.Random(seed), "direct", counts, 9, worth))
    )
    assert drawn["round_to"] > 4 * drawn["format_cents"]


def test_caps_of_file_and_repository(targets: RepoTargets, compact: Scaffold) -> None:
    counts = {ROUND: 2, FORMAT: 1, "ledger/book.py::Book.balance": 1}
    rng = random.Random(0)
    drawn = [targets.draw(rng, "direct", counts, 9, file_cap=3) for _ in range(40)]
    assert all(target and target.path != "ledger/money.py" for target in drawn)
    assert targets.draw(rng, "direct", counts, 9, file_cap=0) is None
    keys: dict[str, Any] = {"num_groups": 2, "seeds_per_group": 1}
    full = sampler({REPO: targets}, compact, max_bugs_per_repo=4, **keys)
    assert full.draw(0, {REPO: counts}) == []
    assert (
        len(sampler({REPO: targets}, compact, max_bugs_per_repo=5, **keys).draw(0, {REPO: counts}))
        == 2
    )


def test_coverage_spreads_over_functions_files_and_strategies(
    targets: RepoTargets, compact: Scaffold
) -> None:
    """Forty bugs that nobody turns down: how many functions, how even the strategies are."""
    reached, shares = {}, {}
    for name in ("uniform", "least_covered"):
        counts: Counter[str] = Counter()
        given: Counter[str] = Counter()
        drawing = sampler(
            {REPO: targets}, compact, {"direct": 1.0, "removal": 1.0}, sampler=name,
            num_groups=1, seeds_per_group=1, max_bugs_per_function=99,
        )  # fmt: skip
        for step in range(40):
            (task,) = drawing.draw(step, {REPO: counts}, by_strategy={REPO: given})
            counts[f"{task.target.path}::{task.target.function}"] += 1
            given[task.strategy] += 1
        reached[name], shares[name] = len(counts), given
    assert reached["least_covered"] > reached["uniform"]
    assert abs(shares["least_covered"]["direct"] - 20) <= 2
