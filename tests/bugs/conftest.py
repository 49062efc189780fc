"""A small real project with tests, in a real sandbox, and helpers that make bugs in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.patches.layers import make_patch, normal_layer
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs import pytest_framework, scripts
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.cache import cache_root
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.select import open_sandbox
from selfplay.types import BugArtifact, SolveTask
from tests.own_packages import copy_pytest

from .shop import FILES, SUM_BUG, SUM_TESTS, TEST_FILES, Change, MakeArtifact, MakeTask, as_layer


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    found = open_sandbox("bubblewrap")
    yield found
    found.close()


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The shop with this interpreter's pytest mounted beside it."""
    root = cache_root() / "tests" / f"bugs-{tmp_path_factory.mktemp('shop').parent.name}"
    shutil.rmtree(root, ignore_errors=True)
    tree, packages = root / "tree", root / "packages"
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text, encoding="utf-8")
    copy_pytest(packages)
    make_readable(root)
    yield Environment(
        tree=tree,
        mounts={**host_mounts(), str(packages): "/opt/packages"},
        path="/opt/packages/bin:/usr/local/bin:/usr/bin:/bin",
        digest=f"shop-{root.name}",
        variables={"PYTHONPATH": "/testbed:/opt/packages"},
    )
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def runner(sandbox: Sandbox, environment: Environment) -> TestRunner:
    return TestRunner(sandbox, environment)


@pytest.fixture(scope="session")
def make_artifact(environment: Environment) -> MakeArtifact:
    """Artifact from a change of the sources and the tests that it breaks."""
    tree = environment.tree

    def make(
        bug: Change,
        broken: tuple[str, ...],
        *,
        test_files: tuple[str, ...] = TEST_FILES,
        script: str | None = None,
        parser: str | None = None,
        weakening: Change | None = None,
    ) -> BugArtifact:
        weakened = as_layer(weakening) if weakening else weakening_layer(tree, broken)
        return BugArtifact(
            test_script=script or pytest_framework.pytest_script(test_files),
            test_files=test_files,
            test_parser=parser or scripts.parser_source("pytest"),
            bug_patch=make_patch(tree, {}, normal_layer(tree, as_layer(bug))),
            weakening_patch=make_patch(tree, {}, weakened),
        )

    return make


@pytest.fixture(scope="session")
def make_task(environment: Environment, runner: TestRunner) -> MakeTask:
    """The solver's task of an artifact, which must be valid."""

    def make(artifact: BugArtifact) -> SolveTask:
        report = validate(artifact, environment, runner)
        assert report.verdict == "valid", report
        return SolveTask(
            bug_id=artifact_id(artifact),
            repo="shop",
            artifact=artifact,
            fail_to_pass=report.fail_to_pass,
            pass_to_pass=report.pass_to_pass,
        )

    return make


@pytest.fixture(scope="session")
def sum_task(make_artifact: MakeArtifact, make_task: MakeTask) -> SolveTask:
    """`total` returns the last price; one test notices."""
    return make_task(make_artifact(SUM_BUG, SUM_TESTS))
