"""What counts as a test where a project names its tests otherwise, and what its plugins do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from selfplay.bug_sources.commit_files import is_test_module, kinds_of
from selfplay.bugs.patches.paths import is_source_path, is_test_path
from selfplay.repo.discovery.pytest_discovery import profile_of
from selfplay.repo.discovery.test_names import USUAL_NAMES, test_names
from selfplay.repo.prepare import prepare_tree
from selfplay.repo.spec import LocalSource, RepoSpec
from selfplay.sandbox.base import Sandbox
from tests.repo.conftest import MakeEnvironment
from tests.repo.test_pytest_settings import CALC, run_as_artifact, write

INI = "[pytest]\npython_files = check_*.py *_spec.py\npython_functions = check_*\ntestpaths = {}\n"


def test_names_of_the_projects_own(tmp_path: Path) -> None:
    files = {
        "pytest.ini": INI.format("qa acme"),
        "acme/calc.py": "",
        "acme/units.py": "",
        "acme/calc_spec.py": "",
        "qa/check_a.py": "",
        "qa/helper.py": "",
    }
    names = test_names(write(tmp_path, files))
    assert names.folders == ("qa",)
    tests = ["acme/calc_spec.py", "check_x.py", "qa/helper.py", "qa/data.json", "tests/any.py"]
    assert [path for path in tests if not is_test_path(path, names=names)] == []
    assert not is_source_path("qa/helper.py", names=names)
    assert is_source_path("acme/calc.py", names=names) and is_source_path("qa/helper.py")
    assert [path for path in tests if USUAL_NAMES(path)] == ["tests/any.py"]
    kinds = kinds_of(["acme/calc.py", "acme/calc_spec.py", "qa/helper.py"], names)
    assert list(kinds.values()) == ["source", "test", "test"]
    assert is_test_module("qa/check_a.py", names) and not is_test_module("qa/helper.py", names)


@pytest.mark.parametrize(
    ("testpaths", "folders"), [("src", ()), (".", ()), ("acme", ()), ("spec_of", ("spec_of",))]
)
def test_any_name_is_a_test_only_in_folders_of_tests(
    testpaths: str, folders: tuple[str, ...], tmp_path: Path
) -> None:
    files = {
        "setup.cfg": f"[tool:pytest]\npython_files = *.py\ntestpaths = {testpaths}\n",
        "acme/calc.py": "",
        "acme/tests/test_calc.py": "",
        "src/calc.py": "",
        "spec_of/calc.py": "",
    }
    names = test_names(write(tmp_path, files))
    assert (names.patterns, names.folders) == ((), folders)
    assert is_source_path("acme/calc.py", names=names)


def test_a_package_that_holds_its_tests_is_no_folder_of_tests(tmp_path: Path) -> None:
    """However many they are: in toolz (`testpaths = ["toolz"]`) they are half of all files."""
    files = {
        "pyproject.toml": "[tool.pytest.ini_options]\ntestpaths = ['acme']\n",
        "acme/calc.py": "",
        "acme/units.py": "",
        **{f"acme/tests/test_{letter}.py": "" for letter in "abc"},
        "acme/inner/test/test_d.py": "",
    }
    names = test_names(write(tmp_path, files))
    assert names.folders == ()
    assert is_source_path("acme/calc.py", names=names)
    assert is_test_path("acme/tests/test_a.py", names=names)


CONFTEST = """
def pytest_report_teststatus(report, config):
    if report.when == "call" and report.passed:
        return "passed", "+", "SPLENDID"
"""
CHECK = """
from acme.calc import add


def check_add():
    assert add(1, 2) == 3


def helper(x):
    return x


def test_not_a_test_here():
    assert False
"""
DOCTEST = '''def add(a, b):
    """Add.

    >>> add(1, 1)
    2
    """
    return a + b
'''


@pytest.mark.slow
def test_names_words_and_doctests(
    make_environment: MakeEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    environment = make_environment(
        {
            "pytest.ini": INI.format("acme") + "addopts = --doctest-modules --doctest-glob=*.rst\n",
            "conftest.py": CONFTEST,
            "acme/__init__.py": "",
            "acme/calc.py": DOCTEST,
            "acme/other.py": CALC,
            "acme/check_calc.py": CHECK,
            "acme/README.rst": ">>> from acme.calc import add\n>>> add(2, 2)\n4\n",
        }
    )
    spec = RepoSpec(name="odd", source=LocalSource(path=str(environment.tree)))
    found = prepare_tree(spec, environment, tmp_path, sandbox)
    profile = found.profile
    assert set(profile.tests) == {"acme/check_calc.py::check_add", "acme/README.rst::README.rst"}
    assert profile.num_left_out() == {"doctest in a source file": 1}
    assert [f.path for f in found.functions] == ["acme/calc.py", "acme/other.py"]
    assert "PYTEST_PLUGINS" in profile.variables
    passed = run_as_artifact(replace(environment, digest="again"), sandbox, profile)
    assert set(profile.tests) <= passed


def test_an_id_that_does_not_name_its_file() -> None:
    """A plugin may put a sentence of the author in its place."""
    entry = {
        "file": "test_a.py",
        "kind": "Function",
        "seconds": 0.0,
        "why": "",
        "outcomes": [["call", "passed", False]],
    }
    run = {"results": {"test_a.py::test_x": entry, "Adds two numbers": entry}, "reached": {}}
    found = profile_of(run, run, {})
    assert set(found.tests) == {"test_a.py::test_x"}
    assert found.num_left_out() == {"odd id": 1}
