"""Discovery of suites that speak TAP: one run a test file, twice, and what each test may reach."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from selfplay.errors import RepoError
from selfplay.repo.discovery.perl_reach import PerlReach
from selfplay.repo.discovery.profile import RepoProfile, TestInfo
from selfplay.repo.discovery.tap_output import parse
from selfplay.repo.spec import WHOLE, SuitePart
from selfplay.sandbox.base import Environment, Job, Quota, RunResult, Sandbox

FILE_TIMEOUT_S = 120.0
"""Seconds that one test file may take."""
SCRIPT = """\
#!/bin/sh
# Oracle tests with numbered TAP on stdout; .proverc is not read.
set -f
export PERL_HASH_SEED="${PYTHONHASHSEED:-0}" PERL_PERTURB_KEYS=2
exec prove --norc --verbose --merge --normalize --nocolor -Ilib"""
"""Runs test files that perl can start: Perl, or any language that a `#!` line names."""


def tap_script(test_files: Iterable[str]) -> str:
    """Script that runs test files under `prove`."""
    return " \\\n  ".join([SCRIPT, *(shlex.quote(file) for file in test_files)]) + "\n"


def tap_files(tree: Path) -> list[str]:
    """Files that are run as TAP tests: `*.t` below `t/` and `tests/`, and at the root."""
    found = [*tree.glob("*.t"), *tree.glob("t/**/*.t"), *tree.glob("tests/**/*.t")]
    names = (file.relative_to(tree).as_posix() for file in found if file.is_file())
    return sorted(name for name in names if re.fullmatch(r"[^-\s]\S*", name))


def discover_tap(
    environment: Environment, sandbox: Sandbox, byte_code: Path, last: bool, part: SuitePart = WHOLE
) -> RepoProfile | None:
    """Run each test file twice, under two hash seeds; tests that pass both times are kept.

    Raises `RepoError` when no test passes.
    """
    tree = environment.tree
    reach = PerlReach(tree)
    tests: dict[str, TestInfo] = {}
    excluded: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for file in _within(part, tap_files(tree)):
        first, second = (_run(environment, sandbox, file, seed) for seed in ("0", "1"))
        tables = [_table(result) for result in (first, second)]
        if not any(tables):
            excluded[file] = _trouble(second)
        names = [test.partition("::")[2] for test in tables[0] if "::" in test]
        functions = reach.functions(file, names)
        for test in dict.fromkeys([*tables[0], *tables[1]]):
            mine, theirs = (table.get(test, "missing") for table in tables)
            if mine == theirs == "passed":
                seconds[file] = round(second.duration_s, 4)
                tests[test] = TestInfo(
                    file=file, duration_s=0.0, functions=functions[test.partition("::")[2]]
                )
            elif mine == theirs:
                excluded[test] = f"failing: {_trouble(second)}" if "::" not in test else "failing"
            else:
                excluded[test] = f"flaky: {mine}, then {theirs}"
    if not tests and not last:
        return None
    if not tests:
        why = next(iter(excluded.values()), "none was found")
        raise RepoError(f"discovery: no passing TAP test found (the first: {why})")
    return RepoProfile(
        runner="tap", test_files=seconds, tests=_timed(tests, seconds), excluded=excluded
    )


def _within(part: SuitePart, files: Iterable[str]) -> list[str]:
    """The files that belong to a part of a suite."""
    return [
        file
        for file in files
        if not part.paths or any(PurePosixPath(file).is_relative_to(path) for path in part.paths)
    ]


def _run(environment: Environment, sandbox: Sandbox, file: str, seed: str) -> RunResult:
    job = Job(
        environment=environment,
        argv=("sh", "/in/test_script.sh"),
        inputs={"test_script.sh": tap_script([file]).encode()},
        variables={"PYTHONHASHSEED": seed},
        quota=Quota(timeout_s=FILE_TIMEOUT_S),
    )
    return sandbox.run(job)


def _table(result: RunResult) -> dict[str, str]:
    if result.timed_out or result.output_truncated:
        return {}
    table = parse(result.output.decode("utf-8", "surrogateescape"))
    failing = "failed" in table.values()
    return table if failing == (result.exit_code != 0) else dict.fromkeys(table, "failed")


def _trouble(result: RunResult) -> str:
    if result.timed_out:
        return f"did not end within {FILE_TIMEOUT_S:.0f} s"
    tail = result.output[-300:].decode(errors="replace").strip()
    return f"no TAP result: {tail}" if "Result: " not in tail else " ".join(tail.split())


def _timed(tests: Mapping[str, TestInfo], seconds: Mapping[str, float]) -> dict[str, TestInfo]:
    """A file's seconds shared out evenly: single tests are not timed."""
    count: dict[str, int] = {}
    for info in tests.values():
        count[info.file] = count.get(info.file, 0) + 1
    return {
        test: TestInfo(
            file=info.file,
            duration_s=round(seconds[info.file] / count[info.file], 4),
            functions=info.functions,
        )
        for test, info in tests.items()
    }
