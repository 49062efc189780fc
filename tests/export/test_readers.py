"""Suites of others are read: SWE-bench, Parquet, SWE-smith, Harbor; our exports come back."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.diffs import reverse_patch
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.commands.suites import prepare_suite, read_tasks, suite_environments
from selfplay.config import ReposConfig
from selfplay.corpus.suite import SuiteTask, read_suite, to_line
from selfplay.errors import UserError
from selfplay.export.harbor import write_task
from selfplay.export.swesmith import to_instance
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import GradeReport, SolveTask

from .conftest import CODE, TEST_FILE, TESTS, MakeTask

SOURCE = {"repo": "calc", "source": {"pypi": {"project": "calc", "version": "1"}}}


@pytest.fixture
def task(make_task: MakeTask) -> SolveTask:
    return dataclasses.replace(make_task("x * 2", "x + 2"), problem_statement="Doubles are odd.")


@pytest.fixture
def suite_task(task: SolveTask) -> SuiteTask:
    return SuiteTask(solve_task=task, base_commit="calc==1", environment=SOURCE)


def write_lines(path: Path, *lines: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def meaning(task: SolveTask) -> Any:
    """Everything that decides a verdict; lines `index` of a patch do not."""
    patches = (task.artifact.bug_patch, task.artifact.weakening_patch)
    plain = [reverse_patch(reverse_patch(patch)) for patch in patches]
    artifact = dataclasses.replace(task.artifact, bug_patch=plain[0], weakening_patch=plain[1])
    return (artifact, task.fail_to_pass, task.pass_to_pass, task.problem_statement)


def test_lines_of_swe_smith_mean_what_they_meant(suite_task: SuiteTask, tmp_path: Path) -> None:
    [read] = read_suite(write_lines(tmp_path / "tasks.jsonl", to_instance(suite_task)))
    assert meaning(read.solve_task) == meaning(suite_task.solve_task)
    assert read.environment == suite_task.environment
    assert read.solve_task.repo == suite_task.solve_task.repo


def test_a_line_of_swe_smith_itself(suite_task: SuiteTask, tmp_path: Path) -> None:
    own = ("environment", "weakening_patch", "test_script", "license")
    line = {k: v for k, v in to_instance(suite_task).items() if k not in own}
    [read] = read_suite(write_lines(tmp_path / "a.jsonl", line | {"repo": "swesmith/o__calc.1234"}))
    bug = suite_task.solve_task.artifact.bug_patch
    assert read.solve_task.artifact.bug_patch == reverse_patch(reverse_patch(bug))
    assert read.environment["source"] == {"image": {"image": line["image_name"]}}
    assert TEST_FILE in read.solve_task.artifact.test_script
    assert read.solve_task.repo == "o__calc.1234"


def test_parquet_holds_what_the_lines_held(suite_task: SuiteTask, tmp_path: Path) -> None:
    arrow, pyarrow = map(pytest.importorskip, ("pyarrow.parquet", "pyarrow"))
    line = to_line(suite_task)
    row = line | {name: json.dumps(line[name]) for name in ("environment", "limits", "meta")}
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    arrow.write_table(pyarrow.Table.from_pylist([row | {"hints": None}]), file)
    assert read_tasks(tmp_path) == read_suite(file)
    [read] = read_tasks(tmp_path)
    assert meaning(read.solve_task) == meaning(suite_task.solve_task)
    assert read.environment == suite_task.environment
    file.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_tasks(tmp_path)


def test_a_task_folder_comes_back_with_equal_verdicts(
    suite_task: SuiteTask, environment: Environment, sandbox: Sandbox, tmp_path: Path
) -> None:
    solve = suite_task.solve_task
    write_task(suite_task, environment, tmp_path / "tasks" / solve.bug_id)
    (tmp_path / "tasks" / solve.bug_id / "environment" / "requirements.txt").unlink()
    [read] = read_tasks(tmp_path)
    assert meaning(read.solve_task) == meaning(solve)
    pool = SandboxPool(sandbox, num_workers=1)
    [there] = suite_environments([read], ReposConfig(), pool).values()
    files = [p for p in environment.tree.rglob("*") if p.is_file() and p.suffix == ".py"]
    assert {(there.tree / p.relative_to(environment.tree)).read_bytes() for p in files} == {
        p.read_bytes() for p in files
    }
    gold = reverse_patch(solve.artifact.bug_patch)
    wrong = gold.replace("x * 2", "x * 3")
    for patch in (gold, "", wrong):
        ours = grade(solve, patch, TestRunner(sandbox, environment))
        theirs = grade(read.solve_task, patch, TestRunner(sandbox, there))
        assert (ours.resolved, ours.reason) == (theirs.resolved, theirs.reason)
        assert ours.resolved == (patch == gold)


@pytest.fixture
def clone(tmp_path: Path) -> tuple[Path, str]:
    """A git project whose only commit is buggy, and that commit."""
    root = tmp_path / "calc"
    buggy = CODE.replace("x * 2", "x + 2")
    old = TESTS.replace("    assert double(3) == 6\n", "")
    for name, text in {"calc/__init__.py": "", "calc/core.py": buggy, TEST_FILE: old}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "all")):
        subprocess.run(["git", *identity, *words], cwd=root, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, check=True)
    return root, head.stdout.decode().strip()


FIX = """\
--- a/calc/core.py
+++ b/calc/core.py
@@ -1,4 +1,4 @@
 def double(x):
-    return x + 2
+    return x * 2
 
 
"""
MORE_TESTS = f"""\
--- a/{TEST_FILE}
+++ b/{TEST_FILE}
@@ -4,3 +4,4 @@
 def test_double():
     assert double(2) == 4
+    assert double(3) == 6
 
"""


def bench_line(commit: str) -> dict[str, Any]:
    """As SWE-bench's own files have it: nothing about how tests are run."""
    return {
        "instance_id": "own__calc-1",
        "repo": "own/calc",
        "base_commit": commit,
        "patch": FIX,
        "test_patch": MORE_TESTS,
        "problem_statement": "double(3) is 5",
        "hints_text": "",
        "version": "1.0",
        "FAIL_TO_PASS": json.dumps([f"{TEST_FILE}::test_double"]),
        "PASS_TO_PASS": [f"{TEST_FILE}::test_head"],
    }


def test_an_instance_of_swe_bench_is_graded_on_its_base_commit(
    clone: tuple[Path, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    root, commit = clone
    folder = tmp_path / "repos"
    folder.mkdir()
    (folder / "calc.yaml").write_text(f"source: {{git: {{url: {root}, commit: {commit}}}}}\n")
    [read] = read_suite(write_lines(tmp_path / "a.jsonl", bench_line(commit)))
    assert read.environment["source"]["git"]["url"] == "https://github.com/own/calc.git"
    config, pool = ReposConfig(directory=str(folder)), SandboxPool(sandbox, num_workers=1)
    [prepared] = prepare_suite([read], config, pool).values()
    assert (prepared.environment.tree / "calc/core.py").read_text() == CODE
    runner = TestRunner(sandbox, prepared.environment)
    verdicts = [grade(read.solve_task, patch, runner).resolved for patch in (FIX, "")]
    assert verdicts == [True, False]
    other = bench_line(commit) | {"patch": FIX.replace("x + 2", "y + 2")}
    [odd] = read_suite(write_lines(tmp_path / "b.jsonl", other))
    with pytest.raises(UserError, match=r"calc@\w+: patch: does not fit the source"):
        suite_environments([odd], config, pool)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"patch": ""}, "patch: is empty"),
        ({"base_commit": "main"}, "base_commit: 'main' of repo 'own/calc'.*add image"),
        ({"FAIL_TO_PASS": ["test_x (a.B)"]}, r"FAIL_TO_PASS: 'test_x \(a.B\)' is no id of pytest"),
        ({"test_script": "make check"}, "test_script: is none of ours; add test_parser"),
        ({"patch": "no patch"}, "patch: "),
        ({"PASS_TO_PASS": ["test_x"]}, "PASS_TO_PASS: 'test_x' is no id of pytest"),
        ({"PASS_TO_PASS": 5}, r"PASS_TO_PASS: neither JSON nor a list \('5'\)"),
        ({"FAIL_TO_PASS": "[1"}, r"FAIL_TO_PASS: neither JSON nor a list \('\[1'\)"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    line = bench_line("0" * 40) | changes
    with pytest.raises(UserError, match=rf"a\.jsonl:1:{problem}"):
        read_suite(write_lines(tmp_path / "a.jsonl", line))


HELD_ODDLY: dict[str, Any] = {
    "patches without their last blank lines": {"patch": FIX.strip(), "test_patch": MORE_TESTS[:-2]},
    "patches with CRLF": {"patch": FIX.replace("\n", "\r\n")},
    "what Python prints of a list": {"FAIL_TO_PASS": f"['{TEST_FILE}::test_double']"},
    "progress of a run among its tests": {
        "PASS_TO_PASS": [f"{TEST_FILE}::test_head", "[100%]", "[gw0] [ 33%]", "[1/5]"]
    },
    "small names": {"FAIL_TO_PASS": None, "fail_to_pass": [f"{TEST_FILE}::test_double"]},
    "a mark of its byte order": {},
}


@pytest.mark.parametrize("how", HELD_ODDLY)
def test_what_data_sets_hold_oddly(how: str, tmp_path: Path) -> None:
    """Reported of Scale-SWE (datasets#8120), SWE-bench Pro (its #14), SWE-bench (#660); BOM: of
    any editor."""
    plain = bench_line("0" * 40)
    line = {k: v for k, v in {**plain, **HELD_ODDLY[how]}.items() if v is not None}
    file = write_lines(tmp_path / "a.jsonl", line)
    if "mark" in how:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    [read] = read_suite(file)
    [expected] = read_suite(write_lines(tmp_path / "b.jsonl", plain))
    assert meaning(read.solve_task) == meaning(expected.solve_task)


def test_ids_that_were_cut_at_a_blank(
    clone: tuple[Path, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    """SWE-bench#290: `test_words[a` in a line is every test that the blank stood in."""
    root, commit = clone
    words = ["import pytest", "from calc.core import double"]
    words += ['@pytest.mark.parametrize("text, number", [("a b", 1), ("a c", 2), ("ab", 3)])']
    words += ["def test_words(text, number):", "    assert double(number) == number * 2"]
    patch = f"--- /dev/null\n+++ b/tests/test_words.py\n@@ -0,0 +1,{len(words)} @@\n"
    patch += "".join(f"+{word}\n" for word in words)
    cut = "tests/test_words.py::test_words[a"
    line = bench_line(commit) | {"test_patch": patch, "PASS_TO_PASS": []}
    folder = tmp_path / "repos"
    folder.mkdir()
    (folder / "calc.yaml").write_text(f"source: {{git: {{url: {root}, commit: {commit}}}}}\n")
    config, pool = ReposConfig(directory=str(folder)), SandboxPool(sandbox, num_workers=1)

    def reports(name: str, tests: list[str]) -> list[GradeReport]:
        [read] = read_suite(write_lines(tmp_path / name, line | {"FAIL_TO_PASS": tests}))
        [environment] = suite_environments([read], config, pool).values()
        half = FIX.replace("return x * 2", "return x * 2 if x != 2 else 5")
        runner = TestRunner(sandbox, environment)
        return [grade(read.solve_task, patch, runner) for patch in (FIX, half)]

    gold, half = reports("a.jsonl", [cut])
    assert gold.resolved and not half.resolved
    assert dict(gold.fail_to_pass) == {f"{cut} b-1]": "passed", f"{cut} c-2]": "passed"}
    assert dict(half.fail_to_pass) == {f"{cut} b-1]": "passed", f"{cut} c-2]": "failed"}
    gold, _ = reports("b.jsonl", ["tests/test_words.py::test_words[b"])
    assert gold.reason == "fail_to_pass", "an id that means no test is missing"


def test_an_image_is_taken_where_one_is_named(tmp_path: Path) -> None:
    line = bench_line("0" * 40) | {"image": "sweb/calc:1"}
    (tmp_path / "all.json").write_text(json.dumps([line]))
    [read] = read_suite(tmp_path / "all.json")
    assert read.environment["source"] == {"image": {"image": "sweb/calc:1"}}


def test_tasks_of_harbor_that_keep_their_instance(tmp_path: Path) -> None:
    folder = tmp_path / "own__calc-1"
    for part in ("tests", "environment"):
        (folder / part).mkdir(parents=True)
    (folder / "task.toml").write_text("")
    with pytest.raises(UserError, match=r"own__calc-1: neither .*harbor run -p"):
        read_tasks(tmp_path)
    (folder / "tests" / "config.json").write_text(json.dumps(bench_line("0" * 40)))
    (folder / "environment" / "Dockerfile").write_text("FROM sweb/calc:1\nRUN true\n")
    [read] = read_tasks(tmp_path)
    assert read.environment["source"] == {"image": {"image": "sweb/calc:1"}}
    shutil.rmtree(folder)
    (tmp_path / "data.arrow").write_bytes(b"")
    with pytest.raises(UserError, match=r"no run directory.*write \*.arrow anew with to_parquet"):
        read_tasks(tmp_path)
