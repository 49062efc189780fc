"""Modules to rebuild: what a file does is taken away, its tests and documents stay.

A bug like any other: an artifact of five files that enters by the same door, the consistency
validation. Nothing of it is the model's, so it is for suites and the warm start of agents, and
never stands in for the injector in a run of self-play.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.runner import TestRunner, failed_tests
from selfplay.bugs.test_runs.scripts import parser_source, runner_script
from selfplay.repo.languages.registry import language_of
from selfplay.repo.prepare import PreparedRepo
from selfplay.seeds import derive_rng
from selfplay.types import BugArtifact, FileChange, Layer, Limits

LEVELS = ("bodies", "file")
STRATEGY = "rebuild"
MAX_FILES = 12
"""Test files that one module is rebuilt by, those with the most tests that reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A module without its bodies (`level` bodies), or gone altogether (file)."""

    path: str
    level: str
    num_functions: int
    layer: Layer


class NoTask(Exception):
    """A removal that its tests cannot judge. A value in disguise."""


def removals(prepared: PreparedRepo, level: str, seed: int) -> Iterator[Removal]:
    """One for each module with functions that tests reach, in an order that the seed draws."""
    reached = {name for info in prepared.profile.tests.values() for name in info.functions}
    modules = Counter(
        function.path
        for function in prepared.functions
        if f"{function.path}::{function.qualname}" in reached
    )
    paths = sorted(modules)
    derive_rng(seed, prepared.name, STRATEGY, level).shuffle(paths)
    for path in paths:
        change = FileChange(content=None)
        if level == "bodies":
            text = language_of(path).without_bodies(prepared.source(path))
            if text is None:
                continue
            mode = (prepared.environment.tree / path).stat().st_mode
            content = text.encode("utf-8", "surrogateescape")
            change = FileChange(content=content, executable=bool(mode & 0o100))
        yield Removal(path=path, level=level, num_functions=modules[path], layer={path: change})


def artifact_of(
    removal: Removal, prepared: PreparedRepo, runner: TestRunner, limits: Limits
) -> BugArtifact:
    """The five files around a removal; runs its tests on both trees. Raises `NoTask` (a reason
    code), `SandboxError`."""
    profile, environment = prepared.profile, prepared.environment
    files = _judges(removal, prepared, runner, limits)
    script, parser = runner_script(profile.runner, files), parser_source(profile.runner)
    run = runner.run(script, parser, removal.layer, timeout_s=limits.script_timeout_s)
    if run.timed_out:
        raise NoTask("timed_out")
    known = [test for test, info in profile.tests.items() if info.file in files]
    failing = [test for test in known if run.table.get(test) != "passed"]
    if not failing:
        raise NoTask("no_failing_test")
    broken = [file for file in files if run.table.get(file) == "failed"]  # as a whole
    weakened = weakening_layer(environment.tree, [*failing, *broken])
    return BugArtifact(
        test_script=script,
        test_files=tuple(files),
        test_parser=parser,
        bug_patch=make_patch(environment.tree, {}, removal.layer),
        weakening_patch=make_patch(environment.tree, {}, weakened),
        meta={
            "repo": prepared.name,
            "strategy": STRATEGY,
            "level": removal.level,
            "path": removal.path,
            "functions": removal.num_functions,
        },
    )


def _judges(
    removal: Removal, prepared: PreparedRepo, runner: TestRunner, limits: Limits
) -> list[str]:
    """Test files that reach the module and pass by themselves, as many as there is time for: half
    of a run's limit. Raises `NoTask`."""
    profile = prepared.profile
    reaching = Counter(
        info.file
        for info in profile.tests.values()
        if any(name.partition("::")[0] == removal.path for name in info.functions)
    )
    chosen: list[str] = []
    seconds = 0.0
    for file, _ in sorted(reaching.items(), key=lambda item: (-item[1], item[0])):
        cost = profile.test_files[file]
        if seconds + cost <= limits.script_timeout_s / 2 and len(chosen) < MAX_FILES:
            chosen.append(file)
            seconds += cost
    while chosen:
        chosen = sorted(chosen)
        script, parser = runner_script(profile.runner, chosen), parser_source(profile.runner)
        run = runner.run(script, parser, {}, timeout_s=limits.script_timeout_s)
        if run.timed_out:
            raise NoTask("timed_out")
        bad = {test.partition("::")[0] for test in failed_tests(run.table)}
        bad |= {
            info.file
            for test, info in profile.tests.items()
            if info.file in chosen and run.table.get(test) != "passed"
        }
        if not bad & set(chosen):
            return chosen
        chosen = [file for file in chosen if file not in bad]
    raise NoTask("not_covered")
