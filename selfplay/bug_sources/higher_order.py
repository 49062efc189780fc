"""Higher-order bugs: a failed repair that applies becomes a bug of its own (arXiv 2512.18552).

The new buggy state is the bug with the failed fix above it. Its failing tests are found anew, the
weakening hides those, and it enters by the same door as any bug: the whole validation. Never beyond
order 2; a state that fails the same tests as a known bug is dropped.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from selfplay.bugs.artifact import solve_task
from selfplay.bugs.patches.layers import apply_patch, file_state, make_patch, normal_layer
from selfplay.bugs.patches.paths import is_hook_path, is_source_path
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.runner import TestRunner, passed_tests
from selfplay.bugs.test_runs.scripts import script_runner
from selfplay.bugs.validation.validate import validate
from selfplay.errors import PatchError, SandboxError
from selfplay.repo.discovery.test_names import test_names
from selfplay.types import BugArtifact, Layer, SolveTask

MAX_ORDER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """The new bug's task, or the reason why there is none."""

    reason: str
    task: SolveTask | None = None


def bug_order(artifact: BugArtifact) -> int:
    """1 for a bug that was planted, 2 for one that grew from a failed repair."""
    order = artifact.meta.get("order", 1)
    return order if isinstance(order, int) else 1


def grow(
    task: SolveTask, fix_patch: str, runner: TestRunner, known: Collection[frozenset[str]] = ()
) -> Grown:
    """The second-order bug of one failed fix. `known` are failing sets that are taken.

    Raises `SandboxError` when the infrastructure fails.
    """
    if bug_order(task.artifact) >= MAX_ORDER:
        return Grown(reason="order")
    tree = runner.environment.tree
    try:
        state = grown_state(task, fix_patch, runner)
    except PatchError:
        return Grown(reason="does_not_apply")
    bug = normal_layer(tree, apply_patch(tree, {}, task.artifact.bug_patch))
    if not state or state == bug:
        return Grown(reason="no_source_change")
    failing = failing_tests(task, state, runner)
    if not failing:
        return Grown(reason="nothing_fails")
    if failing == frozenset(task.fail_to_pass) or failing in known:
        return Grown(reason="same_failures")
    artifact = grown_artifact(task, state, failing, runner)
    report = validate(artifact, runner.environment, runner, task.limits)
    if report.verdict == "undecided":
        raise SandboxError(f"a higher-order bug could not be validated: {report.reason}")
    if report.verdict == "invalid":
        return Grown(reason=report.reason)
    grown = solve_task(task.repo, artifact, report, task.limits)
    return Grown(reason="valid", task=grown)


def grown_state(task: SolveTask, fix_patch: str, runner: TestRunner) -> Layer:
    """Original -> bug with the source changes of the failed fix. Raises `PatchError`."""
    tree, artifact = runner.environment.tree, task.artifact
    bug = apply_patch(tree, {}, artifact.bug_patch)
    sealed = apply_patch(tree, bug, artifact.weakening_patch)
    fixed = apply_patch(tree, sealed, fix_patch)
    changed = {
        path: file_state(tree, fixed, path)
        for path in dict.fromkeys([*sealed, *fixed])
        if file_state(tree, sealed, path) != file_state(tree, fixed, path)
        and is_source_path(path, artifact.test_files, test_names(tree))
        and not is_hook_path(path)
    }
    return normal_layer(tree, {**bug, **changed})


def failing_tests(task: SolveTask, state: Layer, runner: TestRunner) -> frozenset[str]:
    """Tests that pass on the original and do not in `state`; empty when the run says nothing."""
    artifact, timeout_s = task.artifact, task.limits.script_timeout_s
    original, run = (
        runner.run(artifact.test_script, artifact.test_parser, layer, timeout_s=timeout_s)
        for layer in ({}, state)
    )
    if run.timed_out or not run.parser_ok:
        return frozenset()
    return frozenset(t for t in passed_tests(original.table) if run.table.get(t) != "passed")


def grown_artifact(
    task: SolveTask, state: Layer, failing: frozenset[str], runner: TestRunner
) -> BugArtifact:
    """The artifact of the new state; a script of the injector's own keeps its weakening."""
    tree, parent = runner.environment.tree, task.artifact
    weakening = parent.weakening_patch
    if script_runner(parent.test_script) is not None:
        weakening = make_patch(tree, {}, weakening_layer(tree, sorted(failing)))
    return BugArtifact(
        test_script=parent.test_script,
        test_files=parent.test_files,
        test_parser=parent.test_parser,
        bug_patch=make_patch(tree, {}, state),
        weakening_patch=weakening,
        meta={**parent.meta, "order": bug_order(parent) + 1, "parent": task.bug_id},
    )
