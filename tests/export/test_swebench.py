"""The corpus as a suite file and artifact directories."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.bugs.artifact import read_artifact
from selfplay.bugs.sealing import seal
from selfplay.commands.suites import read_tasks
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import read_suite
from selfplay.errors import UserError
from selfplay.export.sources import keep_sources
from selfplay.export.swebench import export_swebench
from selfplay.repo.spec import LocalSource, RepoSpec, spec_from
from selfplay.sandbox.base import Environment
from selfplay.types import SolveTask, Target

from .conftest import MakeTask


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
        "1.2", "", "parse_log_pytest", "pass_and_fail",
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
    assert f"FAILED {task.fail_to_pass[0]}" in done.stdout
    assert f"PASSED {task.pass_to_pass[0]}" in done.stdout
