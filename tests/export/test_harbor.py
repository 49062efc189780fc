"""Harbor's task folders, replayed in our own sandbox: the solution is rewarded, nothing else is."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.corpus.suite import SuiteTask
from selfplay.export import harbor_grade
from selfplay.export.harbor import dockerfile, installed, write_task
from selfplay.sandbox.base import Environment, Job, RunResult, Sandbox
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
    """The reward after some commands in the task's tree; "" where there is none."""
    done = verified(folder, environment, sandbox, *commands)
    return done.files.get("reward.txt", b"").decode().strip()


def verified(
    folder: Path, environment: Environment, sandbox: Sandbox, *commands: str,
    verify: str = "LOGS=/out bash /tests/test.sh",
) -> RunResult:  # fmt: skip
    """What a run leaves in /out, with the mounts that Harbor makes."""
    tree = folder / "environment" / "repo"
    mounts = {str(folder / name): f"/{name}" for name in ("tests", "solution")}
    inside = dataclasses.replace(
        environment, tree=tree, mounts={**environment.mounts, **mounts}, digest=str(folder)
    )
    script = "\n".join([*commands, verify])
    return sandbox.run(Job(environment=inside, argv=("bash", "-c", script)))


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


@pytest.mark.parametrize(
    "trick",
    [
        f"rm {TEST_FILE}; mkdir -p {TEST_FILE}/x",
        "rm -r tests; echo not a folder >tests",
        "rm -r tests; ln -s /tmp tests",
        f"rm {TEST_FILE}; ln -s /nowhere/at/all {TEST_FILE}",
    ],
)
def test_what_stands_in_the_way_of_the_tests_changes_no_reward(
    folder: Path, environment: Environment, sandbox: Sandbox, trick: str
) -> None:
    """An answer's own reward.txt counts for nothing, either."""
    written = "echo 1 >/out/reward.txt"
    assert reward(folder, environment, sandbox, written, trick) == "0"
    assert reward(folder, environment, sandbox, "bash /solution/solve.sh", trick) == "1"


def test_a_fault_of_the_machine_is_no_reward(
    folder: Path, environment: Environment, sandbox: Sandbox
) -> None:
    """As where the image has no shell: Harbor reports an error, not a wrong answer."""
    verify = "python=$(command -v python3); PATH=/nothing $python /tests/grade.py /out"
    done = verified(folder, environment, sandbox, "echo 1 >/out/reward.txt", verify=verify)
    assert "reward.txt" not in done.files and done.exit_code != 0


def test_what_the_tests_leave_running_holds_nothing_up(
    folder: Path, environment: Environment, sandbox: Sandbox
) -> None:
    """A process that keeps the output open; the script itself ends at once."""
    script = folder / "tests" / "test_script.sh"
    script.write_text(script.read_text().replace("exec python", "sleep 300 &\nexec python"))
    began = time.monotonic()
    assert reward(folder, environment, sandbox, "bash /solution/solve.sh") == "1"
    assert time.monotonic() - began < 150


@pytest.mark.parametrize("told", [None, "test_calc.py::test_half"])
def test_output_without_end_costs_nobody_the_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    """It filled the disk, or the memory of the grader: Harbor then reports an error, and no 0."""
    for name in ("HERE", "TREE"):
        monkeypatch.setattr(harbor_grade, name, tmp_path)
    monkeypatch.setattr(harbor_grade, "MAX_FILE", 1 << 20)
    wanted = "test_calc.py::test_half"
    endless = "yes" if told is None else f"echo {told} PASSED"
    (tmp_path / "test_script.sh").write_text(f"{endless}\n")
    (tmp_path / "test_parser.py").write_text(
        "import json, sys\ntext = sys.stdin.read(); assert len(text) <= 1 << 20\n"
        f"print(json.dumps(dict.fromkeys(['{wanted}'], 'passed') if 'PASSED' in text else {{}}))\n"
    )
    request = {"links": {}, "original": {}, "executable": [], "timeout_s": 20, "PASS_TO_PASS": []}
    (tmp_path / "request.json").write_text(json.dumps({**request, "FAIL_TO_PASS": [wanted]}))
    began = time.monotonic()
    assert harbor_grade.main(tmp_path / "logs") == 0
    assert time.monotonic() - began < 100
    assert (tmp_path / "logs" / "reward.txt").read_text() == f"{int(told is not None)}\n"


USING = """\
import subprocess
from pathlib import Path


def test_double():
    from calc.core import double

    assert double(2) == 4 and double(3) == 6
    assert subprocess.run([Path(__file__).with_name("tool.sh")]).returncode == 7
    assert Path(__file__).with_name("link.txt").is_symlink()


def test_head():
    pass
"""


def test_modes_and_links_are_put_back(
    environment: Environment, sandbox: Sandbox, task: SolveTask
) -> None:
    """Helpers of tests that are run, and links among them, stay what they are."""
    home = environment.tree.parent / "modes"
    shutil.copytree(environment.tree, home / "tree")
    (home / "tree" / "tests" / "tool.sh").write_text("#!/bin/sh\nexit 7\n")
    (home / "tree" / "tests" / "tool.sh").chmod(0o755)
    (home / "tree" / "tests" / "link.txt").symlink_to("tool.sh")
    (home / "tree" / TEST_FILE).write_text(USING)
    whole = dataclasses.replace(task.artifact, weakening_patch="")
    line = SuiteTask(
        solve_task=dataclasses.replace(task, artifact=whole), base_commit="", environment={}
    )
    there = dataclasses.replace(environment, tree=home / "tree")
    write_task(line, there, home / "task")
    make_readable(home)
    spoilt = ("bash /solution/solve.sh", "chmod 644 tests/tool.sh", "rm tests/link.txt")
    try:
        assert reward(home / "task", there, sandbox, *spoilt) == "1"
    finally:
        shutil.rmtree(home)


def test_variables_reach_the_image_as_they_are(environment: Environment, task: SolveTask) -> None:
    """A Dockerfile's ENV expands `$`, and knows no escapes but of these three signs."""
    odd = {"PYTEST_ADDOPTS": "--deselect='a[\\d\"$HOME é]'"}
    text = dockerfile(dataclasses.replace(environment, variables=odd), task)
    assert 'ENV PYTEST_ADDOPTS="--deselect=\'a[\\\\d\\"\\$HOME é]\'"\n' in text


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
