"""A small real project with a history, discovered and played on in a real sandbox."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfplay.bugs.artifact import solve_task
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.cache import cache_root
from selfplay.config import ScaffoldConfig
from selfplay.repo.discovery.discover import discover
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.spec import LocalSource, RepoSpec
from selfplay.roles.compact.injector import CompactInjector
from selfplay.roles.compact.solver import CompactSolver
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.select import open_sandbox
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import InjectionTask, SolveTask, Target
from tests.own_packages import copy_pytest

OLD = '''
"""Number helpers."""


def clamp(x, low, high):
    """Put x between low and high."""
    if x < low:
        return low
    if x > high:
        return high
    return x


def total(numbers, start=0):
    for number in numbers:
        start += clamp(number, -100, 100)
    return start


def unused(x):
    return x + 1


class Bag:
    def __init__(self, items=()):
        self.items = list(items)
        self.added = 0

    def add(self, item):
        """Add an item."""
        self.items.append(item)
        self.added += 1
        return self

    def size(self):
        return len(self.items)
'''
NEW = OLD.replace("        start += clamp(number, -100, 100)", "        start = start + number")
TESTS = '''
import pytest
from pkg.core import Bag, clamp, total


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (0, 0), (1, 1), (9, 2)])
def test_clamp(x, y):
    """Inside and outside."""
    assert clamp(x, 0, 2) == y


def test_total():
    assert total([]) == 0
    assert total([1, 2], start=3) == 6


class TestBag:
    def test_add(self):
        bag = Bag("ab")
        bag.add("c").add("d")
        assert bag.items == ["a", "b", "c", "d"]
        assert bag.added == 2

    def test_size(self):
        assert Bag().size() == 0
'''
SLOW = (
    "import time\nimport pkg.core\nfrom pkg.core import clamp\n\npkg.core.SEEN = True\n\n"
    "def test_slow():\n    clamp(1, 2, 3)\n"
)
AFTER = """
import pytest
import pkg.core


@pytest.mark.parametrize("x", range(9))
def test_after(x):
    assert pkg.core.SEEN and pkg.core.total([x]) == x
"""
"""Passes in the whole suite alone, where another file has been imported."""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tree` (the project) and `history.git` (two commits)."""
    folder = tmp_path_factory.mktemp("project", numbered=True)
    tree = folder / "tree"
    for name, text in {
        "pkg/__init__.py": "",
        "pkg/core.py": OLD.lstrip(),
        "tests/test_core.py": TESTS.lstrip(),
        "tests/test_other.py": SLOW,
        "tests/test_after.py": AFTER.lstrip(),
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tree)]
    commit = [*git, "commit", "-qam"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*commit, "first"], check=True)
    (tree / "pkg/core.py").write_text(NEW.lstrip(), encoding="utf-8")
    subprocess.run([*commit, "Do not clamp in total"], check=True)
    (tree / ".git").rename(folder / "history.git")
    subprocess.run(
        ["git", "-C", str(folder / "history.git"), "config", "core.bare", "true"], check=True
    )
    return folder


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    found = open_sandbox("auto")
    yield found
    found.close()


@pytest.fixture(scope="session")
def prepared(
    project: Path, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PreparedRepo]:
    """The project with this interpreter's packages; its profile comes from a real discovery."""
    tree = cache_root() / "tests" / f"roles-{project.parent.name}-{project.name}" / "tree"
    yield build(project, tree, sandbox, tmp_path_factory.mktemp("scratch"))
    shutil.rmtree(tree.parent)


def build(project: Path, tree: Path, sandbox: Sandbox, scratch: Path) -> PreparedRepo:
    packages = tree.parent / "packages"
    shutil.rmtree(tree.parent, ignore_errors=True)
    shutil.copytree(project / "tree", tree)
    copy_pytest(packages, "coverage")
    make_readable(tree.parent)
    environment = Environment(
        tree=tree,
        mounts={**host_mounts(), str(packages): "/opt/selfplay/packages"},
        path="/opt/selfplay/packages/bin:/usr/local/bin:/usr/bin:/bin",
        digest=f"roles-test-{tree}",
        variables={"PYTHONPATH": "/testbed:/opt/selfplay/packages"},
    )
    profile = discover(environment, sandbox, scratch)
    source = (tree / "pkg/core.py").read_text(encoding="utf-8")
    return PreparedRepo(
        name="project",
        spec=RepoSpec(name="project", source=LocalSource(path=str(tree))),
        environment=environment,
        history=project / "history.git",
        profile=profile,
        functions=tuple(list_functions(source, "pkg/core.py")),
    )


@pytest.fixture(scope="session")
def runner(prepared: PreparedRepo, sandbox: Sandbox) -> TestRunner:
    return TestRunner(sandbox, prepared.environment)


@pytest.fixture(scope="session")
def injector(prepared: PreparedRepo, runner: TestRunner) -> CompactInjector:
    return CompactInjector(
        prepared, ByteTokenizer(), runner, ScaffoldConfig(max_prompt_tokens=3000)
    )


@pytest.fixture(scope="session")
def solver(prepared: PreparedRepo) -> CompactSolver:
    return CompactSolver(prepared, ByteTokenizer(), ScaffoldConfig(max_prompt_tokens=3000))


@pytest.fixture(scope="session")
def task_of(injector: CompactInjector, prepared: PreparedRepo) -> Callable[[str, str], SolveTask]:
    """(function, the injector's answer) -> the solver's task of a bug that is valid."""

    def make(function: str, answer: str) -> SolveTask:
        seed = Target(path="pkg/core.py", function=function)
        task = InjectionTask(task_id="t", repo="project", strategy="direct", target=seed)
        artifact = injector.artifact(injector.prompt(task), answer)
        report = validate(artifact, prepared.environment, injector.runner, task.limits)
        assert report.verdict == "valid", report
        return solve_task("project", artifact, report, task.limits)

    return make


@pytest.fixture(scope="session")
def bag(task_of: Callable[[str, str], SolveTask]) -> SolveTask:
    return task_of("Bag.add", "3|     self.added -= 1")


@pytest.fixture(scope="session")
def clamp(task_of: Callable[[str, str], SolveTask]) -> SolveTask:
    return task_of("clamp", "4|     if x >= high:\n5|         return low")


@pytest.fixture(scope="session")
def wide(task_of: Callable[[str, str], SolveTask]) -> SolveTask:
    """A bug that tests of several functions notice."""
    answer = "2|     self.items = [0] + list(items)"
    return task_of("Bag.__init__", answer)
