"""Grading of a fix patch (docs/validation.md): explicit passes only, on restored oracle tests.

State: original, bug patch, weakening patch, fix patch; then every oracle test file, every test
helper and every hook that the fix touched goes back to the original. A canary that must fail runs
along, results must agree with JUnit XML, and a "resolved" run is repeated with poisoned tests.
Reason codes are listed in docs/validation.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfplay.bugs.code_signals.signals import new_signals
from selfplay.bugs.grading.canaries import make_canary
from selfplay.bugs.grading.canary import Canary
from selfplay.bugs.grading.cut_ids import with_whole_ids
from selfplay.bugs.grading.early import refused_early
from selfplay.bugs.grading.poisoned_tests import disarmed_tests
from selfplay.bugs.patches.diffs import parse_patch, touched_files
from selfplay.bugs.patches.foreign import as_git_writes
from selfplay.bugs.patches.layers import apply_patch, file_state, normal_layer, read_file
from selfplay.bugs.patches.paths import is_hook_path, is_shadowing, is_test_path
from selfplay.bugs.patches.stray import usable_parts
from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.junit import unsupported_passes
from selfplay.bugs.test_runs.runner import RunsTests, TestRun
from selfplay.bugs.test_runs.scripts import parser_runner, script_runner
from selfplay.errors import PatchError
from selfplay.repo.discovery.test_names import test_names
from selfplay.types import GradeReport, Layer, SolveTask

IN_FIX = ("runner", "dynamic", "equality", "source_reading")


class NotResolved(Exception):
    """The fix is out before a run, or the run is void. A value in disguise."""


def grade(
    task: SolveTask,
    fix_patch: str,
    runner: RunsTests,
    seconds: Mapping[str, float] | None = None,
) -> GradeReport:
    """Grade one fix patch in fresh sandboxes: reward 1 or -1.

    With `seconds`, measured durations of single tests, failures are decided early (`early.py`);
    tests that then did not run have the status "not_run". Raises `SandboxError` when the
    infrastructure fails: that is never a reward.
    """
    try:
        layer = graded_layer(task, fix_patch, runner)
    except NotResolved as out:
        return _report(task, None, str(out))
    refused = None if seconds is None else refused_early(task, layer, runner, seconds)
    if refused is not None:
        return _report(task, *refused, absent="not_run")
    run, canary = _run(task, layer, runner)
    task = with_whole_ids(task, run.table)
    reason = _void(task, run, canary) or _missing_passes(task, run)
    if not reason and disarmed_tests(task, layer, runner):
        reason = "runner_disarmed"
    return _report(task, run, reason)


def graded_layer(task: SolveTask, fix_patch: str, runner: RunsTests) -> Layer:
    """The state that is graded. Raises `NotResolved` for fixes that cannot count."""
    environment, artifact = runner.environment, task.artifact
    tree = environment.tree
    if not fix_patch.strip():
        raise NotResolved("empty_patch")
    bug = apply_patch(tree, {}, artifact.bug_patch)
    sealed = apply_patch(tree, bug, artifact.weakening_patch)
    fixed = fixed_layer(tree, sealed, fix_patch)
    changed = [
        path
        for path in dict.fromkeys([*sealed, *fixed])
        if file_state(tree, sealed, path) != file_state(tree, fixed, path)
    ]
    if not changed:
        raise NotResolved("empty_patch")
    ours = {*artifact.test_files, *touched_files(artifact.weakening_patch)}
    buggy = set(touched_files(artifact.bug_patch))
    refused: dict[str, str] = {}
    names = test_names(tree)
    for path in changed:
        new = read_file(tree, {}, path) is None and path not in buggy
        if path in ours or (is_test_path(path, ours, names) and path not in buggy):
            refused[path] = "only_tests"
        elif is_hook_path(path) or (new and is_shadowing(path, environment)):
            refused[path] = "only_hooks"
    if len(refused) == len(changed):
        raise NotResolved(min(refused.values(), key=("only_tests", "only_hooks").index))
    kept = [path for path in changed if path not in refused]
    if any(_tampers(tree_text(runner, sealed, fixed, path), path) for path in kept):
        raise NotResolved("tampering")
    return normal_layer(tree, {p: c for p, c in fixed.items() if p not in ours | refused.keys()})


def fixed_layer(tree: Path, sealed: Layer, fix_patch: str) -> Layer:
    """The sealed state with a fix of any origin: as it is, else as git would have written it.

    Raises `NotResolved`.
    """
    patch = usable_parts(fix_patch)
    try:
        return apply_patch(tree, sealed, patch)
    except PatchError:
        pass

    def is_file(path: str) -> bool:
        return read_file(tree, sealed, path) is not None

    try:
        patch = usable_parts(as_git_writes(fix_patch, is_file))
        parse_patch(patch)
    except PatchError:
        raise NotResolved("patch_malformed") from None
    try:
        return apply_patch(tree, sealed, patch)
    except PatchError:
        raise NotResolved("patch_does_not_apply") from None


def tree_text(runner: RunsTests, sealed: Layer, fixed: Layer, path: str) -> tuple[str, str, str]:
    """A file's text after the fix, in the original and in the buggy state."""
    tree = runner.environment.tree
    states: tuple[Layer, Layer, Layer] = (fixed, {}, sealed)
    after, original, buggy = (
        (read_file(tree, state, path) or b"").decode("utf-8", "surrogateescape") for state in states
    )
    return after, original, buggy


def _tampers(texts: tuple[str, str, str], path: str) -> bool:
    """Whether a fix adds code that reaches for the test runner or hides what it does."""
    after, *before = texts
    return bool(new_signals(path, after, before, IN_FIX))


def _run(task: SolveTask, layer: Layer, runner: RunsTests) -> tuple[TestRun, Canary | None]:
    """The graded run, and the canary that ran along."""
    artifact = task.artifact
    script, canary = artifact.test_script, None
    kind = script_runner(script)
    if kind is not None:
        canary = make_canary(task, layer, kind, runner.environment)
        script, layer = canary.script, canary.layer
    run = runner.run(script, artifact.test_parser, layer, timeout_s=task.limits.script_timeout_s)
    return run, canary


def _void(task: SolveTask, run: TestRun, canary: Canary | None) -> str:
    """The reason why a run does not count, "" when it does."""
    if run.timed_out:
        return "timed_out"
    if run.output_truncated:
        return "output_truncated"
    if not run.parser_ok:
        return "parser_failed"
    if not run.table:
        return "no_results"
    kind = script_runner(task.artifact.test_script)
    shipped = parser_runner(task.artifact.test_parser) == kind
    if canary and shipped and (not canary.failed(run.table) or run.exit_code != 1):
        return "canary"
    if kind and shipped and FRAMEWORKS[kind].writes_junit:
        expected = [*task.fail_to_pass, *task.pass_to_pass]
        passed = [test for test in expected if run.table.get(test) == "passed"]
        if unsupported_passes(passed, run.junit):
            return "junit_disagrees"
    return ""


def _missing_passes(task: SolveTask, run: TestRun) -> str:
    if not task.fail_to_pass:
        return "nothing_to_pass"
    if any(run.table.get(test) != "passed" for test in task.fail_to_pass):
        return "fail_to_pass"
    if any(run.table.get(test) != "passed" for test in task.pass_to_pass):
        return "pass_to_pass"
    return ""


def _report(
    task: SolveTask, run: TestRun | None, reason: str, absent: str = "missing"
) -> GradeReport:
    table = run.table if run is not None else {}
    return GradeReport(
        resolved=not reason,
        reward=-1 if reason else 1,
        fail_to_pass={test: table.get(test, absent) for test in task.fail_to_pass},
        pass_to_pass={test: table.get(test, absent) for test in task.pass_to_pass},
        reason=reason,
    )
