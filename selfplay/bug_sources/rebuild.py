"""Modules to rebuild: what files do is taken away, their tests and documents stay.

A bug like any other: an artifact of five files that enters by the same door, the consistency
validation. Nothing of it is the model's, so it is for suites and the warm start of agents, and
never stands in for the injector in a run of self-play.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.runner import TestRunner, failed_tests
from selfplay.bugs.test_runs.scripts import parser_source, runner_script
from selfplay.repo.languages.registry import language_of
from selfplay.repo.prepare import PreparedRepo
from selfplay.seeds import derive_rng
from selfplay.types import BugArtifact, FileChange, Layer, Limits, TestTable

STRATEGY = "rebuild"
MAX_FILES = 12
"""Test files that one removal is rebuilt by, those with the most tests that reach it."""
MAX_WITNESSES = 3
"""Test files that show what still works, where no test of the others passes any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A module without its bodies (`level` bodies) or gone altogether (file), or all modules of a
    folder without their bodies (package). `path`: that module or folder; `num_functions` counts
    those that tests reach."""

    path: str
    level: str
    num_functions: int
    layer: Layer


class NoTask(Exception):
    """A removal that its tests cannot judge. A value in disguise."""


def removals(prepared: PreparedRepo, level: str, seed: int) -> Iterator[Removal]:
    """One for each module (with `package` each folder of two or more) with functions that tests
    reach, in an order that the seed draws."""
    reached = {name for info in prepared.profile.tests.values() for name in info.functions}
    modules: dict[str, set[str]] = {}
    functions: Counter[str] = Counter()
    for function in prepared.functions:
        place = function.path
        if level == "package":
            place = PurePosixPath(function.path).parent.as_posix()
        modules.setdefault(place, set()).add(function.path)
        functions[place] += f"{function.path}::{function.qualname}" in reached
    places = sorted(place for place in modules if functions[place])
    derive_rng(seed, prepared.name, STRATEGY, level).shuffle(places)
    for place in places:
        if level == "package" and len(modules[place]) < 2:
            continue
        layer: Layer = {}
        for path in sorted(modules[place]):
            gone: Layer = {path: FileChange(content=None)}
            layer = {**layer, **(gone if level == "file" else _bare(prepared, path))}
        if layer:
            yield Removal(path=place, level=level, num_functions=functions[place], layer=layer)


def _bare(prepared: PreparedRepo, path: str) -> Layer:
    """A module without its bodies; empty where none can go."""
    text = language_of(path).without_bodies(prepared.source(path))
    if text is None:
        return {}
    mode = (prepared.environment.tree / path).stat().st_mode
    content = text.encode("utf-8", "surrogateescape")
    return {path: FileChange(content=content, executable=bool(mode & 0o100))}


def artifact_of(
    removal: Removal, prepared: PreparedRepo, runner: TestRunner, limits: Limits
) -> BugArtifact:
    """The five files around a removal; runs its tests on both trees. Raises `NoTask` (a reason
    code), `SandboxError`."""
    profile, environment = prepared.profile, prepared.environment
    tests = _Tests(prepared=prepared, runner=runner, limits=limits)
    files = tests.judging(removal.layer)
    table = tests.table(files, removal.layer)
    removed = tests.needed(removal.layer, files, tests.failing(files, table))
    if len(removed) < len(removal.layer):
        table = tests.table(files, removed)
    failing = tests.failing(files, table)
    if not failing:
        raise NoTask("no_failing_test")
    if len(failing) == len(tests.of(files)):
        files = sorted([*files, *tests.witnesses(removed, files)])
    # Of a file that fails as a whole the tests are gone only when the file is.
    broken = [file for file in files if table.get(file) == "failed"]
    weakened = {
        **weakening_layer(environment.tree, [*failing, *broken]),
        **{file: FileChange(content=None) for file in broken},
    }
    return BugArtifact(
        test_script=runner_script(profile.runner, files),
        test_files=tuple(files),
        test_parser=parser_source(profile.runner),
        bug_patch=make_patch(environment.tree, {}, removed),
        weakening_patch=make_patch(environment.tree, {}, weakened),
        meta={
            "repo": prepared.name,
            "strategy": STRATEGY,
            "level": removal.level,
            "path": removal.path,
            "functions": removal.num_functions,
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Tests:
    """The test files of a repository, chosen to judge removals."""

    prepared: PreparedRepo
    runner: TestRunner
    limits: Limits

    def judging(self, removal: Layer) -> list[str]:
        """Those that reach what is removed and pass by themselves, as many as there is time for:
        half of a run's limit. Raises `NoTask`."""
        profile = self.prepared.profile
        reaching = Counter(
            info.file
            for info in profile.tests.values()
            if any(name.partition("::")[0] in removal for name in info.functions)
        )
        by_tests = sorted(reaching, key=lambda file: (-reaching[file], file))
        chosen = self._in_time(by_tests, self.limits.script_timeout_s / 2)
        while chosen:
            chosen = sorted(chosen)
            table = self.table(chosen, {})
            bad = {test.partition("::")[0] for test in failed_tests(table)}
            bad |= {profile.tests[test].file for test in self.failing(chosen, table)}
            if not bad & set(chosen):
                return chosen
            chosen = [file for file in chosen if file not in bad]
        raise NoTask("not_covered")

    def needed(self, removal: Layer, judging: Sequence[str], failing: Sequence[str]) -> Layer:
        """The removal without files that, put back alone, make none of the failing tests pass: no
        bug may have such (docs/validation.md). Raises `NoTask`."""
        if len(removal) < 2:
            return removal
        kept: Layer = {}
        for path in removal:
            others = {other: change for other, change in removal.items() if other != path}
            repaired = self.table(judging, others)
            if any(repaired.get(test) == "passed" for test in failing):
                kept = {**kept, path: removal[path]}
        if not kept:
            raise NoTask("file_contributes_nothing")
        return kept

    def witnesses(self, removal: Layer, judging: Sequence[str]) -> list[str]:
        """Others that pass as a whole with the removal and without it, the quickest first; none
        where nothing works any more. Raises `NoTask`."""
        cost = self.prepared.profile.test_files
        others = sorted(set(cost) - set(judging), key=lambda file: (cost[file], file))
        left = self.limits.script_timeout_s / 2 - sum(cost[file] for file in judging)
        others = self._in_time(others, left)
        if not others:
            return []
        tables = [self.table(sorted(others), layer) for layer in (removal, {})]
        bad = {test.partition("::")[0] for table in tables for test in failed_tests(table)}
        bad |= {file for file in others if not self.of([file])}
        lost = {test for test in self.of(others) for table in tables if test not in table}
        bad |= {self.prepared.profile.tests[test].file for test in lost}
        return [file for file in others if file not in bad][:MAX_WITNESSES]

    def of(self, files: Sequence[str]) -> list[str]:
        """The known tests of some files."""
        return [test for test, info in self.prepared.profile.tests.items() if info.file in files]

    def failing(self, files: Sequence[str], table: TestTable) -> list[str]:
        """Those of them that did not pass."""
        return [test for test in self.of(files) if table.get(test) != "passed"]

    def table(self, files: Sequence[str], layer: Layer) -> TestTable:
        """What each test of some files gave. Raises `NoTask` (timed_out), `SandboxError`."""
        name, limit = self.prepared.profile.runner, self.limits.script_timeout_s
        script, parser = runner_script(name, files), parser_source(name)
        run = self.runner.run(script, parser, layer, timeout_s=limit)
        if run.timed_out:
            raise NoTask("timed_out")
        return run.table

    def _in_time(self, files: Iterable[str], seconds: float) -> list[str]:
        """The first of these, as many as there is time for."""
        chosen: list[str] = []
        for file in files:
            cost = self.prepared.profile.test_files[file]
            if cost <= seconds and len(chosen) < MAX_FILES:
                chosen.append(file)
                seconds -= cost
        return chosen
