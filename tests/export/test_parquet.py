"""Parquet folders: what the lines say, with a card that says whose it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from selfplay.commands.suites import read_tasks
from selfplay.corpus.suite import SuiteTask, write_suite
from selfplay.export.parquet.write import FILE, write_parquet

from .conftest import MakeTask

pyarrow = pytest.importorskip("pyarrow")


def test_a_suite_comes_back(make_task: MakeTask, tmp_path: Path) -> None:
    environment = {"repo": "calc", "source": {"pypi": {"project": "calc", "version": "1"}}}
    tasks = [
        SuiteTask(solve_task=make_task("x * 2", new), base_commit="1", environment=environment)
        for new in ("x + 2", "x - 2")
    ]
    write_suite(tasks, tmp_path / "suite.jsonl")
    assert write_parquet(tmp_path, "suite.jsonl", {"calc": environment | {"license": "MIT"}}) == 0
    found = read_tasks(tmp_path / "parquet")
    lines = {t.solve_task.bug_id: t for t in read_tasks(tmp_path / "suite.jsonl")}
    assert [(t, t.environment) for t in found] == [
        (lines[t.solve_task.bug_id], environment) for t in found
    ]
    card = (tmp_path / "parquet" / "README.md").read_text()
    digest = hashlib.sha256((tmp_path / "parquet" / FILE).read_bytes()).hexdigest()
    assert digest in card and "| calc | MIT |" in card and "| `FAIL_TO_PASS` | list<" in card
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "mit"
    assert head["configs"][0]["config_name"] == f"suite-{digest[:8]}"


def test_lists_without_elements_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    rows = [{"a": [], "b": "x", "c": {"d": 1}}, {"a": [], "b": "\udce9", "c": {}}]
    (tmp_path / "suite.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert write_parquet(tmp_path, "suite.jsonl", {}) == 1
    table = pyarrow.parquet.read_table(tmp_path / "parquet" / FILE)
    assert table.to_pylist() == [{"a": [], "b": "x", "c": '{"d": 1}'}]
    assert table.schema.field("a").type == pyarrow.list_(pyarrow.string())
