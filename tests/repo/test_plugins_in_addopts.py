"""Plugins that projects name in their settings, each with its real wheel: prepared, and one bug
validated and graded both ways.

Where a plugin changes the order or the output of a run, a project that declares it is tried without
it (`requirements.SKIPPED`); a user's YAML may still list it, so it is there in these tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import make_patch, normal_layer, reverse_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.bugs.validation.validate import validate
from selfplay.repo.prepare import prepare
from selfplay.repo.spec import LocalSource, RepoSpec
from selfplay.sandbox.base import Sandbox
from selfplay.types import BugArtifact, FileChange, SolveTask

pytestmark = pytest.mark.slow

CALC = '''\
"""Sums."""


def add(a, b):
    """The sum.

    >>> add(2, 2)
    4
    """
    return a + b


async def later(a, b):
    return add(a, b)


def double(a):
    return 2 * a
'''
BUGGY = CALC.replace("return a + b", "return a - b")
TEST = """\
import pytest
from acme.calc import add, double


@pytest.mark.parametrize("a", [1, 2, 3, 4])
def test_add(a):
    assert add(a, 1) == a + 1


def test_double():
    assert double(2) == 4
"""
ADD = tuple(f"tests/test_calc.py::test_add[{a}]" for a in (1, 2, 3, 4))
DOUBLE = "tests/test_calc.py::test_double"


@dataclass(frozen=True, kw_only=True)
class Project:
    """install     what the YAML asks for
    declared    what the project itself asks for
    settings    lines of its pytest.ini; `kept`: the options among them that hold
    broken      tests that the bug breaks
    """

    settings: str
    install: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    kept: str = ""
    tests: dict[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ADD


PYPROJECT = """\
[project]
name = "acme"
version = "1.0"

[project.optional-dependencies]
test = {}
"""
ASYNC = """\
from acme.calc import later


async def test_later():
    assert await later(1, 2) == 3
"""
LATER = "tests/test_later.py::test_later"
LOOP = """\
import asyncio
import pytest
import pytest_asyncio
from acme.calc import later


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three():
    await asyncio.sleep(0)
    return 3


@pytest.mark.asyncio(loop_scope="module")
class TestLater:
    async def test_later(self, three):
        assert await later(1, 2) == three
"""
ORDERED = (
    TEST
    + """

STATE = []


@pytest.mark.{0}
def test_second():
    assert STATE == [add(1, 0)]


@pytest.mark.{1}
def test_first():
    STATE.append(add(1, 0))
    assert STATE == [1]
"""
)
SECOND, FIRST = (f"tests/test_calc.py::test_{name}" for name in ("second", "first"))
PROJECTS = {
    "asyncio_mode auto": Project(
        declared=("pytest-asyncio",), settings="asyncio_mode = auto",
        tests={"tests/test_later.py": ASYNC}, broken=(*ADD, LATER),
    ),
    "--asyncio-mode strict, one loop for a module": Project(
        declared=("pytest-asyncio",), settings="addopts = --asyncio-mode=strict -ra",
        kept="--asyncio-mode=strict",
        tests={"tests/test_later.py": LOOP},
        broken=(*ADD, "tests/test_later.py::TestLater::test_later"),
    ),
    "xdist is declared": Project(
        declared=("pytest-xdist",), settings="addopts = -nauto --dist=loadscope --maxprocesses 2"
    ),
    "what measures, repeats, spreads or draws": Project(
        install=("pytest-xdist", "pytest-cov", "pytest-sugar", "pytest-rerunfailures"),
        settings="addopts = -n 2 --dist loadfile --cov=acme --cov-report term --cov-fail-under=100"
        " --force-sugar --reruns 2",
    ),
    "another order in each run": Project(
        install=("pytest-randomly", "pytest-random-order"),
        settings="addopts = -p randomly -p no:doctest --random-order --random-order-seed=3",
        kept="-pno:doctest",
        tests={"tests/test_chance.py": "import random\nfrom acme.calc import add\n\n\n"
               "def test_chance():\n    assert add(random.random(), 1) < 2\n"},
    ),
    "pytest-order": Project(
        install=("pytest-order",), settings="addopts = --order-scope=module",
        kept="--order-scope=module",
        tests={"tests/test_calc.py": ORDERED.format("order(2)", "order(1)")},
    ),
    "pytest-ordering": Project(
        install=("pytest-ordering",), settings="markers =\n  run: the order",
        tests={"tests/test_calc.py": ORDERED.format("run(order=2)", "run(order=1)")},
    ),
    "doctests, and plugins that are turned off": Project(
        declared=("pytest-asyncio",),
        settings="addopts = --doctest-modules --doctest-glob='*.rst' -p no:asyncio"
        " -p no:cacheprovider -p no:warnings -p no:logging",
        kept="--doctest-modules '--doctest-glob=*.rst' -pno:asyncio -pno:warnings -pno:logging",
        tests={"tests/usage.rst": ">>> from acme.calc import add\n>>> add(1, 1)\n2\n"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("project", PROJECTS.values(), ids=PROJECTS)
def test_a_bug_is_valid_and_graded_both_ways(
    project: Project, sandbox: Sandbox, tmp_path: Path, place: Path
) -> None:
    files = {
        "pyproject.toml": PYPROJECT.format(list(project.declared)),
        "pytest.ini": f"[pytest]\n{project.settings}\n",
        "acme/__init__.py": "",
        "acme/calc.py": CALC,
        "tests/test_calc.py": TEST,
        **project.tests,
    }
    for name, text in files.items():
        (tmp_path / "acme" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "acme" / name).write_text(text, encoding="utf-8")
    source = LocalSource(path=str(tmp_path / "acme"))
    spec = RepoSpec(name="acme", source=source, install=project.install)
    prepared = prepare(spec, sandbox, cache_dir=place / tmp_path.name)
    found, environment = prepared.profile, prepared.environment
    assert {*project.broken, DOUBLE} <= set(found.tests)
    assert found.settings["kept"] == project.kept

    tree = environment.tree
    bug = normal_layer(tree, {"acme/calc.py": FileChange(content=BUGGY.encode())})
    artifact = BugArtifact(
        test_script=pytest_script(found.test_files),
        test_files=tuple(found.test_files),
        test_parser=parser_source("pytest"),
        bug_patch=make_patch(tree, {}, bug),
        weakening_patch=make_patch(tree, {}, weakening_layer(tree, project.broken)),
    )
    runner = TestRunner(sandbox, environment)
    report = validate(artifact, environment, runner)
    assert report.verdict == "valid", [c for c in report.checks if c.status != "pass"][:1]
    assert set(project.broken) <= set(report.fail_to_pass)
    assert DOUBLE in report.pass_to_pass
    task = SolveTask(
        bug_id=artifact_id(artifact),
        repo="acme",
        artifact=artifact,
        fail_to_pass=report.fail_to_pass,
        pass_to_pass=report.pass_to_pass,
    )
    gold = grade(task, reverse_patch(artifact.bug_patch), runner)
    assert (gold.reward, gold.reason) == (1.0, ""), gold
    assert grade(task, "", runner).reward == -1.0
    assert grade(task, reverse_patch(artifact.weakening_patch), runner).reward == -1.0
