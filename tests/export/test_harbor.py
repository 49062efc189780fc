"""Harbor's task folders, replayed in our own sandbox: the solution is rewarded, nothing else is."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.corpus.suite import SuiteTask
from selfplay.export.harbor import dockerfile, installed, write_task
from selfplay.sandbox.base import Environment, Job, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.types import SolveTask

from .conftest import TEST_FILE, MakeTask

WRONG = """\
diff --git a/calc/core.py b/calc/core.py
--- a/calc/core.py
+++ b/calc/core.py
@@ -1,2 +1,2 @@
 def double(x):
-    return x + 2
+    return x + 3
"""


@pytest.fixture
def task(make_task: MakeTask) -> SolveTask:
    return make_task("x * 2", "x + 2")


@pytest.fixture
def folder(environment: Environment, task: SolveTask) -> Iterator[Path]:
    home = environment.tree.parent / "harbor"
    home.mkdir()
    source = {"source": {"pypi": {"project": "calc", "version": "1"}}, "license": "MIT"}
    line = SuiteTask(solve_task=task, base_commit="calc==1", environment=source)
    write_task(line, environment, home / task.bug_id)
    make_readable(home)
    yield home / task.bug_id
    shutil.rmtree(home)


def reward(folder: Path, environment: Environment, sandbox: Sandbox, *commands: str) -> str:
    """The reward after some commands in the task's tree, with the mounts that Harbor makes."""
    tree = folder / "environment" / "repo"
    mounts = {str(folder / name): f"/{name}" for name in ("tests", "solution")}
    inside = dataclasses.replace(
        environment, tree=tree, mounts={**environment.mounts, **mounts}, digest=str(folder)
    )
    script = "\n".join([*commands, "LOGS=/out bash /tests/test.sh"])
    done = sandbox.run(Job(environment=inside, argv=("bash", "-c", script)))
    assert done.exit_code == 0, done.output
    return done.files["reward.txt"].decode().strip()


def test_the_solution_is_rewarded_and_nothing_else(
    folder: Path, environment: Environment, sandbox: Sandbox, task: SolveTask, runner: TestRunner
) -> None:
    apply = f"cat >/tmp/wrong.diff <<'END'\n{WRONG}END\npatch -p1 </tmp/wrong.diff"
    rewards = {
        "gold": reward(folder, environment, sandbox, "bash /solution/solve.sh"),
        "empty": reward(folder, environment, sandbox),
        "wrong": reward(folder, environment, sandbox, apply),
        "deleting": reward(folder, environment, sandbox, f"rm {TEST_FILE}"),
        "editing": reward(folder, environment, sandbox, f"echo 'def test_a(): 0' >{TEST_FILE}"),
    }
    assert rewards == {"gold": "1"} | dict.fromkeys(["empty", "wrong", "deleting", "editing"], "0")
    gold = (folder / "solution" / "gold.diff").read_text()
    assert [grade(task, patch, runner).resolved for patch in (gold, "", WRONG)] == [
        True, False, False,
    ]  # fmt: skip


def test_what_the_agent_sees_gives_nothing_away(folder: Path, task: SolveTask) -> None:
    seen = [p for p in (folder / "environment").rglob("*") if p.is_file()]
    seen.append(folder / "instruction.md")
    assert all(b"x * 2" not in path.read_bytes() for path in seen)
    assert "+    assert double(2) == 4" in (folder / "instruction.md").read_text()
    settings = tomllib.loads((folder / "task.toml").read_text())
    assert settings["task"]["name"] == f"selfplay/{task.bug_id}"
    assert settings["metadata"]["license"] == "MIT"
    request = json.loads((folder / "tests" / "request.json").read_text())
    assert request["FAIL_TO_PASS"] == list(task.fail_to_pass)


def test_packages_are_pinned(environment: Environment, task: SolveTask, tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("pytest==9.2.0\n")
    packages = tmp_path / "packages"
    there = dataclasses.replace(environment, mounts={str(packages): "/opt/selfplay/packages"})
    assert installed(there) == ["pytest==9.2.0"]
    text = dockerfile(there, task)
    assert "-r /tmp/requirements.txt" in text and 'ENV PYTHONPATH="/testbed:' in text
    image = dockerfile(dataclasses.replace(there, image="sha256:abc"), task)
    assert "ARG BASE=sha256:abc\n" in image and "pip" not in image
