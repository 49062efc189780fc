"""Real-world habits that used to leave a repository without a single test, a small project each.

What discovery finds must also hold for the scripts that artifacts get: each kind is run once more
in the way that validation and grading run it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.errors import RepoError
from selfplay.repo.discovery.discover import discover
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.sandbox.base import Environment, Sandbox
from tests.repo.conftest import MakeEnvironment

pytestmark = pytest.mark.slow

CALC = "import warnings\n\ndef add(a, b):\n    {}\n    return a + b\n"
OLD = 'warnings.warn("old", DeprecationWarning)'
UNITTEST = """
import unittest
from calc import add

class AddTest(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(1, 2), 3)

{}
"""
TEST = "from calc import add\n\ndef test_add():\n    assert add(1, 2) == 3\n"


def run_as_artifact(environment: Environment, sandbox: Sandbox, found: RepoProfile) -> set[str]:
    """What passes when the harness's own script runs the test files that were found."""
    variables = {**environment.variables, **found.variables}
    runner = TestRunner(sandbox, replace(environment, variables=variables))
    script = pytest_script(sorted(found.test_files))
    run = runner.run(script, parser_source("pytest"), {}, timeout_s=60.0)
    return {test for test, status in run.table.items() if status == "passed"}


OPTION = "def pytest_configure(config):\n    config.option.{} = {}\n"
HABITS: dict[str, tuple[dict[str, str], str]] = {
    "a conftest wants colours": (
        {
            "calc.py": CALC.format("pass"),
            "test_calc.py": TEST,
            "conftest.py": OPTION.format("color", "'yes'"),
        },
        "test_calc.py::test_add",
    ),
    "a conftest wants no summary": (
        {
            "calc.py": CALC.format("pass"),
            "test_calc.py": TEST,
            "conftest.py": OPTION.format("no_summary", "True"),
        },
        "test_calc.py::test_add",
    ),
    "a conftest wants another summary": (
        {
            "calc.py": CALC.format("pass"),
            "test_calc.py": TEST,
            "conftest.py": OPTION.format("reportchars", "'N'"),
        },
        "test_calc.py::test_add",
    ),
    "a conftest beside the tests asks for a plugin that is not there": (
        {
            "calc.py": CALC.format("pass"),
            "tests/test_calc.py": TEST,
            "speed/conftest.py": "def pytest_benchmark_update_machine_info(config):\n    pass\n",
            "speed/test_speed.py": "def test_speed():\n    pass\n",
            "docs/conftest.py": "import no_such_package_of_anyone\n",
            "docs/test_docs.py": "def test_docs():\n    pass\n",
        },
        "tests/test_calc.py::test_add",
    ),
    "unittest.main() without a guard": (
        {"calc.py": CALC.format("pass"), "test_calc.py": UNITTEST.format("unittest.main()")},
        "test_calc.py::AddTest::test_add",
    ),
    "the same, in a file named for unittest": (
        {"calc.py": CALC.format("pass"), "test/testcalc.py": UNITTEST.format("unittest.main()")},
        "test/testcalc.py::AddTest::test_add",
    ),
    "every warning is an error": (
        {
            "calc.py": CALC.format(OLD),
            "test_calc.py": TEST,
            "setup.cfg": "[tool:pytest]\nfilterwarnings =\n    error\n",
        },
        "test_calc.py::test_add",
    ),
    "a filter for warnings of a package that is not there": (
        {
            "calc.py": CALC.format("pass"),
            "test_calc.py": TEST,
            "pytest.ini": "[pytest]\nfilterwarnings =\n    error\n    ignore::nosuch.Warned\n",
        },
        "test_calc.py::test_add",
    ),
    "a plugin is required that only measures": (
        {
            "calc.py": CALC.format("pass"),
            "test_calc.py": TEST,
            "pytest.ini": "[pytest]\nrequired_plugins = pytest-cov\naddopts = --cov=calc\n",
        },
        "test_calc.py::test_add",
    ),
    "settings and marks of plugins that are not there": (
        {
            "calc.py": CALC.format("pass"),
            "test_calc.py": f"import pytest\n{TEST}".replace("def", "@pytest.mark.odd\ndef"),
            "pyproject.toml": "[tool.pytest.ini_options]\nstrict_config = true\n"
            "strict_markers = true\nasyncio_mode = 'auto'\n",
        },
        "test_calc.py::test_add",
    ),
    "testpaths that hold none of the tests": (
        {
            "calc.py": CALC.format("pass"),
            "docs/conf.py": "",
            "checks/test.py": UNITTEST.format(""),
            "pytest.ini": "[pytest]\ntestpaths = docs\n",
        },
        "checks/test.py::AddTest::test_add",
    ),
}


@pytest.mark.parametrize(("files", "test"), HABITS.values(), ids=HABITS)
def test_habits(
    files: dict[str, str],
    test: str,
    make_environment: MakeEnvironment,
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    environment = make_environment(files)
    found = discover(environment, sandbox, tmp_path / "pyc")
    assert set(found.tests) == {test}
    assert found.tests_reaching("calc.py", "add") == (test,)
    assert run_as_artifact(environment, sandbox, found) == {test}
    assert RepoProfile.from_json(found.to_json()) == found


def test_a_file_that_ends_the_interpreter_is_one_broken_file(
    make_environment: MakeEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    environment = make_environment(
        {
            "calc.py": CALC.format("pass"),
            "test_calc.py": TEST,
            "test_exits.py": "import sys\nsys.exit('usage: test_exits.py ...')\n",
            "test_dies.py": "import os\nos._exit(3)\n",
            "test_stops.py": "raise KeyboardInterrupt\n",
        }
    )
    found = discover(environment, sandbox, tmp_path / "pyc")
    assert set(found.tests) == {"test_calc.py::test_add"} and not found.variables
    assert "SystemExit: usage" in found.excluded["test_exits.py"]
    assert found.excluded["test_dies.py"].startswith("ends the whole run")
    assert found.excluded["test_stops.py"].startswith("ends the whole run")


def test_settings_that_work_are_the_projects_own(
    make_environment: MakeEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Two of three pass with warnings as errors: the third is red for a reason of its own."""
    red = TEST + "\ndef test_warns():\n    import warnings\n    warnings.warn('x')\n"
    files = {
        "calc.py": CALC.format("pass"),
        "test_calc.py": red + "\ndef test_again():\n    assert add(0, 0) == 0\n",
        "pytest.ini": "[pytest]\nfilterwarnings = error\n",
    }
    found = discover(make_environment(files), sandbox, tmp_path / "pyc")
    assert not found.variables
    assert found.excluded["test_calc.py::test_warns"].startswith("failing")


def test_no_tests_and_warnings_as_errors(
    make_environment: MakeEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Coverage warns that it measured nothing; that must not be the reason that is given."""
    files = {"calc.py": CALC.format("pass"), "pytest.ini": "[pytest]\nfilterwarnings = error\n"}
    with pytest.raises(RepoError, match="none was collected: does this source hold the tests"):
        discover(make_environment(files), sandbox, tmp_path)
