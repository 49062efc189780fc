"""The test runner: caching, threads, untrusted parsers, and runs that go wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import RunCache, TestRun, TestRunner, read_table
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.types import FileChange
from tests.counting import Counting

from .shop import SUM_BUG, SUM_TESTS, TEST_FILES, as_layer

ECHO_PARSER = """
import json, sys
print(json.dumps({line.split()[1]: line.split()[0] for line in sys.stdin}))
"""


def test_bug_and_original(runner: TestRunner) -> None:
    script, parser = pytest_script(TEST_FILES), parser_source("pytest")
    clean = runner.run(script, parser, {}, timeout_s=60)
    assert set(clean.table.values()) == {"passed"}
    assert (clean.exit_code, clean.parser_ok, len(clean.table)) == (0, True, 10)
    broken = runner.run(script, parser, as_layer(SUM_BUG), timeout_s=60)
    assert {t for t, s in broken.table.items() if s == "failed"} == set(SUM_TESTS)


def test_equal_questions_are_asked_once(sandbox: Sandbox, environment: Environment) -> None:
    counting = Counting(sandbox)
    runner = TestRunner(counting, environment)
    question = ("sleep 0.2; echo passed a", ECHO_PARSER, {})
    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(lambda _: runner.run(*question, timeout_s=60), range(4)))
    assert {tuple(run.table.items()) for run in runs} == {(("a", "passed"),)}
    assert runner.num_runs == 1
    assert len(counting.jobs) == 2  # script and parser
    assert sum(not run.cached for run in runs) == 1
    again = runner.run(*question, timeout_s=60, hash_seed=1)
    assert not again.cached
    assert runner.num_runs == 2


@pytest.mark.parametrize("what", ["script", "parser", "content", "mode", "deleted"])
def test_any_difference_is_another_run(
    sandbox: Sandbox, environment: Environment, what: str
) -> None:
    runner = TestRunner(sandbox, environment)
    script, parser, timeout_s = "echo passed a", ECHO_PARSER, 9.0
    change = FileChange(content=b"x")
    runner.run(script, parser, {"x": change}, timeout_s=timeout_s)
    if what == "script":
        script += " "
    elif what == "parser":
        parser += "\n"
    else:
        other = {"content": b"y", "mode": b"x", "deleted": None}[what]
        change = FileChange(content=other, executable=what == "mode")
    assert not runner.run(script, parser, {"x": change}, timeout_s=timeout_s).cached


def test_a_run_answers_for_every_limit_that_it_met(
    sandbox: Sandbox, environment: Environment
) -> None:
    runner = TestRunner(sandbox, environment)

    def run(timeout_s: float) -> tuple[bool, bool]:
        result = runner.run("sleep 3; echo passed a", ECHO_PARSER, {}, timeout_s=timeout_s)
        return result.timed_out, result.cached

    assert run(0.5) == (True, False)
    assert run(0.5) == (True, True)
    assert run(30.0) == (False, False)  # a run that was cut off says nothing of longer limits
    assert run(60.0) == (False, True)
    assert run(20.0) == (False, True)
    assert run(0.25) == (True, False)


def test_infrastructure_failures_are_not_cached(sandbox: Sandbox, environment: Environment) -> None:
    runner = TestRunner(Counting(sandbox, failures=1), environment)
    with pytest.raises(SandboxError):
        runner.run("echo passed a", ECHO_PARSER, {}, timeout_s=60)
    assert runner.num_runs == 0
    assert runner.run("echo passed a", ECHO_PARSER, {}, timeout_s=60).table == {"a": "passed"}


def test_stderr_is_read_too(runner: TestRunner) -> None:
    run = runner.run("echo passed a >&2; echo failed b", ECHO_PARSER, {}, timeout_s=60)
    assert run.table == {"a": "passed", "b": "failed"}


def test_long_output_is_not_cut_before_parsing(runner: TestRunner) -> None:
    script = "yes 'failed x' | head -n 300000; echo passed last"
    run = runner.run(script, ECHO_PARSER, {}, timeout_s=30)
    assert run.table == {"x": "failed", "last": "passed"}


def test_endless_output_gives_no_table(runner: TestRunner) -> None:
    run = runner.run("echo passed a; yes passed b | head -c 70M", ECHO_PARSER, {}, timeout_s=60)
    assert (run.table, run.parser_ok, run.output_truncated) == ({}, False, True)


def test_time_out(runner: TestRunner) -> None:
    run = runner.run("echo passed a; sleep 60", ECHO_PARSER, {}, timeout_s=1)
    assert run.timed_out
    assert run.exit_code is None


@pytest.mark.parametrize(
    "parser",
    [
        "raise SystemExit(1)",
        "print('no json')",
        "print('[]')",
        'print(\'{"a": "PASSED"}\')',
        "print('{\"a\": true}')",
        "print('{\"a\": {}}')",
        "this is not python",
        "while True: pass",
        "while True: print('x' * 1_000_000)",
        "print('{\"a\": \"passed\"}' + ' ' * 64_000_000)",
    ],
)
def test_broken_parsers_give_no_table(
    runner: TestRunner, parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfplay.bugs.test_runs.runner.PARSER_TIMEOUT_S", 2.0)
    run = runner.run("echo passed a", parser, {}, timeout_s=60)
    assert (run.table, run.parser_ok) == ({}, False)


def test_untrusted_parser_runs_in_the_sandbox(runner: TestRunner, tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    parser = f"open({str(mark)!r}, 'w').write('x')"
    assert not runner.run("echo passed a", parser, {}, timeout_s=60).parser_ok
    assert not mark.exists()


def test_untrusted_parser_does_not_see_the_state(runner: TestRunner) -> None:
    """It answers from stdin; the bug's files are not in its sandbox, nor on its import path."""
    parser = (
        "import json, os, sys\n"
        "seen = os.path.exists('/testbed/new.py') or '/testbed' in sys.path or '' in sys.path\n"
        "print(json.dumps({'a': 'failed' if seen else 'passed'}))\n"
    )
    layer = {"new.py": FileChange(content=b"")}
    assert runner.run("true", parser, layer, timeout_s=60).table == {"a": "passed"}


def test_duplicate_keys_that_disagree_are_failures() -> None:
    assert read_table('{"a": "failed", "a": "passed"}') == {"a": "failed"}
    assert read_table('{"a": "passed", "a": "passed"}') == {"a": "passed"}


def test_stale_byte_code_is_not_used(sandbox: Sandbox, environment: Environment) -> None:
    """An edit of equal size must show in every run."""
    runner = TestRunner(sandbox, environment)
    script = "python -c 'import shop.tiny; print(shop.tiny.X, \"a\")'"
    for word in ("passed", "failed") * 3:
        layer = {"shop/tiny.py": FileChange(content=f"X = '{word}'\n".encode())}
        assert runner.run(script, ECHO_PARSER, layer, timeout_s=30).table == {"a": word}


def run_of(size: int) -> TestRun:
    return TestRun(
        table={},
        parser_ok=True,
        exit_code=0,
        timed_out=False,
        output="x" * size,
        output_truncated=False,
        duration_s=0.0,
    )


def test_cache_is_bounded_and_drops_the_oldest() -> None:
    cache = RunCache(characters=100)
    cache["a"], cache["b"] = run_of(40), run_of(40)
    assert "a" in cache
    cache["a"]
    cache["c"] = run_of(40)
    assert set(cache) == {"a", "c"}
    cache["d"] = run_of(1000)
    assert set(cache) == {"d"}
    del cache["d"]
    cache["e"] = run_of(90)
    assert set(cache) == {"e"}


def test_runs_of_the_original_outlive_the_process(
    sandbox: Sandbox, environment: Environment
) -> None:
    """Those alone; a limit that such a run would not have met means another run."""
    kept: dict[str, str] = {}
    script = 'printf "passed a\\xff\\n"; echo "<x/>" > $JUNIT_XML'
    for times in range(2):
        runner = TestRunner(sandbox, environment, originals=kept)
        run = runner.run(script, ECHO_PARSER, {}, timeout_s=60)
        assert (run.cached, runner.num_runs, len(kept)) == (times == 1, 1 - times, 1)
        assert (run.table, run.junit) == ({"a\udcff": "passed"}, b"<x/>\n")
        assert runner.run(script, ECHO_PARSER, {}, timeout_s=60).cached
    runner.run(script, ECHO_PARSER, {"x": FileChange(content=b"")}, timeout_s=60)
    for cut_short in ("sleep 60", "echo passed a; kill -9 $$", "exit 1"):
        runner.run(cut_short, ECHO_PARSER, {}, timeout_s=0.5)
    assert len(kept) == 1
    runner = TestRunner(sandbox, environment, originals=kept)
    assert runner.run(script, ECHO_PARSER, {}, timeout_s=1e-9).timed_out
    kept.update(dict.fromkeys(kept, "{}"))  # of another version
    runner = TestRunner(sandbox, environment, originals=kept)
    assert not runner.run(script, ECHO_PARSER, {}, timeout_s=60).cached


@pytest.mark.parametrize("seed", [0, 7])
def test_hash_seed_reaches_the_tests(runner: TestRunner, seed: int) -> None:
    script = 'echo "passed s$PYTHONHASHSEED"'
    run = runner.run(script, ECHO_PARSER, {}, timeout_s=60, hash_seed=seed)
    assert run.table == {f"s{seed}": "passed"}
