"""`selfplay traces` on a small project of its own: what is kept, what is left out and why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LATIN = """\
# coding: latin-1
def umlauts(number):
    return "ü" * number
"""
OPS = """\
def scaled(values, factor=2):
    found = []
    for value in values:
        found.append(value * factor)
    return found


def halves(text):
    middle = len(text) // 2
    return text[:middle], text[middle:]


def hashed(text):
    return hash(text) % 1000003


MODE = ["a"]


def set_mode(text):
    MODE[0] = text
    return text


def in_mode(number):
    return f"{MODE[0]}{number}"
"""
TESTS = """\
import random
import sys
import threading
import time

from latin import umlauts
from ops import halves, hashed, in_mode, scaled, set_mode


def test_scaled():
    assert scaled([1, 2]) == [2, 4]
    assert scaled([1, 2]) == [2, 4]
    assert scaled((), factor=3) == []


def test_halves():
    assert halves("abcd") == ("ab", "cd")


def test_umlauts():
    assert umlauts(2) == "\\xfc\\xfc"


def test_that_sets_a_mode():
    assert set_mode("b") == "b"
    assert in_mode(3) == "b3"


def test_that_looks_for_a_tracer():
    tools = [sys.monitoring.get_tool(n) for n in range(6)] if sys.version_info >= (3, 12) else []
    assert "selfplay" not in f"{sys.gettrace()} {tools}"
    assert scaled([7]) == [14]


def test_that_depends_on_hashes():
    assert hashed("a text") >= 0


def test_that_starts_a_thread():
    thread = threading.Thread(target=halves, args=("abc",))
    thread.start()
    thread.join()
    assert scaled([3]) == [6]


def test_that_traces_threads():
    threading.settrace(lambda *_: None)
    assert scaled([4]) == [8]


def test_that_draws():
    assert scaled([random.choice([5, 5])]) == [10]


def test_that_draws_by_a_seed():
    random.seed(3)
    assert scaled([random.choice([6, 6])]) == [12]


def test_that_stops_the_clock(monkeypatch):
    def refusing(*_):
        raise AssertionError("called")

    monkeypatch.setattr(time, "perf_counter", refusing)
    monkeypatch.setattr(random, "getstate", refusing)
    assert scaled([9]) == [18]


def test_that_calls_nothing():
    assert True
"""


TOLD = (
    "scaled",
    "halves",
    "that_calls_nothing",
    "that_draws_by_a_seed",
    "that_stops_the_clock",
    "that_sets_a_mode",
    "umlauts",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces") / "smallops"
    (folder / "tests").mkdir(parents=True)
    (folder / "ops.py").write_text(OPS)
    (folder / "latin.py").write_text(LATIN, encoding="latin-1")
    (folder / "tests" / "test_ops.py").write_text(TESTS)
    (folder / "tests" / "conftest.py").write_text("")
    return folder


def traces(*words: str) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "selfplay", "traces", "sandbox=bubblewrap", "json=true", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_kept_and_what_is_left_out(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, document = traces(f"repo={work}", f"out={out}", "check=true")
    assert code == 0 and document == json.loads((out / "record.json").read_text())
    row = document["repos"]["smallops"]
    assert row["left_out"] == {
        "its verdict changes under tracing": 1,
        "its recordings differ": 1,
        "it starts threads": 1,
        "it traces by itself": 1,
        "it draws at random": 1,
        "it calls nothing of the repository": 1,
    }
    assert (row["num_tests"], row["num_tests_kept"]) == (12, 6)
    assert document["replayed_equal"] < document["checked_equal"] == 1.0
    told = lines(out / "traces.jsonl")
    # Equal calls are kept once.
    assert sorted(t["function"] for t in told) == [
        "halves",
        "in_mode",
        *["scaled"] * 4,
        "set_mode",
        "umlauts",
    ]
    halves = next(t for t in told if t["function"] == "halves")
    assert halves["frames"] == [
        {"event": "call", "depth": 0, "path": "ops.py", "function": "halves", "line": 8,
         "source": "def halves(text):", "locals": {"text": "'abcd'"}},
        {"event": "line", "depth": 0, "path": "ops.py", "function": "halves", "line": 9,
         "source": "middle = len(text) // 2", "locals": {}},
        {"event": "line", "depth": 0, "path": "ops.py", "function": "halves", "line": 10,
         "source": "return text[:middle], text[middle:]", "locals": {"middle": "2"}},
        {"event": "return", "depth": 0, "path": "ops.py", "function": "halves", "line": 10,
         "source": "return text[:middle], text[middle:]", "value": "('ab', 'cd')"},
    ]  # fmt: skip
    pad = next(p for p in lines(out / "scratchpad.jsonl") if p["function"] == "halves")
    assert (pad["input"], pad["output"]) == ("text = 'abcd'", "('ab', 'cd')")
    assert pad["steps"] == ["L9:", "L10: middle = 2"] and pad["code"].startswith("def halves")
    assert pad["line"] == 8


def test_the_questions_are_true_in_both_directions(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, document = traces(f"repo={work}", f"out={out}")
    assert code == 0
    asked = lines(out / "questions.jsonl")
    assert {q["output_prediction"] for q in asked} == {
        "assert scaled([1, 2], 2) == ??",
        "assert scaled((), 3) == ??",
        "assert halves('abcd') == ??",
        "assert scaled([6], 2) == ??",
        "assert scaled([9], 2) == ??",
        "assert set_mode('b') == ??",
        "assert umlauts(2) == ??",
    }
    space: dict[str, Any] = {}
    exec(OPS, space)  # our own text
    for question in asked:
        exec(question["code"], space)  # in the encoding that its file states
        exec(question["output_prediction"].replace("??", question["output"]), space)
        exec(question["input_prediction"].replace("??", question["input"]), space)
    # `in_mode(3)` gives "b3" after another call alone.
    assert document["repos"]["smallops"]["num_questions_not_true_again"] == 1


def test_a_repository_that_fails_costs_itself_alone_and_the_others_are_not_done_again(
    work: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"  # the other one's tests are Perl's
    words = [f"repo=[sample-timetable,{work}]", f"out={out}", "num_tests=4", "seed=3"]
    code, document = traces(*words)
    assert code == 3 and list(document["failed"]) == ["sample-timetable"]
    assert document["repos"]["smallops"]["num_tests"] == 4
    record = out / "repos" / "smallops" / "record.json"
    before, content = record.stat().st_mtime_ns, (out / "traces.jsonl").read_bytes()
    assert traces(*words)[0] == 3 and (out / "traces.jsonl").read_bytes() == content
    assert record.stat().st_mtime_ns == before
    traces(*words, "include_tests=true")
    assert record.stat().st_mtime_ns != before
    told = {t["function"] for t in lines(out / "traces.jsonl")}
    assert told <= {f"test_{name}" for name in TOLD} and told
