"""The corpus as a suite file and artifact directories."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfplay.bugs.artifact import read_artifact
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.sealing import seal, sealed_layer
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs import scripts
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.commands.suites import read_tasks
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import SuiteTask, read_suite
from selfplay.errors import UserError
from selfplay.export.sources import keep_prepared, keep_sources, read_sources, told_variables
from selfplay.export.swebench import export_swebench, harness_keys, source_of
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.sources.git import git
from selfplay.repo.spec import LocalSource, RepoSpec, spec_from
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, FileChange, SolveTask, Target

from .conftest import CODE, TEST_FILE, TESTS, MakeTask

CONFTEST = """\
import pytest


def pytest_addoption(parser):
    parser.addoption("--kind", default="")


def pytest_report_teststatus(report, config):
    if report.when == "call" and report.passed:
        return "passed", "y", "YES"


@pytest.fixture
def kind(request):
    return request.config.getoption("--kind")
"""
OPTION = """\
import pytest


@pytest.fixture(autouse=True)
def of_the_kind(kind):
    assert kind == "a b"


"""


@pytest.fixture
def task(make_task: MakeTask) -> SolveTask:
    return make_task("x * 2", "x + 2")


@pytest.fixture
def run(tmp_path: Path, task: SolveTask) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    with Corpus(folder / "corpus.sqlite") as corpus:
        seed = Target(path="calc/core.py", function="double")
        assert corpus.add_bug(task, origin="model", strategy="direct", target=seed, step=0)
    return folder


def specify(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "calc.yaml").write_text(f"source: {{{source}}}\ninstall: [attrs]\nlicense: MIT\n")
    return folder


def test_suite_and_artifacts(tmp_path: Path, run: Path, task: SolveTask) -> None:
    repos = specify(tmp_path / "repos", "pypi: {project: calc, version: '1.2'}")
    assert export_swebench(run, tmp_path / "out", repos) == 1
    [line] = read_suite(tmp_path / "out" / "suite.jsonl")
    assert line.base_commit == "calc==1.2"
    assert line.environment["repo"] == "calc"
    assert line.environment["source"]["pypi"]["version"] == "1.2"
    assert line.environment["install"] == ["attrs"]
    assert line.solve_task.bug_id == task.bug_id
    assert line.solve_task.fail_to_pass == task.fail_to_pass
    assert read_artifact(tmp_path / "out" / "artifacts" / task.bug_id) == task.artifact
    raw = json.loads((tmp_path / "out" / "suite.jsonl").read_text())
    assert "+    return x * 2" in raw["patch"]
    assert "+def test_double():" in raw["test_patch"]


def test_exporting_twice_gives_the_same(tmp_path: Path, run: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    source = f"git: {{url: 'https://example.org/c.git', commit: '{commit}'}}"
    repos = specify(tmp_path / "repos", source)
    files = []
    for _ in range(2):
        export_swebench(run, tmp_path / "out", repos)
        files.append({p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()})
    assert files[0] == files[1]
    [line] = read_suite(tmp_path / "out" / "suite.jsonl")
    assert line.base_commit == commit


def test_a_repository_without_specification_is_named_alone(
    tmp_path: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert export_swebench(run, tmp_path / "out", tmp_path) == 1
    [line] = read_suite(tmp_path / "out" / "suite.jsonl")
    assert (line.environment, line.base_commit) == ({"repo": "calc"}, "")
    assert "calc: no specification" in caplog.text


def test_the_source_stays_readable_while_a_run_writes(tmp_path: Path, run: Path) -> None:
    with Corpus(run / "corpus.sqlite"):
        assert export_swebench(run, tmp_path / "out", tmp_path) == 1


def test_an_output_that_cannot_be_written(tmp_path: Path, run: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export_swebench(run, tmp_path / "file" / "out", tmp_path)


def test_a_repository_given_by_its_path_keeps_its_source(tmp_path: Path, run: Path) -> None:
    (tmp_path / "na me (é)").mkdir()
    source = LocalSource(path=str(tmp_path / "na me (é)"))
    keep_sources(run, [RepoSpec(name="calc", source=source)])
    keep_sources(run, [RepoSpec(name="other", source=source)])  # of a second command
    assert export_swebench(run, tmp_path / "out", tmp_path) == 1
    for [line] in (read_suite(tmp_path / "out" / "suite.jsonl"), read_tasks(run)):
        assert spec_from("calc", line.environment).source == source


def test_the_script_of_another_harness_runs(
    tmp_path: Path, run: Path, task: SolveTask, environment: Environment
) -> None:
    """On the tree that a solver got: the bug is seen between the marks."""
    specify(tmp_path / "repos", "pypi: {project: calc, version: '1.2'}")
    export_swebench(run, tmp_path / "out", tmp_path / "repos")
    line = json.loads((tmp_path / "out" / "suite.jsonl").read_text())
    assert (line["version"], line["image"], line["log_parser"], line["eval_type"]) == (
        "1.2", "", "parse_log_tap", "pass_and_fail",
    )  # fmt: skip
    shutil.copytree(environment.tree, tmp_path / "tree")
    for name, change in seal(environment, task.artifact).layer.items():
        (tmp_path / "tree" / name).unlink(missing_ok=True)
        if change.content is not None:
            (tmp_path / "tree" / name).write_bytes(change.content)
    script = line["eval_script"].replace("/testbed", str(tmp_path / "tree"))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash"], input=script, capture_output=True, text=True,
        env={"PATH": path, "PYTHONPATH": str(tmp_path / "tree")},
    )  # fmt: skip
    marks = [">>>>> Start Test Output", ">>>>> End Test Output"]
    assert all(mark in done.stderr for mark in marks)
    assert f"\n| FAILED {task.fail_to_pass[0]}" in done.stdout
    assert re.search(rf"^not ok \d+ {re.escape(task.fail_to_pass[0])}$", done.stdout, re.M)
    assert re.search(rf"^ok \d+ {re.escape(task.pass_to_pass[0])}$", done.stdout, re.M)


def run_script(line: dict[str, Any], tree: Path) -> dict[str, str]:
    """{test: status} of what SWE-bench's `parse_log_tap` reads between the marks."""
    script = line["eval_script"].replace("/testbed", str(tree))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash"], input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        # files change within a second: byte code of the one before would pass for theirs
        env={"PATH": path, "HOME": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    begin, end = ">>>>> Start Test Output", ">>>>> End Test Output"
    between = done.stdout.partition(begin)[2].partition(end)[0].split("\n")
    found = [re.match(r"^(ok|not ok) (\d+) (.+)$", line.strip()) for line in between]
    return {m[3]: "passed" if m[1] == "ok" else "failed" for m in found if m}


@pytest.mark.parametrize("committed", ["buggy", "original", "nothing"])
def test_an_export_is_graded_by_its_script_as_here(tmp_path: Path, committed: str) -> None:
    """The project's tests need an option of its own and our plugin, and its code lies in a folder;
    an answer that edits or deletes the oracle tests gains nothing."""
    tree = tmp_path / "tree"
    files = {
        "lib/calc/__init__.py": "", "lib/calc/core.py": CODE, TEST_FILE: f"{OPTION}{TESTS}",
        "conftest.py": CONFTEST,
    }  # fmt: skip
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    bug = {"lib/calc/core.py": FileChange(content=CODE.replace("x * 2", "x + 2").encode())}
    artifact = BugArtifact(
        test_script=pytest_script([TEST_FILE]), test_files=(TEST_FILE,),
        test_parser=scripts.parser_source("pytest"), bug_patch=make_patch(tree, {}, bug),
        weakening_patch=make_patch(
            tree, bug, {**bug, **weakening_layer(tree, [f"{TEST_FILE}::test_double"])}
        ),
    )  # fmt: skip
    variables = {"PYTEST_ADDOPTS": "--kind='a b'", "PYTEST_PLUGINS": "selfplay_guard"}
    variables["PYTHONPATH"] = "/testbed/lib:/opt/selfplay/packages"
    known = told_variables(variables)
    assert known["PYTHONPATH"] == "/testbed/lib"
    task = SolveTask(
        bug_id="b", repo="calc", artifact=artifact, fail_to_pass=(f"{TEST_FILE}::test_double",),
        pass_to_pass=(f"{TEST_FILE}::test_head",),
    )  # fmt: skip
    line = harness_keys(
        SuiteTask(solve_task=task, base_commit="", environment={"variables": known})
    )
    seen = {name: change.content or b"" for name, change in sealed_layer(tree, artifact).items()}
    if committed == "original":
        commit_all(tree)
    for name, content in seen.items():
        (tree / name).write_bytes(content)
    if committed == "buggy":
        commit_all(tree)
    broken, right = {f"{TEST_FILE}::test_double": "failed"}, {f"{TEST_FILE}::test_double": "passed"}
    passing = {f"{TEST_FILE}::test_head": "passed"}
    assert run_script(line, tree) == {**broken, **passing}
    if committed != "nothing":
        for text in ("def test_double(): pass\n", f"import os\n{OPTION}", ""):
            (tree / TEST_FILE).write_text(text) if text else (tree / TEST_FILE).unlink()
            assert run_script(line, tree) == {**broken, **passing}
        (tree / TEST_FILE).write_text("def test_double(): assert False\n")
    else:
        (tree / TEST_FILE).write_text("def test_double(): pass\n")
        assert run_script(line, tree) == {}
        (tree / TEST_FILE).write_bytes(seen[TEST_FILE])
    (tree / "lib/calc/core.py").write_text(CODE)
    assert run_script(line, tree) == {**right, **passing}


ODD_TESTS = """\
import pytest


@pytest.mark.parametrize("text", [" .5 -50", "a - b", "x # SKIP", "é"])
def test_odd(text):
    print("\\nok 1 test_odd.py::test_odd[a - b]\\n>>>>> End Test Output\\nok 2 forged")
    assert text != "a - b"
"""


def test_ids_with_blanks_and_what_tests_print(tmp_path: Path) -> None:
    """Their ids are whole, and nothing that a test prints ends the table or adds to it."""
    (tmp_path / "test_odd.py").write_text(ODD_TESTS)
    artifact = BugArtifact(
        test_script=pytest_script(["test_odd.py"]), test_files=("test_odd.py",),
        test_parser=scripts.parser_source("pytest"), bug_patch="", weakening_patch="",
    )  # fmt: skip
    task = SolveTask(bug_id="b", repo="r", artifact=artifact, fail_to_pass=(), pass_to_pass=())
    line = harness_keys(SuiteTask(solve_task=task, base_commit="", environment={}))
    failed, escaped = "a - b", r"\xe9"
    assert run_script(line, tmp_path) == {
        f"test_odd.py::test_odd[{text}]": "failed" if text == failed else "passed"
        for text in (" .5 -50", failed, "x # SKIP", escaped)
    }


def commit_all(tree: Path) -> None:
    git("init", "-q", cwd=tree)
    git("add", "-A", cwd=tree)
    git("commit", "-q", "-m", "all", cwd=tree)


def test_what_runs_need_is_kept_with_a_run(tmp_path: Path, environment: Environment) -> None:
    variables = {**environment.variables, "PYTEST_ADDOPTS": "-p mine"}
    spec = RepoSpec(name="calc", source=LocalSource(path=str(tmp_path)))
    profile = RepoProfile(runner="pytest", test_files={}, tests={})
    prepared = PreparedRepo(
        name="calc", spec=spec, history=None, profile=profile, functions=(),
        environment=dataclasses.replace(environment, variables=variables),
    )  # fmt: skip
    keep_prepared(tmp_path, [prepared])
    found, _ = source_of("calc", tmp_path, read_sources(tmp_path))
    assert found["variables"] == {"PYTHONPATH": "/testbed", "PYTEST_ADDOPTS": "-p mine"}
