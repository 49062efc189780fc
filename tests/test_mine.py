"""`selfplay mine` on a real git history: what it keeps, why it drops the rest, how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.bug_sources.commit_trees import split_name
from selfplay.bug_sources.mining import problem_statement
from selfplay.commands import mine
from selfplay.config import MineConfig, load_config
from selfplay.corpus.suite import read_suite
from selfplay.errors import UserError

Files = dict[str, str | None]
TESTS = "import shop\n\n\ndef test_total():\n    assert shop.total([1, 2]) == 3\n"
MORE = TESTS + "\n\ndef test_empty():\n    assert shop.mean([]) == 0\n"
SHOP = "def total(values):\n    return sum(values)\n\n\ndef mean(values):\n"
BROKEN = SHOP + "    return sum(values) / len(values)\n"
MENDED = SHOP + "    return sum(values) / len(values) if values else 0\n"
COMMITS: list[tuple[str, Files]] = [
    ("Begin", {"shop.py": BROKEN, "tests/test_shop.py": TESTS, "CHANGES.md": "# Changes\n"}),
    ("Say more", {"README.md": "A shop.\n"}),
    ("A comment", {"shop.py": "# A shop.\n" + BROKEN}),
    (
        "Fix the mean of nothing\n\nIt divided by zero.\n\nSigned-off-by: A B <a@b>\n",
        {
            "shop.py": "# A shop.\n" + MENDED,
            "tests/test_shop.py": MORE,
            "CHANGES.md": "# Changes\n\nThe mean of nothing is 0 now.\n",
        },
    ),
    (
        "Rename without effect",
        {
            "shop.py": "# The shop.\n" + MENDED,
            "tests/test_shop.py": MORE + "\n\ndef test_one():\n    assert shop.mean([1]) == 1\n",
        },
    ),
    (
        "Two files, one of them idle",
        {
            "shop.py": "# The shop.\n" + MENDED + "\n\ndef tax(x):\n    return x\n",
            "other.py": "VALUE = 1\n",
            "tests/test_shop.py": MORE + "\n\ndef test_tax():\n    assert shop.tax(1) == 1\n",
        },
    ),
    ("A test that fails", {"shop.py": MENDED, "tests/test_bad.py": "def test():\n    assert 0\n"}),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mined") / "shop"
    folder.mkdir()
    call(["git", "init", "-q", "-b", "main"], folder)
    for message, files in COMMITS:
        for name, text in files.items():
            assert text is not None
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        call(["git", "add", "-A"], folder)
        call(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message], folder)
    return folder


def call(argv: list[str], folder: Path | None = None) -> str:
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True).stdout


def selfplay(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "selfplay", *words, "sandbox=bubblewrap", "json=true"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300)


def outcomes(out: Path) -> dict[str, str]:
    """{subject: outcome} of the log."""
    lines = [json.loads(x) for x in out.with_name(f"{out.name}.log").read_text().splitlines()]
    return {line["subject"]: line["outcome"] for line in lines}


@pytest.fixture(scope="module")
def mined(work: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("suite") / "shop.jsonl"
    done = selfplay("mine", f"repo={work}", f"out={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    return out, json.loads(done.stdout)


def test_every_commit_has_an_outcome(mined: tuple[Path, dict[str, Any]]) -> None:
    out, document = mined
    assert outcomes(out) == {
        "Say more": "no_source",
        "A comment": "no_tests",
        "Fix the mean of nothing": "kept",
        "Rename without effect": "no_code_change",
        "Two files, one of them idle": "kept",
        "A test that fails": "nothing_passes_after",
    }
    assert document["num_tasks"] == 2
    assert document["outcomes"]["kept"] == 2


def test_a_kept_bug_is_the_state_before_its_commit(
    mined: tuple[Path, dict[str, Any]], work: Path
) -> None:
    tasks = {t.solve_task.problem_statement.split("\n")[0]: t for t in read_suite(mined[0])}
    fix = tasks["Fix the mean of nothing"]
    task = fix.solve_task
    assert task.problem_statement == "Fix the mean of nothing\n\nIt divided by zero."
    assert task.fail_to_pass == ("tests/test_shop.py::test_empty",)
    assert task.pass_to_pass == ("tests/test_shop.py::test_total",)
    assert fix.base_commit == call(["git", "rev-parse", "HEAD~4"], work).strip()
    assert "CHANGES" not in task.artifact.bug_patch  # documents stay as they were
    idle = tasks["Two files, one of them idle"].solve_task
    assert idle.artifact.meta["reverted"] == ["other.py"]
    assert idle.artifact.meta["left_repaired"] == []


def test_the_change_log_gives_nothing_away(mined: tuple[Path, dict[str, Any]], work: Path) -> None:
    from selfplay.bug_sources.commit_trees import Place, place_environment
    from selfplay.repo.prepare import prepare
    from selfplay.repo.spec import find_repos_dir, load_spec
    from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox

    sandbox = BubblewrapSandbox()
    prepared = prepare(load_spec(str(work), find_repos_dir()), sandbox)
    sha = call(["git", "rev-parse", "HEAD~3"], work).strip()
    tree = place_environment(prepared, Place(sha=sha)).tree
    sandbox.close()
    assert (tree / "CHANGES.md").read_text() == "# Changes\n"
    assert "if values else 0" in (tree / "shop.py").read_text()


def test_the_suite_is_verified_and_evaluated(mined: tuple[Path, dict[str, Any]]) -> None:
    out, _ = mined
    verified = selfplay("corpus", "verify", f"out={out}")
    assert verified.returncode == 0, verified.stdout + verified.stderr[-2000:]
    done = selfplay("evaluate", f"suite={out}", "policy=scripted", "num_samples=2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["num_tasks"] == 2


def test_killed_it_goes_on_and_counts_nothing_twice(
    mined: tuple[Path, dict[str, Any]], work: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again.jsonl"
    argv = [sys.executable, "-m", "selfplay", "mine", f"repo={work}", f"out={out}"]
    for wait_s in (4.0, 6.0):
        process = subprocess.Popen([*argv, "sandbox=bubblewrap"], stderr=subprocess.DEVNULL)
        time.sleep(wait_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with out.open("ab") as file:
        file.write(b'{"torn')
    assert selfplay("mine", f"repo={work}", f"out={out}").returncode == 0
    assert outcomes(out) == outcomes(mined[0])
    both = [
        [replace(t.solve_task, failure_output="") for t in read_suite(f)] for f in (out, mined[0])
    ]
    assert both[0] == both[1]


def test_nothing_to_mine_is_said(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "test_a.py").write_text("def test(): pass\n")
    done = selfplay("mine", f"repo={tmp_path / 'plain'}", f"out={tmp_path / 'o.jsonl'}")
    assert done.returncode == 2
    assert "no git history" in done.stderr


def test_names_of_places() -> None:
    assert split_name("boltons@0123456789ab") == ("boltons", "0123456789ab")
    assert split_name("boltons") == ("boltons", None)
    assert split_name("a@b@0123456") == ("a@b", "0123456")


def test_trailers_are_no_part_of_a_problem() -> None:
    message = "Fix it\n\nReally.\n\nCo-authored-by: X\nSigned-off-by: Y\n"
    assert problem_statement(message) == "Fix it\n\nReally."


def test_another_call_in_the_same_process_finds_the_file_free(tmp_path: Path) -> None:
    config = load_config(MineConfig, "mine", [f"repo={tmp_path}/absent", f"out={tmp_path}/out"])
    for _ in range(2):
        with pytest.raises(UserError, match="absent"):
            mine.run(config)
