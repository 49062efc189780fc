"""The corpus as a suite file and artifact directories."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from selfplay.bugs.artifact import read_artifact
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import read_suite
from selfplay.errors import UserError
from selfplay.export.swebench import export_swebench
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
        assert corpus.add_bug(task, origin="model", strategy="direct", seed=seed, step=0)
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
