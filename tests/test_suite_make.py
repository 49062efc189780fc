"""Programs in QuixBugs' layout become a suite: one bug each, and why the others do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.bug_sources.python_programs import read_programs
from selfplay.cli import main
from selfplay.corpus.suite import read_suite
from selfplay.errors import UserError

BROKEN = {"double": "x + x + 1", "triple": "x * 2", "square": "x * x", "half": "x"}
CORRECT = {"double": "x + x", "triple": "x * 3", "square": "x * x", "half": "x / 2"}
PYTEST = """\
from python_programs.double import double


def test_zero():
    assert double(0) == 0


def test_type():
    assert isinstance(double(1), int)
"""


def source(name: str, body: str) -> str:
    return f"def {name}(x):\n    y = {body}\n    return y\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "given"
    files = {
        **{f"python_programs/{n}.py": source(n, body) for n, body in BROKEN.items()},
        **{f"correct_python_programs/{n}.py": source(n, body) for n, body in CORRECT.items()},
        "python_programs/lost.py": source("lost", "x"),
        "python_testcases/test_double.py": PYTEST,
        "json_testcases/triple.json": "[[0], 0]\n[[2], 6]\n",
        "conftest.py": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_can_be_no_bug_is_told(folder: Path, tmp_path: Path) -> None:
    assert {p.name: p.dropped for p in read_programs(folder)} == {
        "double": "", "triple": "", "square": "same", "half": "no_tests", "lost": "no_correct",
    }  # fmt: skip
    with pytest.raises(UserError, match="has no folder python_programs/"):
        read_programs(tmp_path)


def test_a_case_may_hold_what_ends_lines_elsewhere(tmp_path: Path) -> None:
    """U+2028 stands in JSON as it is."""
    files = {
        "python_programs/__init__.py": "",
        "python_programs/same.py": "def same(text):\n    return ''\n",
        "correct_python_programs/same.py": "def same(text):\n    return text\n",
        "json_testcases/same.json": '[["a\u2028b"], "a\u2028b"]\n\n["c", "c"]\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (program,) = read_programs(tmp_path)
    (tmp_path / "python_programs/same.py").write_bytes(program.correct)
    (tmp_path / "python_testcases").mkdir()
    (tmp_path / "python_testcases/test_same.py").write_bytes(program.tests)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "python_testcases"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert "2 passed" in done.stdout, done.stdout


def test_programs_become_a_suite(folder: Path, tmp_path: Path) -> None:
    words = ["suite", "make", f"programs={folder}", f"out={tmp_path / 'out'}", "json=true"]
    command = [sys.executable, "-m", "selfplay", *words]  # its lock ends with its process
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout)["outcomes"] == {"kept": 2}
    tasks = {t.solve_task.problem_statement: t for t in read_suite(tmp_path / "out/suite.jsonl")}
    assert set(tasks) == {"Repair double", "Repair triple"}
    double = tasks["Repair double"].solve_task
    assert double.fail_to_pass == ("python_testcases/test_double.py::test_zero",)
    assert "+    y = x + x + 1" in double.artifact.bug_patch
    ids = [task.solve_task.bug_id for task in tasks.values()]
    assert main(words) == 0
    again = read_suite(tmp_path / "out/suite.jsonl")
    assert sorted(t.solve_task.bug_id for t in again) == sorted(ids), "the same history again"
    assert main(["corpus", "verify", f"out={tmp_path / 'out'}"]) == 0
