"""Programs that are known by what they do: made of a vendored sample, validated, rebuilt, told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfplay.bug_sources.reference_programs import read_cases, task_folders, write_repository
from selfplay.corpus.suite import read_suite
from selfplay.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
NUM_SHOWN, NUM_COMMANDS = 8, 12


def selfplay(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "selfplay", *words, "sandbox=bubblewrap", "json=true"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendored sample as a task, by the script that ships."""
    out = tmp_path_factory.mktemp("programs") / "tasks"
    script = str(ROOT / "scripts" / "program_task.py")
    subprocess.run([sys.executable, script, str(out)], check=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def suite(tasks: Path) -> Path:
    out = tasks.parent / "suite"
    done = selfplay("suite", "make", f"programs={tasks}", f"out={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)[0]["outcome"] == f"{NUM_COMMANDS} commands"
    return out


def test_the_reference_is_no_source_and_no_solver_has_it(tasks: Path, suite: Path) -> None:
    assert b"def slug" not in (tasks / "textkit" / "reference").read_bytes()
    (task,) = read_suite(suite / "suite.jsonl")
    artifact = task.solve_task.artifact
    assert "deleted file mode 100755" in artifact.bug_patch
    assert "docs/examples.jsonl" in task.solve_task.problem_statement
    tests = (suite / "programs" / "textkit" / "tests" / "test_behaviour.py").read_text()
    examples = (suite / "programs" / "textkit" / "docs" / "examples.jsonl").read_text()
    hidden = [case for case in read_cases(tasks / "textkit") if not case.shown]
    assert len(hidden) == NUM_COMMANDS - NUM_SHOWN == 4
    assert len(examples.splitlines()) == NUM_SHOWN
    assert "http_server_name2" not in tests, "what is printed is there as a hash alone"
    assert all(json.dumps(case.stdout) not in examples or case.stdout == "\n" for case in hidden)


def test_the_scripted_agent_knows_the_examples_and_no_more(suite: Path, tmp_path: Path) -> None:
    """Written in the sandbox, graded on all commands: what it learnt by heart passes, what it was
    not shown does not, and that is told as the share of tests that pass."""
    document = evaluated(suite, tmp_path / "some.json")
    assert document["pass@1"]["mean"] == 0.0
    assert document["tasks"][0]["test_share"] == pytest.approx(NUM_SHOWN / NUM_COMMANDS)
    assert document["test_share"]["mean"] == pytest.approx(NUM_SHOWN / NUM_COMMANDS)
    assert document["reasons"] == {"fail_to_pass": 1}


def test_shown_all_of_it_the_scripted_agent_solves_it(tasks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tasks" / "textkit"
    folder.parent.mkdir()
    subprocess.run(["cp", "-r", str(tasks / "textkit"), str(folder)], check=True)
    lines = [json.loads(line) for line in (folder / "tests.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "shown": True}) + "\n" for line in lines)
    (folder / "tests.jsonl").write_text(text)
    done = selfplay("suite", "make", f"programs={folder.parent}", f"out={tmp_path / 'suite'}")
    assert done.returncode == 0, done.stderr[-2000:]
    document = evaluated(tmp_path / "suite", tmp_path / "all.json")
    assert document["pass@1"]["mean"] == 1.0 and document["test_share"]["mean"] == 1.0


def evaluated(suite: Path, out: Path) -> dict[str, Any]:
    done = selfplay("evaluate", f"suite={suite}", "policy=scripted", "scaffold=agentic",
                    "num_samples=1", f"out={out}")  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_command_that_the_reference_answers_otherwise_makes_no_task(
    tasks: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "wrong"
    subprocess.run(["cp", "-r", str(tasks / "textkit"), str(folder)], check=True)
    text = (folder / "tests.jsonl").read_text()
    (folder / "tests.jsonl").write_text(text.replace("hello-world", "hello_world"))
    done = selfplay("suite", "make", f"programs={folder}", f"out={tmp_path / 'suite'}")
    assert done.returncode == 1, done.stderr[-2000:]
    assert "fail" in json.loads(done.stdout)[0]["outcome"]


def test_odd_bytes_and_ids_are_commands_like_others(tmp_path: Path) -> None:
    """Output that is no UTF-8, ends of lines that JSON does not know, ids that differ by a dash."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("It repeats.")
    (tmp_path / "reference").write_text("#!/bin/sh\ncat; printf '%s\\377' \"$1\"\n")
    odd = "a\u2028b\x85c"
    cases = [
        {"id": "-a", "argv": ["\udcfe"], "stdin": "\udcfd", "stdout": "\udcfd\udcfe\udcff"},
        {"id": "--a", "argv": [odd], "stdout": f"{odd}\udcff"},
    ]
    lines = [json.dumps({**case, "exit_code": 0}) for case in cases]
    raw = json.dumps(odd)[1:-1], odd  # as JSON allows it
    (tmp_path / "tests.jsonl").write_text("\n\n".join(lines).replace(*raw), encoding="utf-8")
    found = write_repository(tmp_path, tmp_path / "out")
    assert [case.name for case in found] == ["a", "a_of_line_3"]
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(argv, cwd=tmp_path / "out", capture_output=True, text=True, timeout=200)
    assert "3 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("", "holds no command"),
        ("{\n", ":1: no command"),
        ('{"argv": "ls", "stdout": "", "exit_code": 0}\n', "argv must be a list"),
        ('{"argv": [], "exit_code": 0}\n', "'stdout'"),
        ('{"argv": ["\\ud800"], "stdout": "", "exit_code": 0}\n', ":1: no command.*surrogates"),
        ('{"argv": ["a\\u0000"], "stdout": "", "exit_code": 0}\n', "holds a NUL"),
        ('{"id": "a", "argv": [], "stdout": "", "exit_code": 0}\n' * 2, ":2: id 'a'"),
        ('{"argv": [], "stdout": "", "exit_code": 0}\n', "reference"),
    ],
)
def test_what_is_no_task_is_told(tmp_path: Path, lines: str, reason: str) -> None:
    (tmp_path / "tests.jsonl").write_text(lines)
    assert task_folders(tmp_path) == [tmp_path]
    with pytest.raises(UserError, match=reason):
        write_repository(tmp_path, tmp_path / "out")
