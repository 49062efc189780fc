"""Suites: what is written is read back, and what is wrong is named by file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.corpus.readers.foreign import completed
from selfplay.corpus.suite import (
    SuiteTask,
    from_line,
    read_suite,
    to_line,
    write_suite,
)
from selfplay.errors import UserError
from selfplay.types import BugArtifact, Limits, SolveTask

BUG = """\
diff --git a/pkg/a.py b/pkg/a.py
--- a/pkg/a.py
+++ b/pkg/a.py
@@ -1,2 +1,2 @@
 def f(x):
-    return x + 1
+    return x - 1
"""
WEAKENING = """\
diff --git a/tests/test_a.py b/tests/test_a.py
--- a/tests/test_a.py
+++ b/tests/test_a.py
@@ -1,3 +1,1 @@
 import pkg
-def test_f():
-    assert pkg.f(1) == 2
"""


def make_task(name: str = "bug-1", **changes: Any) -> SuiteTask:
    artifact = BugArtifact(
        test_script="pytest -v tests/test_a.py\n",
        test_files=("tests/test_a.py",),
        test_parser="print({})\n",
        bug_patch=BUG,
        weakening_patch=WEAKENING,
        meta={"strategy": "direct", "line": 2},
    )
    fields: dict[str, Any] = {
        "bug_id": name,
        "repo": "toolz",
        "artifact": artifact,
        "fail_to_pass": ("tests/test_a.py::test_f",),
        "pass_to_pass": ("tests/test_a.py::test_g[é]",),
        "failure_output": b"E caf\xe9".decode("utf-8", "surrogateescape"),
        "limits": Limits(script_timeout_s=30.0),
    }
    return SuiteTask(
        solve_task=SolveTask(**{**fields, **changes}),
        base_commit="toolz==1.0.0",
        environment={"repo": "toolz", "source": {"pypi": {"project": "toolz"}}},
    )


def test_round_trip(tmp_path: Path) -> None:
    tasks = [make_task(), make_task("bug-2", problem_statement="f is wrong\u2028here")]
    write_suite(tasks, tmp_path / "out" / "suite.jsonl")
    assert read_suite(tmp_path / "out" / "suite.jsonl") == tasks


@given(
    texts=st.lists(st.text(), min_size=4, max_size=4),
    ids=st.lists(st.text(), min_size=1, unique=True),
)
def test_any_text_survives(texts: list[str], ids: list[str]) -> None:
    task = make_task(
        fail_to_pass=tuple(ids),
        pass_to_pass=(),
        problem_statement=texts[0],
        failure_output=texts[1],
        repo=f"r{texts[2]}",
    )
    assert from_line(json.loads(json.dumps(to_line(task)))) == task


def test_a_line_has_swe_benchs_names(tmp_path: Path) -> None:
    line = to_line(make_task())
    assert set(line) == {
        *("instance_id", "repo", "base_commit", "patch", "test_patch", "problem_statement"),
        *("test_script", "test_parser", "failure_output"),
        *("FAIL_TO_PASS", "PASS_TO_PASS", "test_files"),
        *("environment", "limits", "meta"),
    }
    assert "+    return x + 1" in line["patch"]
    assert "+    assert pkg.f(1) == 2" in line["test_patch"]
    assert line["FAIL_TO_PASS"] == ["tests/test_a.py::test_f"]


def test_foreign_lines_are_read() -> None:
    """SWE-bench writes its lists as JSON text, knows more keys and none of our optional ones."""
    line = {**to_line(make_task()), "hints_text": "", "version": "1.0"}
    line["FAIL_TO_PASS"] = json.dumps(line["FAIL_TO_PASS"])
    for name in ("failure_output", "limits", "meta"):
        del line[name]
    task = from_line(completed(line)).solve_task
    assert task.fail_to_pass == ("tests/test_a.py::test_f",)
    assert (task.failure_output, task.limits, task.artifact.meta) == ("", Limits(), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repo": None}, "repo: expected str, got null"),
        ({"repo": ...}, "repo: is missing"),
        ({"repo": ""}, "repo: is empty"),
        ({"patch": ""}, "patch: is empty"),
        ({"patch": "nonsense"}, "patch: "),
        ({"test_patch": WEAKENING.replace("tests/", "../")}, "test_patch: path"),
        ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS: is empty"),
        ({"FAIL_TO_PASS": "not a list"}, "FAIL_TO_PASS: expected array, got str"),
        ({"PASS_TO_PASS": [1]}, r"PASS_TO_PASS\[0\]: expected str, got int"),
        ({"PASS_TO_PASS": ["tests/test_a.py::test_f"]}, "PASS_TO_PASS: .* is in FAIL_TO_PASS too"),
        ({"test_files": ["/etc/passwd"]}, "test_files: path '/etc/passwd'"),
        ({"environment": "toolz"}, "environment: expected object, got str"),
        ({"environment": ...}, "base_commit: .* add image .* or environment"),
        ({"instance_id": "../up"}, "instance_id: '../up' must be made of letters"),
        ({"limits": {"speed": 1}}, "limits: 'speed' is unknown"),
        (
            {"limits": {"min_passing_tests": "5"}},
            r"limits\.min_passing_tests: expected int",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    line = {k: v for k, v in {**to_line(make_task("bug-2")), **change}.items() if v is not ...}
    file = tmp_path / "suite.jsonl"
    file.write_text(json.dumps(to_line(make_task())) + "\n\n" + json.dumps(line) + "\n")
    with pytest.raises(UserError, match=rf"suite\.jsonl:3:{message}"):
        read_suite(file)


@pytest.mark.parametrize(("text", "line"), [("{", 1), ("\n[]", 2), ('"a"', 1)])
def test_lines_that_are_no_objects(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "suite.jsonl").write_text(text)
    with pytest.raises(UserError, match=rf"suite\.jsonl:{line}: not a JSON object"):
        read_suite(tmp_path / "suite.jsonl")


def test_two_lines_of_one_id(tmp_path: Path) -> None:
    write_suite([make_task(), make_task()], tmp_path / "suite.jsonl")
    with pytest.raises(UserError, match=r":2:instance_id: 'bug-1' was there before"):
        read_suite(tmp_path / "suite.jsonl")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_suite(tmp_path / "absent.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_suite(tmp_path / "bytes.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_suite([], tmp_path / "file" / "suite.jsonl")
