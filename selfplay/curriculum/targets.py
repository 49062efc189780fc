"""What is asked next: repository, strategy and target, drawn where the corpus so far is thin."""

from __future__ import annotations

import random
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from selfplay.compact.excerpts import shown_whole
from selfplay.compact.oracle_tests import OracleTests
from selfplay.config import CurriculumConfig, InjectorConfig, ScaffoldConfig
from selfplay.curriculum.asking.samplers import (
    Lessons,
    make_sampler,
    order_of_kinds,
    under_covered,
)
from selfplay.curriculum.scaffold import Scaffold
from selfplay.repo.history import PastChange, past_changes
from selfplay.repo.languages.functions import FunctionInfo
from selfplay.repo.languages.python_source import same_code, split_lines
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.compact.injector import MAX_CHANGE_LINES, MAX_PAST_CHANGES
from selfplay.seeds import derive_rng
from selfplay.types import BugArtifact, InjectionTask, Strategy, Target

MIN_FUNCTION_LINES = 3
NUM_COMBINED = 2
HISTORY_TRIES = 20
"""Functions that are looked at for a past change before a history task is given up."""

KnownBugs = Callable[[str], Sequence[BugArtifact]]
"""First-order bugs of a repository that earlier steps found, in a fixed order."""
NOTHING: Mapping[str, int] = MappingProxyType({})
Worth = Mapping[str, tuple[float, float]]
"""{"path::function": (its bugs that were met with both outcomes, others)}; parts of a bug count."""
NO_WORTH: Worth = MappingProxyType({})


def mean_worth(worth: Worth) -> float:
    """Share of the bugs of a repository that were met with both outcomes; one in ten beforehand."""
    varied = sum(v for v, _ in worth.values())
    return (1.0 + varied) / (10.0 + varied + sum(f for _, f in worth.values()))


def promise(record: tuple[float, float] | None, mean: float) -> float:
    """How much better than the mean a function's bugs were, which counts like one of them; 1 for a
    function without a record. One bug with both outcomes, mean 0.2: (0.2 + 1) / 2 / 0.2 = 3."""
    if record is None:
        return 1.0
    varied, flat = record
    return (mean + varied) / (1.0 + varied + flat) / mean


class RepoTargets:
    """Where bugs may be planted in one repository."""

    def __init__(self, prepared: PreparedRepo, config: ScaffoldConfig) -> None:
        oracle = OracleTests(
            prepared.profile, max_files=config.max_oracle_files, max_s=config.max_oracle_s
        )
        self._prepared = prepared
        self.has_history = prepared.history is not None
        self.functions = [
            function
            for function in prepared.functions
            if function.end_line - function.start_line + 1 >= MIN_FUNCTION_LINES
            and shown_whole(prepared.source(function.path), function, config.max_function_lines)
            and oracle.files(function.path, function.qualname)
        ]
        """Short enough to be shown, and reached by a stable, affordable test."""

    def draw(
        self,
        rng: random.Random,
        strategy: Strategy,
        counts: Mapping[str, int],
        cap: int,
        worth: Worth = NO_WORTH,
        *,
        levels: Collection[str] = ("function",),
        power: int = 2,
        file_cap: int | None = None,
    ) -> Target | None:
        """A function with few bugs, for the history strategy with a past change of it.

        `counts["path::function"]` bugs are known there: its weight is 1 / (1 + count)^power with
        the level "function", times what these were worth (`promise`), and 0 from `cap` on. With the
        level "file" a file with n bugs in its m functions counts 1 / (1 + n / m). None when no
        function is left.
        """
        in_file: Counter[str] = Counter()
        for name, number in counts.items():
            in_file[name.partition("::")[0]] += number
        free = [
            (function, number)
            for function in self.functions
            if (number := counts.get(_name(function), 0)) < cap
            and (file_cap is None or in_file[function.path] < file_cap)
        ]
        if not free:
            return None
        mean = mean_worth(worth)
        sizes = Counter(function.path for function in self.functions)
        weights = [
            promise(worth.get(_name(function)), mean)
            / ((1 + count) ** power if "function" in levels else 1)
            / (1 + in_file[function.path] / sizes[function.path] if "file" in levels else 1)
            for function, count in free
        ]
        for function, _ in rng.choices(free, weights=weights, k=HISTORY_TRIES):
            if strategy != "history":
                return Target(path=function.path, function=function.qualname)
            if changes := self.undoable_changes(function):
                commit = rng.choice(changes).commit
                return Target(path=function.path, function=function.qualname, commit=commit)
        return None

    def undoable_changes(self, function: FunctionInfo) -> list[PastChange]:
        """Past changes worth asking for: short, of code, and still in the function.

        At least half of the lines that a change added must stand in the function as it is now.
        """
        path, name = function.path, function.qualname
        lines = split_lines(self._prepared.source(path))
        current = {line.strip() for line in lines[function.start_line - 1 : function.end_line]}
        found = []
        for change in past_changes(self._prepared, path, name, limit=MAX_PAST_CHANGES):
            changed = change.changed_lines()
            added = [line[1:].strip() for line in changed if line.startswith("+")]
            there = sum(line in current for line in added)
            code = not same_code(textwrap.dedent(change.before), textwrap.dedent(change.after))
            if code and 0 < len(changed) <= MAX_CHANGE_LINES and 2 * there >= len(added):
                found.append(change)
        return found


class TaskSampler:
    """Draws the injection tasks of a step as a function of (seed, step, corpus counts)."""

    def __init__(
        self,
        targets: Mapping[str, RepoTargets],
        scaffold: Scaffold,
        *,
        curriculum: CurriculumConfig,
        injector: InjectorConfig,
        seed: int,
    ) -> None:
        self.targets = targets
        self._scaffold = scaffold
        self._curriculum = curriculum
        self.wanted = make_sampler(curriculum)
        self._strategies = injector.strategies
        self._limits = injector.limits()
        self._seed = seed

    def draw(
        self,
        step: int,
        counts: Mapping[str, Mapping[str, int]],
        known_bugs: KnownBugs = lambda repo: (),
        lessons: Lessons = MappingProxyType({}),
        worth: Mapping[str, Worth] = MappingProxyType({}),
        by_strategy: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    ) -> list[InjectionTask]:
        """`num_groups x seeds_per_group` tasks.

        `counts[repo]["path::function"]` is how many bugs the corpus holds there; repositories and
        functions with fewer bugs are drawn more often, full ones (`max_bugs_per_function`) never.
        `known_bugs` are what the strategy "combine" draws from; `lessons` say which kinds of bug
        are wanted, `worth` which functions, `by_strategy[repo]` how many bugs each strategy has
        given; the sampler (`wanted`) decides what of it counts.
        """
        shape, wanted = self._curriculum, self.wanted
        rng = derive_rng(self._seed, step, "seeds")
        tasks = []
        there = {repo: Counter(counts.get(repo, NOTHING)) for repo in self.targets}
        for index, repo in enumerate(self._draw_repos(rng, counts)):
            bugs = known_bugs(repo)
            strategy = self._draw_strategy(rng, repo, len(bugs), by_strategy.get(repo, NOTHING))
            group_id = f"step{step}/injector/{repo}/{strategy}/{index}"
            for number in range(self._curriculum.seeds_per_group):
                target: Target | None = Target()
                material: tuple[BugArtifact, ...] = ()
                if strategy == "combine":
                    material = tuple(rng.sample(list(bugs), NUM_COMBINED))
                elif self._scaffold.targeted:
                    target = self.targets[repo].draw(
                        rng,
                        strategy,
                        there[repo],
                        shape.max_bugs_per_function,
                        worth.get(repo, NO_WORTH) if wanted.places else NO_WORTH,
                        levels=wanted.levels,
                        power=wanted.power,
                        file_cap=shape.max_bugs_per_file,
                    )
                if target is None:
                    continue
                if wanted.counts_asked:
                    there[repo][f"{target.path}::{target.function}"] += 1
                task = InjectionTask(
                    task_id=f"{group_id}/{number}",
                    repo=repo,
                    strategy=strategy,
                    target=target,
                    limits=self._limits,
                    material=material,
                    kinds=order_of_kinds(rng, strategy, lessons) if wanted.kinds else (),
                )
                tasks.append(task)
        return tasks

    def _draw_repos(self, rng: random.Random, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        known = {name: sum(counts.get(name, NOTHING).values()) for name in self.targets}
        cap = self._curriculum.max_bugs_per_repo
        names = [
            name
            for name, targets in self.targets.items()
            if targets.functions and (cap is None or known[name] < cap)
        ]
        rng.shuffle(names)
        if "repository" in self.wanted.levels:
            names.sort(key=lambda name: known[name])
        wanted = self._curriculum.num_groups
        return [names[i % len(names)] for i in range(wanted)] if names else []

    def _draw_strategy(
        self, rng: random.Random, repo: str, num_bugs: int, counts: Mapping[str, int]
    ) -> Strategy:
        """By weight, among those that the scaffold knows and the repository has the stuff for."""
        weights: dict[Strategy, float] = {
            name: self._strategies.get(name, 0.0) for name in self._scaffold.strategies
        }
        if not self.targets[repo].has_history:
            weights["history"] = 0.0
        if num_bugs < NUM_COMBINED and "combine" in weights:
            weights["combine"] = 0.0
        if not any(weights.values()):
            return "direct"
        if "strategy" in self.wanted.levels:
            total, number = sum(weights.values()), sum(counts.get(name, 0) for name in weights)
            weights = {
                name: under_covered(weight, total, counts.get(name, 0), number)
                for name, weight in weights.items()
            }
        return rng.choices(list(weights), weights=list(weights.values()))[0]


def _name(function: FunctionInfo) -> str:
    return f"{function.path}::{function.qualname}"
