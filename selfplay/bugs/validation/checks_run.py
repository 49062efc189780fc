"""The consistency checks that run the oracle tests on states of the code (docs/validation.md)."""

from __future__ import annotations

from selfplay.bugs.code_signals.chance import touches_chance
from selfplay.bugs.patches.diffs import parse_patch, reverse_hunks
from selfplay.bugs.patches.layers import apply_patch, read_file
from selfplay.bugs.test_runs.runner import TestRun, failed_tests, passed_tests
from selfplay.bugs.test_runs.scripts import on_targets, script_targets
from selfplay.bugs.validation.elsewhere import passing_elsewhere
from selfplay.bugs.validation.unstable_ids import unstable_ids
from selfplay.bugs.validation.validation_state import CheckFailed, ValidationState, without
from selfplay.types import TestTable

OTHER_SEED = 1
CHANCE_RUNS = 10
"""Runs of a bug that touches a source of chance, each under a hash seed of its own."""


def check_parser(state: ValidationState) -> str:
    """The parser turns the real output of the original code into a non-empty table."""
    run = state.readable(state.run({}), "original code")
    state.original_run = run
    return f"{len(run.table)} tests"


def check_script(state: ValidationState) -> str:
    """On the original code enough tests pass and none fails."""
    assert state.original_run is not None
    table = state.original_run.table
    failing = failed_tests(table)
    if failing:
        raise CheckFailed("tests_failing", f"{len(failing)} fail on the original: {failing[:5]}")
    passing = len(passed_tests(table))
    if passing < state.limits.min_passing_tests:
        raise CheckFailed(
            "too_few_passing", f"{passing} pass, {state.limits.min_passing_tests} wanted"
        )
    return f"{passing} pass"


def check_bug(state: ValidationState) -> str:
    """Enough tests that pass on the original do not pass with the bug; at least one still does,
    of the oracle's or of another file.

    A test that vanishes (its file cannot be imported any more) counts as failing, as it does in
    grading, but at least one failure must be reported by the run.
    """
    run = state.run(state.bug)
    passes = state.original_passes
    fails = any(run.table.get(test) == "failed" for test in passes)
    if not run.timed_out and run.parser_ok and not passed_tests(run.table) and not fails:
        raise CheckFailed("nothing_passes", "no test passes with the bug; the suite is broken")
    run = state.readable(run, "with the bug")
    state.bug_run = run
    state.pass_to_pass = [t for t in passes_in_order(state) if run.table.get(t) == "passed"]
    state.fail_to_pass = [t for t in passes_in_order(state) if run.table.get(t) != "passed"]
    if not state.pass_to_pass:
        state.elsewhere = passing_elsewhere(state) if fails else []
        if not state.elsewhere:
            raise CheckFailed("nothing_passes", "no test passes with the bug, nor in other files")
    reported = failed_tests(run.table)
    if len(state.fail_to_pass) < state.limits.min_failing_tests or not reported:
        raise CheckFailed(
            "too_few_failing",
            f"{len(state.fail_to_pass)} of {len(passes)} passing tests fail with the bug, "
            f"{state.limits.min_failing_tests} wanted",
        )
    missing = sum(test not in run.table for test in state.fail_to_pass)
    passing = f"{len(state.pass_to_pass)} pass"
    if state.elsewhere:
        passing += f", in other files {len(state.elsewhere)}"
    return f"{len(state.fail_to_pass)} fail ({missing} missing), {passing}"


def passes_in_order(state: ValidationState) -> list[str]:
    """Tests that pass on the original, in the parser's order."""
    assert state.original_run is not None
    return passed_tests(state.original_run.table)


def check_weakening(state: ValidationState) -> str:
    """Some failing tests pass again or are hidden once weakened, and no other test breaks."""
    run = state.run(state.weakened_state, script=_script_of_what_is_left(state))
    none_left = run.parser_ok and not (run.table or run.timed_out or run.output_truncated)
    if not (none_left and state.elsewhere):  # where all fail, all may be hidden
        run = state.readable(run, "weakened")
    assert state.bug_run is not None
    table, buggy = run.table, state.bug_run.table
    again = [t for t in state.fail_to_pass if table.get(t) == "passed"]
    hidden = [t for t in state.fail_to_pass if _hidden(t, table)]
    failing = [t for t in state.fail_to_pass if table.get(t) == "failed"]
    broken = [t for t in failed_tests(table) if buggy.get(t) != "failed"]
    lost = sum(test not in table for test in state.pass_to_pass)
    detail = (
        f"{len(again)} pass again, {len(hidden)} hidden, {len(failing)} still fail, "
        f"{lost} passing tests removed"
    )
    if broken:
        raise CheckFailed("weakening_breaks_tests", f"{detail}; newly failing: {broken[:5]}")
    if not again and not hidden:
        raise CheckFailed("weakening_hides_nothing", detail)
    return detail


def _script_of_what_is_left(state: ValidationState) -> str:
    """A shipped script without the files that the weakening deletes: a runner that misses one of
    its files runs none. The script as it is where it would have none."""
    script, tree = state.artifact.test_script, state.environment.tree
    targets = script_targets(script)
    left = [
        t
        for t in targets
        if read_file(tree, state.weakened_state, t.partition("::")[0]) is not None
    ]
    return on_targets(script, left) if left and len(left) < len(targets) else script


def _hidden(test: str, table: TestTable) -> bool:
    """Absent, and not because its file failed as a whole (`tests/test_a.py` itself "failed")."""
    return test not in table and table.get(test.partition("::")[0]) != "failed"


def check_inverse_mutation(state: ValidationState) -> str:
    """With any one file of the bug back at its original, at least one failing test passes.

    Full buggy state, that file restored, un-weakened tests. A renamed file is one unit. A state
    that cannot be read does not count as a contribution.
    """
    units = dict.fromkeys(file.paths for file in parse_patch(state.artifact.bug_patch))
    details: list[str] = []
    for paths in units:
        name = " -> ".join(paths)
        if not any(path in state.bug for path in paths):
            raise CheckFailed("file_contributes_nothing", f"{name}: does not change in the end")
        run = state.run(without(state.bug, paths))
        repaired = _repaired(state, run)
        if not repaired:
            why = ": timed out" if run.timed_out else ""
            raise CheckFailed(
                "file_contributes_nothing", f"{name}: no failing test passes without it{why}"
            )
        details.append(f"{name}: {repaired}")
    if state.limits.inverse_hunks:
        details += _check_hunks(state)
    return "; ".join(details)


def _check_hunks(state: ValidationState) -> list[str]:
    """The same for each hunk of files that have several, with all others in place."""
    details: list[str] = []
    for name, patch in reverse_hunks(state.artifact.bug_patch):
        layer = apply_patch(state.environment.tree, state.bug, patch)
        repaired = _repaired(state, state.run(layer))
        if not repaired:
            raise CheckFailed(
                "hunk_contributes_nothing", f"{name}: no failing test passes without this hunk"
            )
        details.append(f"{name}: {repaired}")
    return details


def _repaired(state: ValidationState, run: TestRun) -> int:
    if run.timed_out or not run.parser_ok or run.output_truncated:
        return 0
    return sum(run.table.get(test) == "passed" for test in state.fail_to_pass)


def check_determinism(state: ValidationState) -> str:
    """Original and buggy state again, under another hash seed; tests that disagree leave.

    A bug that touches a source of chance runs `CHANCE_RUNS` times in all, and one disagreement
    ends it: what fails with an even chance gets through once in a thousand.
    """
    assert state.bug_run is not None and state.original_run is not None
    limits = state.limits
    again = state.run(state.bug, hash_seed=OTHER_SEED)
    original = state.run({}, hash_seed=OTHER_SEED)
    gone = set(unstable_ids(state.environment.tree, passes_in_order(state)))
    flaky = [
        test
        for test in passes_in_order(state)
        if test in gone
        or original.table.get(test) != "passed"
        or (again.table.get(test) == "passed") != (state.bug_run.table.get(test) == "passed")
    ]
    state.flaky = flaky
    out = set(flaky)
    state.fail_to_pass = [t for t in state.fail_to_pass if t not in out]
    state.pass_to_pass = [t for t in state.pass_to_pass if t not in out]
    stable = len(state.fail_to_pass) + len(state.pass_to_pass)
    if (
        len(state.fail_to_pass) < limits.min_failing_tests
        or not (state.pass_to_pass or state.elsewhere)
        or stable < limits.min_passing_tests
    ):
        raise CheckFailed("flaky", f"{len(flaky)} tests disagree with themselves: {flaky[:5]}")
    detail = f"{len(flaky)} flaky tests left out" if flaky else ""
    touched = touches_chance(state.environment.tree, state.bug)
    odd = [test for test in flaky if test not in gone and original.table.get(test) == "passed"]
    if touched and odd:
        raise CheckFailed("by_chance", f"{touched}; two runs disagree on {odd[:5]}")
    return "; ".join(filter(None, (detail, _check_chance(state, touched) if touched else "")))


def _check_chance(state: ValidationState, touched: str) -> str:
    """Run the buggy state again and again. `touched` says which source of chance it reaches."""
    failing, passing = set(state.fail_to_pass), set(state.pass_to_pass)
    for seed in range(OTHER_SEED + 1, CHANCE_RUNS):
        table = state.run(state.bug, hash_seed=seed).table
        now = {test for test in failing | passing if table.get(test) != "passed"}
        if now != failing:
            odd = sorted(now ^ failing)
            raise CheckFailed("by_chance", f"{touched}; run {seed + 1} disagrees on {odd[:5]}")
    return f"{CHANCE_RUNS} runs agree ({touched})"
