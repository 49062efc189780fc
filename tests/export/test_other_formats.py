"""SWE-smith's lines and profiles, preference pairs, issue texts; what an export says of itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.corpus.suite import SuiteTask
from selfplay.export.manifest import write_manifest
from selfplay.export.preferences import export_preferences
from selfplay.export.statement import leaks, problem_statement
from selfplay.export.swesmith import profile_of, profiles, to_instance, write_swesmith
from selfplay.types import SolveTask

from .conftest import TEST_FILE, MakeTask
from .test_traces import TOKENIZER, make_episode, write_run

COMMIT = "0123456789abcdef" * 2 + "01234567"
FAILS = f"{TEST_FILE}::test_double"


@pytest.fixture
def task(make_task: MakeTask) -> SolveTask:
    return make_task("x * 2", "x + 2")


def line(task: SolveTask, **environment: object) -> SuiteTask:
    return SuiteTask(solve_task=task, base_commit="calc==1", environment=environment)


def test_the_patch_of_swesmith_is_the_bug(task: SolveTask) -> None:
    source = {"git": {"url": "https://github.com/own/calc.git", "commit": COMMIT}}
    row = to_instance(line(task, source=source, license="MIT"))
    assert "+    return x + 2" in row["patch"] and row["patch"] == task.artifact.bug_patch
    assert row["instance_id"].rsplit(".", 1)[0] == "own__calc.01234567"
    assert row["repo"] == "selfplay/own__calc.01234567"
    assert row["image_name"] == "selfplay/swesmith.x86_64.own_1776_calc.01234567"
    assert (row["FAIL_TO_PASS"], row["license"]) == ([FAILS], "MIT")


def test_a_repository_without_a_commit_has_a_name_too(task: SolveTask) -> None:
    owner, repo, commit = profile_of(line(task))
    assert (owner, repo, len(commit)) == ("selfplay", "calc", 40)
    assert profile_of(line(task)) == (owner, repo, commit)


def test_only_shipped_parsers_become_code(task: SolveTask, tmp_path: Path) -> None:
    own = dataclasses.replace(task.artifact, test_parser="print({})")
    other = dataclasses.replace(task, bug_id="bug-other", artifact=own)
    told = write_swesmith([line(task), line(other)], tmp_path)
    assert [t.solve_task.bug_id for t in told] == [task.bug_id]
    text = (tmp_path / "profiles.py").read_text()
    compile(text, "profiles.py", "exec")
    assert text == profiles(told) and repr(parser_source("pytest")) in text
    assert len((tmp_path / "tasks.jsonl").read_text().splitlines()) == 1


def test_pairs_of_one_prompt(tmp_path: Path) -> None:
    name = "step0/solver/b/{}".format
    failed = {"reward": -1.0, "reason": "fail_to_pass"}
    run = write_run(
        tmp_path / "run",
        make_episode(name(0)),
        make_episode(name(1), answer="1| x = 3", **failed),
        make_episode(name(2), answer="1| x = 3", **failed),
        make_episode(name(3), answer="1| x = 4", **failed),
        make_episode(name(4), answer="", **failed),
        make_episode(name(5), answer="1| x = 5", status="errored", reward=None),
        make_episode("step0/solver/c/0", bug_id="c", answer="1| x = 6", **failed),
    )
    assert export_preferences(run, tmp_path / "out", TOKENIZER) == 1
    [pair] = map(json.loads, (tmp_path / "out" / "preferences.jsonl").read_text().splitlines())
    assert pair["prompt"][-1]["role"] == "user" and "Fix the bug" in pair["prompt"][-1]["content"]
    assert pair["chosen"] == [{"role": "assistant", "content": "1| x = 1"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "1| x = 3"}]
    assert (pair["chosen_id"], pair["rejected_id"]) == (name(0), name(1))


def test_an_issue_text_is_made_of_the_failing_tests(task: SolveTask) -> None:
    output = f"...\nFAILED {FAILS} - AssertionError: 5 is not 6\n"
    text = problem_statement(dataclasses.replace(task, failure_output=output))
    assert f"- `{FAILS}`: AssertionError: 5 is not 6\n" in text and "A test fails" in text
    assert not leaks(text, task)


@pytest.mark.parametrize("said", ["return x*2", "assert double( 2 ) == 4"])
def test_a_text_that_gives_something_away_is_not_kept(task: SolveTask, said: str) -> None:
    told = dataclasses.replace(task, failure_output=f"FAILED {FAILS} - Error: {said}\n")
    text = problem_statement(told)
    assert f"- `{FAILS}`\n" in text and said not in text, "the names alone"
    names = dataclasses.replace(task, fail_to_pass=(f"{FAILS}[{said}]",))
    assert problem_statement(names) == ""
    assert leaks(f"see {said}", task)


def test_an_export_states_licences_and_hashes(tmp_path: Path) -> None:
    (tmp_path / "tasks" / "a").mkdir(parents=True)
    (tmp_path / "tasks" / "a" / "x").write_text("1")
    (tmp_path / "suite.jsonl").write_text("2")
    (tmp_path / "not ours").write_text("3")
    source = {"pypi": {"project": "calc", "version": "1"}}
    for _ in range(2):
        repos = {"calc": {"license": "MIT", "source": source}, "other": {}}
        write_manifest(tmp_path, "harbor", ["suite.jsonl", "tasks"], repos)
    document = json.loads((tmp_path / "export.json").read_text())
    digest = hashlib.sha256(b"2").hexdigest()
    assert set(document["files"]) == {"suite.jsonl", "tasks/a/x"}
    assert document["files"]["suite.jsonl"] == digest
    assert document["repos"]["calc"]["license"] == "MIT"
    assert document["repos"]["other"]["license"] == "unknown"
