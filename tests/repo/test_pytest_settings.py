"""Configurations of pytest as real projects write them: which file counts, which options hold."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from selfplay.bugs.test_runs.junit import unsupported_passes
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.repo.discovery.discover import discover
from selfplay.repo.discovery.kept_options import split_options, without_refused
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.discovery.pytest_config import PYTHON_FILES, inner_configs, root_config
from selfplay.repo.discovery.pytest_settings import attempts, moved_variables
from selfplay.sandbox.base import Environment, Sandbox
from tests.repo.conftest import MakeEnvironment

CALC = "def add(a, b):\n    return a + b\n"
TEST = "from acme.calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"


def write(tree: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")
    return tree


@pytest.mark.parametrize(
    ("files", "file", "addopts"),
    [
        ({"pytest.ini": "[pytest]\naddopts = -ra -p a # x\n"}, "pytest.ini", ("-ra", "-p", "a")),
        ({"pytest.ini": "", "tox.ini": "[pytest]\naddopts = -x\n"}, "pytest.ini", ()),
        ({"tox.ini": "[tox]\n[pytest]\naddopts =\n  -x\n  -q\n"}, "tox.ini", ("-x", "-q")),
        ({"tox.ini": "[tox]\n", "setup.cfg": "[tool:pytest]\naddopts=-x\n"}, "setup.cfg", ("-x",)),
        ({"pytest.toml": '[pytest]\naddopts = ["-m", "a b"]\n'}, "pytest.toml", ("-m", "a b")),
        ({"pyproject.toml": '[tool.pytest]\naddopts = ["-x"]\n'}, "pyproject.toml", ("-x",)),
        (
            {"pyproject.toml": "[tool.pytest.ini_options]\naddopts = \"-m 'not slow' -x\"\n"},
            "pyproject.toml",
            ("-m", "not slow", "-x"),
        ),
        ({"pyproject.toml": "[tool.ruff]\n", "sub/pytest.ini": ""}, "", ()),
        ({"pyproject.toml": "no toml", "setup.cfg": "[tool:pytest]\n"}, "setup.cfg", ()),
    ],
)  # fmt: skip
def test_the_file_that_pytest_takes(
    files: dict[str, str], file: str, addopts: tuple[str, ...], tmp_path: Path
) -> None:
    found = root_config(write(tmp_path, files))
    assert (found.file, found.addopts, found.python_files) == (file, addopts, PYTHON_FILES)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("--import-mode=importlib -ra", ["--import-mode=importlib"]),
        ("--import-mode importlib -vv -rfE", ["--import-mode=importlib"]),
        ("-n auto --dist loadfile --cov=acme --cov-report term -q", []),
        ("-nauto --numprocesses 4 -x --maxfail=2 --pdb --lf --ff", []),
        ("-p acme.plugin -p no:doctest -pxdist -p no:terminal", ["-pacme.plugin", "-pno:doctest"]),
        ("--asyncio-mode=auto --doctest-modules --doctest-glob '*.rst'",
         ["--asyncio-mode=auto", "--doctest-modules", "--doctest-glob=*.rst"]),
        ("--runslow --db post --strict-markers", ["--runslow", "--db=post", "--strict-markers"]),
        ("-m 'not slow' -W error -k 'not (a or b)'", ["-mnot slow", "-Werror", "-knot (a or b)"]),
        ("-o log_cli=true -o xfail_strict=true", ["-oxfail_strict=true"]),
        ("--junitxml=r.xml --html r.html --randomly-seed=1 --timeout=9 --reruns 2", []),
        ("-xvs --tb short --runslow tests", ["--runslow"]),
        ("--runslow -- src", ["--runslow"]),
        ("--cov acme --cov-report term-missing --verbose", []),
        ("-p no:cacheprovider -p no:randomly --no-cov", ["-pno:randomly"]),
    ],
)  # fmt: skip
def test_options_that_hold(words: str, kept: list[str]) -> None:
    found, left_out = split_options(shlex.split(words), lambda word: word in ("tests", "src"))
    assert list(found) == kept
    assert not set(found) & set(left_out)


def test_options_that_pytest_refuses_go_alone() -> None:
    options = ("--foo=a", "-pgone", "-mnot slow", "--runslow")
    said = "error: unrecognized arguments: --foo=a --runslow\n  inifile: None"
    assert without_refused(options, said) == ("-pgone", "-mnot slow")
    said = "ImportError: Error importing plugin \"gone\": No module named 'gone'"
    assert without_refused(options, said) == ("--foo=a", "-mnot slow", "--runslow")
    assert without_refused(options, "3 failed") == options


def test_configurations_of_subfolders(tmp_path: Path) -> None:
    files = {
        "packages/a/pyproject.toml": "[tool.pytest.ini_options]\n",
        "packages/a/tests/test_a.py": "",
        "packages/b/pytest.ini": "[pytest]\npython_files = check_*.py\n",
        "packages/b/check_b.py": "",
        "packages/b/check_c.py": "",
        "docs/pytest.ini": "",
    }
    tree = write(tmp_path / "many", files)
    assert [c.file for c in inner_configs(tree)] == [
        "packages/b/pytest.ini",
        "packages/a/pyproject.toml",
    ]
    assert [a.config for a in attempts(tree)][:3] == [
        "/dev/null", "/testbed/packages/b/pytest.ini", "/testbed/packages/a/pyproject.toml",
    ]  # fmt: skip
    plain = write(tmp_path / "plain", {"test_a.py": "", "setup.cfg": "[tool:pytest]\n"})
    assert not any(a.config or a.kept for a in attempts(plain)) and len(list(attempts(plain))) == 4


def test_another_state_of_the_project_has_its_own_options(tmp_path: Path) -> None:
    now = write(tmp_path / "now", {"pytest.ini": "[pytest]\naddopts = -m 'not slow' -q\n"})
    before = write(tmp_path / "before", {"pytest.ini": "[pytest]\naddopts = --runslow\n"})
    bare = write(tmp_path / "bare", {"a.py": ""})
    found = {"PYTEST_ADDOPTS": "--x '-mnot slow' -c=/testbed/pytest.ini -o strict=false", "A": "b"}
    text = moved_variables(found, now, before)["PYTEST_ADDOPTS"]
    assert text == "--x --runslow -c=/testbed/pytest.ini -o strict=false"
    assert moved_variables(found, now, bare)["PYTEST_ADDOPTS"].split() == [
        "--x",
        "-o",
        "strict=false",
    ]
    assert moved_variables({"A": "b"}, now, bare) == {"A": "b"}


def run_as_artifact(environment: Environment, sandbox: Sandbox, found: RepoProfile) -> set[str]:
    """What passes, by terminal and XML alike, when our script runs the files, forked or not."""
    variables = {**environment.variables, **found.variables}
    runner = TestRunner(sandbox, replace(environment, variables=variables))
    script = pytest_script(sorted(found.test_files))
    run = runner.run(script, parser_source("pytest"), {}, timeout_s=60.0)
    passed = [test for test, status in run.table.items() if status == "passed"]
    assert unsupported_passes(passed, run.junit) == []
    return set(passed)


INI = "[pytest]\naddopts = {}\n"
CACHE = "def pytest_configure(config):\n    config.cache.set('a/b', 1)\n"
PROJECTS: dict[str, tuple[dict[str, str], set[str], str]] = {
    "pytest.ini in the folder of the tests": (
        {"tests/pytest.ini": INI.format("-ra"), "tests/test_calc.py": TEST},
        {"tests/test_calc.py::test_add"},
        "",
    ),
    "one of several packages, which only its own pythonpath can import": (
        {
            "packages/core/pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["lib"]\n',
            "packages/core/lib/core.py": CALC,
            "packages/core/tests/test_core.py": TEST.replace("acme.calc", "core"),
        },
        {"packages/core/tests/test_core.py::test_add"},
        "",
    ),
    "two test files of one name": (
        {
            "pytest.ini": INI.format("--import-mode=importlib -q -x --cov=acme"),
            "tests/unit/test_calc.py": TEST,
            "tests/web/test_calc.py": TEST,
        },
        {"tests/unit/test_calc.py::test_add", "tests/web/test_calc.py::test_add"},
        "--import-mode=importlib",
    ),
    "two test files of one name, without a word on it": (
        {"tests/unit/test_calc.py": TEST, "tests/web/test_calc.py": TEST},
        {"tests/unit/test_calc.py::test_add", "tests/web/test_calc.py::test_add"},
        "--import-mode=importlib",
    ),
    "a conftest that uses pytest's cache": (
        {"tests/test_calc.py": TEST, "conftest.py": CACHE},
        {"tests/test_calc.py::test_add"},
        "",
    ),
    "a plugin by -p, an option of the project's own, one of a plugin that is not there": (
        {
            "setup.cfg": "[tool:pytest]\naddopts = -p acme.fixtures --mode fast --nothing-knows=1"
            " -m 'not slow'\nmarkers = slow\n",
            "acme/fixtures.py": "import pytest\n\n\n@pytest.fixture\ndef two():\n    return 2\n",
            "conftest.py": "def pytest_addoption(parser):\n    parser.addoption('--mode')\n\n\n"
            "def pytest_configure(config):\n    assert config.option.mode in (None, 'fast')\n",
            "tests/test_calc.py": TEST.replace("def test_add():", "def test_add(two, request):\n"
            "    assert request.config.option.mode == 'fast' and two == 2")
            + "\n\nimport pytest\n\n\n@pytest.mark.slow\ndef test_slow():\n    pass\n",
        },
        {"tests/test_calc.py::test_add"},
        "-pacme.fixtures --mode=fast '-mnot slow'",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("files", "tests", "kept"), PROJECTS.values(), ids=PROJECTS)
def test_projects(
    files: dict[str, str],
    tests: set[str],
    kept: str,
    make_environment: MakeEnvironment,
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    environment = make_environment({"acme/__init__.py": "", "acme/calc.py": CALC, **files})
    found = discover(environment, sandbox, tmp_path / "pyc")
    assert set(found.tests) == tests
    assert found.settings["kept"] == kept
    assert run_as_artifact(environment, sandbox, found) == tests
    assert RepoProfile.from_json(found.to_json()) == found


UNSTEADY = """
import pytest
from acme.calc import add


class Thing:
    pass


@pytest.mark.parametrize("x", [Thing()], ids=str)
def test_address(x):
    assert add(1, 1) == 2


@pytest.mark.parametrize("name", {"kate", "john", "paul", "mary"})
def test_any_order(name):
    assert add(name, "") == name
"""


@pytest.mark.slow
def test_ids_that_change_from_run_to_run(
    make_environment: MakeEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    files = {"acme/__init__.py": "", "acme/calc.py": CALC, "tests/test_calc.py": UNSTEADY}
    environment = make_environment(files)
    found = discover(environment, sandbox, tmp_path / "pyc")
    names = ("kate", "john", "paul", "mary")
    assert set(found.tests) == {f"tests/test_calc.py::test_any_order[{name}]" for name in names}
    assert found.num_left_out() == {"flaky": 1}
    assert set(found.tests) < run_as_artifact(environment, sandbox, found)
