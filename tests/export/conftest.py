"""A small real project in a real sandbox, and a bug of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs import pytest_framework, scripts
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.cache import cache_root
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.select import open_sandbox
from selfplay.types import BugArtifact, FileChange, SolveTask
from tests.own_packages import copy_pytest

CODE = """\
def double(x):
    return x * 2


def head(items):
    return items[0]
"""
TESTS = """\
from calc.core import double, head


def test_double():
    assert double(2) == 4
    assert double(3) == 6


def test_head():
    assert head([1, 2]) == 1
"""
TEST_FILE = "tests/test_core.py"
MakeTask = Callable[..., SolveTask]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    folder = cache_root() / "tests" / f"export-{tmp_path_factory.getbasetemp().name}"
    shutil.rmtree(folder, ignore_errors=True)
    files = {"calc/__init__.py": "", "calc/core.py": CODE, TEST_FILE: TESTS}
    for name, text in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_text(text)
    copy_pytest(folder / "packages")
    make_readable(folder)
    yield Environment(
        tree=folder / "tree",
        mounts={**host_mounts(), str(folder / "packages"): "/opt/selfplay/packages"},
        path="/opt/selfplay/packages/bin:/usr/local/bin:/usr/bin:/bin",
        digest=f"export-test-{folder}",
        variables={"PYTHONPATH": "/testbed:/opt/selfplay/packages"},
    )
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    found = open_sandbox("auto")
    yield found
    found.close()


@pytest.fixture(scope="session")
def runner(environment: Environment, sandbox: Sandbox) -> TestRunner:
    return TestRunner(sandbox, environment)


@pytest.fixture(scope="session")
def make_task(environment: Environment) -> MakeTask:
    """A bug that replaces `old` by `new`; it breaks `test_double` unless told otherwise."""

    def make(old: str, new: str, *, fails: str = f"{TEST_FILE}::test_double") -> SolveTask:
        tree = environment.tree
        buggy = {"calc/core.py": FileChange(content=CODE.replace(old, new).encode())}
        artifact = BugArtifact(
            test_script=pytest_framework.pytest_script((TEST_FILE,)),
            test_files=(TEST_FILE,),
            test_parser=scripts.parser_source("pytest"),
            bug_patch=make_patch(tree, {}, buggy),
            weakening_patch=make_patch(tree, {}, weakening_layer(tree, [fails])),
        )
        return SolveTask(
            bug_id=artifact_id(artifact),
            repo="calc",
            artifact=artifact,
            fail_to_pass=(fails,),
            pass_to_pass=(f"{TEST_FILE}::test_head",),
        )

    return make
