"""The environment package: what is in it, and that its question and verdict are ours."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from selfplay.corpus.suite import SuiteTask, read_suite, write_suite
from selfplay.export.verifiers.package import NAME, write_verifiers

from .conftest import MakeTask

DEFINITION, FROM = ast.FunctionDef | ast.ClassDef, ast.ImportFrom


def test_a_package_that_can_be_installed(make_task: MakeTask, tmp_path: Path) -> None:
    told = {"repo": "calc", "source": {"local": {"path": "x"}}, "license": "MIT"}
    task = SuiteTask(solve_task=make_task("x * 2", "x + 2"), base_commit="1", environment=told)
    write_suite([task], tmp_path / "suite.jsonl")
    assert write_verifiers(tmp_path, 1, {"calc": told}) == NAME
    folder = tmp_path / NAME
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    known = {"name", "version", "description", "readme", "requires-python", "keywords"}
    assert set(project["project"]) == known | {"dependencies"}, "keys of the standard alone"
    assert project["project"]["name"] == "selfplay-bugs"
    modules = {p.stem: ast.parse(p.read_text()) for p in (folder / NAME).glob("*.py")}
    defined = {n.name for m in modules.values() for n in m.body if isinstance(n, DEFINITION)}
    names = {a.name for n in ast.walk(modules["__init__"]) if isinstance(n, FROM) for a in n.names}
    assert names - {"version"} <= defined
    assert names >= {"load_environment", "BugTaskset", "OneAnswer", "BugEnv"}
    assert read_suite(folder / NAME / "suite.jsonl")
    assert "| calc | MIT |" in (folder / "README.md").read_text()
