"""What is asked next: repository, strategy and seed, drawn where the corpus so far is thin."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from selfplay.config import CurriculumConfig, InjectorConfig
from selfplay.curriculum.contexts import RepoContext
from selfplay.curriculum.kind_bandit import Lessons, order_of_kinds
from selfplay.repo.languages.functions import FunctionInfo
from selfplay.seeds import derive_rng
from selfplay.types import BugArtifact, InjectionTask, Strategy, Target

MIN_FUNCTION_LINES = 3
COMPACT: tuple[Strategy, ...] = ("direct", "removal", "history")
AGENTIC: tuple[Strategy, ...] = (*COMPACT, "feature_add", "combine")
NUM_COMBINED = 2
KnownBugs = Callable[[str], Sequence[BugArtifact]]
"""First-order bugs of a repository that earlier steps found, in a fixed order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedInjection:
    """A task and the peer group that its episodes will share."""

    task: InjectionTask
    group_id: str


class SeedSampler:
    """Draws the injection tasks of a step as a function of (seed, step, corpus counts)."""

    def __init__(
        self,
        repo_contexts: Mapping[str, RepoContext],
        *,
        curriculum: CurriculumConfig,
        injector: InjectorConfig,
        seed: int,
    ) -> None:
        self._arenas = repo_contexts
        self._curriculum = curriculum
        self._injector = injector
        self._seed = seed
        self._limits = injector.limits()
        self._eligible = {
            name: eligible_functions(repo_context) for name, repo_context in repo_contexts.items()
        }

    def num_eligible(self) -> dict[str, int]:
        """Functions of each repository that a bug may be seeded in."""
        return {name: len(functions) for name, functions in self._eligible.items()}

    def draw(
        self,
        step: int,
        counts: Mapping[str, Mapping[str, int]],
        known_bugs: KnownBugs = lambda repo: (),
        lessons: Lessons = MappingProxyType({}),
    ) -> list[PlannedInjection]:
        """`num_groups x seeds_per_group` tasks.

        `counts[repo]["path::function"]` is how many bugs the corpus holds there; repositories and
        functions with fewer bugs are drawn more often, full ones (`max_bugs_per_function`) never.
        `known_bugs` are what the strategy "combine" draws from; `lessons` say which kinds of bug
        have taught something.
        """
        rng = derive_rng(self._seed, step, "seeds")
        repos = self._draw_repos(rng, counts)
        adaptive = self._curriculum.adaptive_kinds
        planned = []
        for index, repo in enumerate(repos):
            bugs = known_bugs(repo)
            strategy = self._draw_strategy(rng, repo, len(bugs))
            group_id = f"step{step}/injector/{repo}/{strategy}/{index}"
            for number in range(self._curriculum.seeds_per_group):
                seed: Target | None = Target()
                material: tuple[BugArtifact, ...] = ()
                if strategy == "combine":
                    material = tuple(rng.sample(list(bugs), NUM_COMBINED))
                elif self._is_seeded(repo):
                    seed = self._draw_seed(rng, repo, strategy, counts.get(repo, {}))
                if seed is None:
                    continue
                task = InjectionTask(
                    task_id=f"{group_id}/{number}",
                    repo=repo,
                    strategy=strategy,
                    seed=seed,
                    limits=self._limits,
                    material=material,
                    kinds=order_of_kinds(rng, strategy, lessons) if adaptive else (),
                )
                planned.append(PlannedInjection(task=task, group_id=group_id))
        return planned

    def _draw_repos(self, rng: random.Random, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        names = [name for name, functions in self._eligible.items() if functions]
        rng.shuffle(names)
        names.sort(key=lambda name: sum(counts.get(name, {}).values()))
        wanted = self._curriculum.num_groups
        return [names[i % len(names)] for i in range(wanted)] if names else []

    def _is_seeded(self, repo: str) -> bool:
        """Whether an injector is told where: always in one turn, by configuration with tools."""
        roles = self._arenas[repo].agentic
        return roles is None or roles.injector.config.seeded

    def _draw_strategy(self, rng: random.Random, repo: str, num_bugs: int) -> Strategy:
        names = AGENTIC if self._arenas[repo].agentic is not None else COMPACT
        weights: dict[Strategy, float] = {
            name: self._injector.strategies.get(name, 0.0) for name in names
        }
        if self._arenas[repo].prepared.history is None:
            weights["history"] = 0.0
        if num_bugs < NUM_COMBINED and "combine" in weights:
            weights["combine"] = 0.0
        if not any(weights.values()):
            return "direct"
        return rng.choices(list(weights), weights=list(weights.values()))[0]

    def _draw_seed(
        self, rng: random.Random, repo: str, strategy: Strategy, counts: Mapping[str, int]
    ) -> Target | None:
        """A function with few bugs; for history one that has a past change (20 tries)."""
        cap = self._curriculum.max_bugs_per_function
        functions = [
            f for f in self._eligible[repo] if counts.get(f"{f.path}::{f.qualname}", 0) < cap
        ]
        if not functions:
            return None
        weights = [1.0 / (1 + counts.get(f"{f.path}::{f.qualname}", 0)) ** 2 for f in functions]
        role = self._arenas[repo].injector
        for function in rng.choices(functions, weights=weights, k=20):
            if strategy != "history":
                return Target(path=function.path, function=function.qualname)
            changes = role.undoable_changes(function.path, function.qualname)
            if changes:
                chosen = rng.choice(changes)
                return Target(path=function.path, function=function.qualname, commit=chosen.commit)
        return None


def eligible_functions(repo_context: RepoContext) -> list[FunctionInfo]:
    """Functions short enough to be shown that at least one stable, affordable test reaches."""
    prepared = repo_context.prepared
    return [
        function
        for function in prepared.functions
        if function.end_line - function.start_line + 1 >= MIN_FUNCTION_LINES
        and repo_context.injector.shown_whole(function)
        and repo_context.injector.oracle_files(function.path, function.qualname)
    ]
