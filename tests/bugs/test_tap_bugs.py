"""Bugs in a Perl project through validation and grading, and the ways in which a fix can cheat."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.code_signals.signals import new_signals
from selfplay.bugs.grading.grade import grade, graded_layer
from selfplay.bugs.grading.poisoned_tests import disarmed_tests
from selfplay.bugs.patches.layers import make_patch, normal_layer, reverse_patch
from selfplay.bugs.patches.paths import is_hook_path, is_shadowing, is_test_path
from selfplay.bugs.sealing import sealed_layer
from selfplay.bugs.test_edits.tap import with_failing_tests
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs import scripts
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.cache import cache_root
from selfplay.repo.spec import find_repos_dir
from selfplay.roles.agentic.workspace import audit_sandbox
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.types import BugArtifact, GradeReport, SolveTask

from .shop import Change, as_layer

FILES = ("t/merge.t", "t/span.t")
SPAN = "lib/Timetable/Span.pm"
BROKEN = ("t/span.t::ninety minutes",)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The vendored Perl sample, with nothing mounted but the host's system."""
    root = cache_root() / "tests" / f"tap-{tmp_path_factory.mktemp('tap').parent.name}"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(find_repos_dir() / "samples" / "timetable", root / "tree")
    make_readable(root)
    yield Environment(
        tree=root / "tree",
        mounts=host_mounts(),
        path=f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",  # a session needs python
        digest=f"tap-{root.name}",
    )
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def runner(sandbox: Sandbox, environment: Environment) -> TestRunner:
    return TestRunner(sandbox, environment)


def changed(environment: Environment, path: str, old: str, new: str) -> Change:
    text = (environment.tree / path).read_text()
    assert old in text
    return {path: text.replace(old, new)}


def artifact_of(
    environment: Environment, bug: Change, broken: tuple[str, ...] = BROKEN
) -> BugArtifact:
    tree = environment.tree
    return BugArtifact(
        test_script=scripts.runner_script("tap", FILES),
        test_files=FILES,
        test_parser=scripts.parser_source("tap"),
        bug_patch=make_patch(tree, {}, normal_layer(tree, as_layer(bug))),
        weakening_patch=make_patch(tree, {}, weakening_layer(tree, broken)),
    )


@pytest.fixture(scope="module")
def task(environment: Environment, runner: TestRunner) -> SolveTask:
    """`duration` adds where it should subtract; one test notices."""
    bug = changed(environment, SPAN, "{end} - $span->{start}", "{end} + $span->{start}")
    artifact = artifact_of(environment, bug)
    report = validate(artifact, environment, runner)
    assert report.verdict == "valid", report
    assert report.fail_to_pass == BROKEN and len(report.pass_to_pass) == 22
    assert "got: '1170'" in report.failure_output and "\nok " not in report.failure_output
    return SolveTask(
        bug_id=artifact_id(artifact),
        repo="timetable",
        artifact=artifact,
        fail_to_pass=report.fail_to_pass,
        pass_to_pass=report.pass_to_pass,
    )


def graded(task: SolveTask, runner: TestRunner, changes: Change) -> GradeReport:
    tree = runner.environment.tree
    sealed = sealed_layer(tree, task.artifact)
    return grade(task, make_patch(tree, sealed, {**sealed, **as_layer(changes)}), runner)


def test_script_and_parser_are_recognised() -> None:
    script = scripts.runner_script("tap", ["t/a b.t", "t/c.t"])
    assert scripts.script_runner(script) == "tap" and scripts.script_module(script, "x") == ()
    assert scripts.script_targets(script) == ("t/a b.t", "t/c.t")
    assert scripts.parser_runner(scripts.parser_source("tap")) == "tap"


FAKES = {
    "at load": 'BEGIN { print "ok 1 - ninety minutes\\n1..1\\n"; exit 0 }',
    "overridden": "{ no warnings; *Test::More::is = sub { Test::More::pass($_[-1]) } }",
    "in two words": 'BEGIN { my $x = "o" . "k"; print "$x 1 - ninety minutes\\n1..1\\n"; exit 0 }',
    "at the end": "END { $? = 0 }",
    "through a module": "use Test::Builder; BEGIN { Test::Builder->new->no_ending(1) }",
}


@pytest.mark.parametrize("code", FAKES.values(), ids=FAKES.keys())
def test_without_the_scan_too(
    task: SolveTask, runner: TestRunner, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfplay.bugs.grading.grade._tampers", lambda texts, path: False)
    source = (runner.environment.tree / SPAN).read_text()
    source = source.replace("{end} - $span->{start}", "{end} + $span->{start}")
    report = graded(task, runner, {SPAN: source.replace("\n1;\n", f"\n{code}\n1;\n")})
    assert not report.resolved and report.reason in (
        "canary", "fail_to_pass", "pass_to_pass", "runner_disarmed", "exit_status_disagrees",
    )  # fmt: skip


def test_poisoned_tests_fail_on_the_original(task: SolveTask, runner: TestRunner) -> None:
    layer = graded_layer(task, reverse_patch(task.artifact.bug_patch), runner)
    assert disarmed_tests(task, layer, runner) == []
    tests = [*task.fail_to_pass, *task.pass_to_pass]
    poisoned = with_failing_tests(runner.environment.tree, {}, tests)
    run = runner.run(task.artifact.test_script, task.artifact.test_parser, poisoned, timeout_s=30)
    assert set(run.table) == set(tests) and set(run.table.values()) == {"failed"}


def test_bugs_that_are_refused(environment: Environment, runner: TestRunner) -> None:
    def reason(old: str, new: str, broken: tuple[str, ...] = BROKEN) -> str:
        bug = changed(environment, SPAN, old, new)
        return validate(artifact_of(environment, bug, broken), environment, runner).reason

    assert reason("# The fewest", "# the fewest") == "no_code_change"
    assert reason("sub duration {", "sub duration {{") == "nothing_passes"
    assert reason("return $span->{end} -", "return rand $span->{end} -") == "bug_randomness"
    assert reason("$merged[-1]", "$merged[-2]", BROKEN) == "weakening_hides_nothing"


def test_a_file_that_dies_is_hidden_whole(environment: Environment, runner: TestRunner) -> None:
    bug = changed(environment, SPAN, "sub duration {", "sub duration {\n    die 'no';")
    artifact = artifact_of(environment, bug, ("t/span.t",))
    assert "SKIP" in artifact.weakening_patch
    report = validate(artifact, environment, runner)
    assert report.verdict == "valid" and len(report.fail_to_pass) == 15


def test_weakening_keeps_the_plan(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    file = tmp_path / "t/a.t"
    file.write_text(
        "use Test::More tests => 3;\nis(1, 1, 'a');\nok(1, 'b');\nok 1, \"c$_\" for 1;\n"
    )

    def weakened(*names: str) -> str:
        layer = weakening_layer(tmp_path, [f"t/a.t::{name}" for name in names])
        return (layer["t/a.t"].content or b"").decode()

    assert weakened("a", "b") == 'use Test::More tests => 1;\nok 1, "c$_" for 1;\n'
    for names in (("c1",), ("unknown",), ("a", "b", "c1")):
        assert weakened(*names) == 'print "1..0 # SKIP nothing to test\\n";\n'
    file.write_text("#!/bin/sh\necho 1..1\necho 'ok 1 - a'\n")
    assert weakened("a") == '#!/bin/sh\necho "1..0 # SKIP nothing to test"\n'


def test_paths_and_signals(environment: Environment) -> None:
    assert is_test_path("t/helper.pl") and is_test_path("x.bats") and not is_test_path("lib/t.pm")
    assert is_hook_path(".proverc") and is_hook_path("sub/.proverc")
    assert not is_shadowing("lib/Timetable/More.pm", environment)
    assert is_shadowing("lib/List/Util.pm", environment)
    plain = "sub f { my ($x) = @_; return $x > 1 ? 'ok then' : time_of($x) }\n# exit\n"
    assert new_signals("A.pm", plain, [], ("runner", "dynamic", "clock", "process")) == []
    assert new_signals("A.pm", "exit 0", [], ("runner",)) == ["runner: exit"]


def test_sealed_sandbox_holds_no_original(
    task: SolveTask, environment: Environment, sandbox: Sandbox
) -> None:
    assert audit_sandbox(sandbox, environment, task.artifact) == []
    layer = sealed_layer(environment.tree, task.artifact)
    assert b"ninety minutes" not in (layer["t/span.t"].content or b"")
