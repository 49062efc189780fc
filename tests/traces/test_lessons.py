"""Lessons from traces, and the part of a warm start that makes them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from selfplay.commands import warmstart
from selfplay.commands.trace_lessons import make_trace_lessons
from selfplay.config import WarmstartConfig, load_config
from selfplay.errors import UserError
from selfplay.scripted.compact import ByteTokenizer
from selfplay.warmstart.held_out import held_out_projects, plain
from selfplay.warmstart.lessons import read_lessons
from selfplay.warmstart.trace_lessons import (
    KINDS,
    next_observation,
    output_prediction,
    scratchpad,
    trace_examples,
)

CODE = '''\
def grown(values):
    """>>> grown([1])
    [2]
    """
    for v in values:
        t = v
'''


def frame(event: str, line: int, told: Any, depth: int = 0, function: str = "grown") -> Any:
    key = {"exception": "exception", "return": "value", "yield": "value"}.get(event, "locals")
    return {"event": event, "depth": depth, "path": "m.py", "function": function, "line": line,
            "source": f"source of {line}", key: told}  # fmt: skip


def trace(frames: Sequence[Any], name: str = "t-1", repo: str = "r") -> dict[str, Any]:
    head = frames[0]
    return {"id": name, "repo": repo, "test": "t", "path": head["path"],
            "function": head["function"], "line": head["line"], "frames": list(frames)}  # fmt: skip


NESTED = trace(
    [
        frame("call", 1, {"a": "'x\\n'", "gone": "1"}),
        frame("line", 2, {}),
        frame("call", 8, {"b": "2"}, 1, "inner"),
        frame("line", 9, {}, 1, "inner"),
        frame("exception", 9, "ValueError('no')", 1, "inner"),
        frame("exception", 2, "ValueError('no')"),
        frame("line", 3, {"gone": None, "e": "ValueError('no')"}),
        frame("return", 3, "[]"),
    ]
)
EXPECTED = {
    # The first line changes nothing, so that it is no question; each event that tells something is.
    "> source of 1\n> source of 2": "call inner: b = 2",
    "b = 2\n> source of 8\n> source of 9": "exception ValueError('no')",
    "exception ValueError('no')\n> source of 2\ngone = gone; e = ValueError('no')\n> source of 3":
        "return []",
}  # fmt: skip


def test_what_comes_of_a_line() -> None:
    found = {}
    for seed in range(60):
        told = next_observation(NESTED, random.Random(seed))
        assert told is not None
        function, _, question, answer = told
        found[question] = answer
        inner = "inner" in question.split("\n")[0]
        assert function == f"r/m.py::{'inner' if inner else 'grown'}"
    assert len(found) == len(EXPECTED)
    for end, answer in EXPECTED.items():
        (question,) = [q for q in found if q.endswith(end)]
        assert found[question] == answer
        assert ("a = 'x\\n'" in question) == ("inner of" not in question)


def test_a_generator_that_goes_on_has_variables_that_nobody_knows() -> None:
    row = trace([frame("resume", 3, {}), frame("line", 4, {}), frame("yield", 4, "7")])
    assert next_observation(row, random.Random(0)) is None
    assert (
        next_observation(trace([frame("call", 1, {}), frame("line", 2, {})]), random.Random(0))
        is None
    )


def pad(name: str = "p-1", repo: str = "r", **more: Any) -> dict[str, Any]:
    return {"id": name, "repo": repo, "test": "t", "path": "m.py", "function": "grown", "line": 11,
            "code": CODE, "input": "values = [1]", "output": "[2]",
            "steps": ["L15:", "L16: v = 1", "L15: t = 1", "L15: exception E('x')"],
            **more}  # fmt: skip


def test_a_scratchpad_has_the_numbers_that_are_shown() -> None:
    told = scratchpad(pad(), random.Random(0))
    assert told is not None
    shown = "1| def grown(values):\n2|     for v in values:\n3|         t = v\n4| "
    assert told[2:] == (
        f"{shown}\n\nCall: values = [1]",
        "3| v = 1\n2| t = 1\n2| exception E('x')\n= [2]",
    )
    assert scratchpad(pad(steps=["L99: v = 1"]), random.Random(0)) is None


def asked(name: str, given: str = "[1]", function: str = "grown", repo: str = "r") -> Any:
    return {"id": name, "repo": repo, "path": "m.py", "function": function, "code": CODE,
            "input": given, "output": "[2]"}  # fmt: skip


def test_a_question_is_asked_as_an_evaluation_asks_it() -> None:
    told = output_prediction(asked("q"), random.Random(0))
    assert told[2].endswith("assert grown([1]) == ??") and ">>>" not in told[2]
    assert told[3] == "[2]"


def datasets(folder: Path, **rows: Sequence[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for kind in KINDS:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows.get(kind, ())]
        (folder / f"{kind}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "record.json").write_text('{"command": "selfplay traces of old"}')
    return folder


def many(folder: Path) -> Path:
    """Forty questions on one function and one each on two others, two scratchpads, a trace."""
    questions = [asked(f"q{i}", f"[{i}]") for i in range(40)]
    questions += [asked("other", function="other"), asked("third", function="third")]
    questions.append(asked("again", "[0]"))  # the same question under another name
    return datasets(folder, questions=questions, traces=[NESTED],
                    scratchpad=[pad(), pad("p-2", input="values = []")])  # fmt: skip


def test_kinds_and_functions_take_turns_and_nothing_is_told_twice(tmp_path: Path) -> None:
    told = list(trace_examples(many(tmp_path / "d"), ByteTokenizer(), 0))
    assert [kind for kind, _, _ in told[:5]] == [*KINDS, "questions", "scratchpad"]
    questions = [function for kind, function, _ in told if kind == "questions"]
    assert len(set(questions[:3])) == 3 and len(questions) == 42
    assert len({example.prompt_ids for _, _, example in told}) == len(told) == 45
    assert all(sum(e.loss_mask) == len(e.answer_ids) for _, _, e in told)
    again = list(trace_examples(tmp_path / "d", ByteTokenizer(), 0))
    assert again == told != list(trace_examples(tmp_path / "d", ByteTokenizer(), 1))


def test_what_is_long_is_left_out(tmp_path: Path) -> None:
    long = "'" + "é\\n" * 400 + "'"
    rows = [asked("q", given) for given in (long, "['short']")]
    folder = datasets(tmp_path / "d", questions=rows, scratchpad=[pad(output=long)])
    told = list(trace_examples(folder, ByteTokenizer(), 0))
    assert len(told) == 1 and "short" in ByteTokenizer().user_text(told[0][2].prompt_ids)


def config(tmp_path: Path, *words: str) -> WarmstartConfig:
    return load_config(WarmstartConfig, "warmstart", [f"out={tmp_path / 'out'}", *words])


def test_lessons_are_written_and_told_of(tmp_path: Path) -> None:
    folder, file = many(tmp_path / "d"), tmp_path / "traces.jsonl"
    asked_for = config(tmp_path, "num_bugs=0", "traces=9", f"trace_data={folder}")
    told = make_trace_lessons(asked_for, ByteTokenizer(), file)
    assert told == {"traces": {
        "repos": ["r"],
        "num_lessons": {"traces": 1, "questions": 6, "scratchpad": 2},
        "command": "selfplay traces of old",
    }}  # fmt: skip
    lessons = read_lessons([file])
    assert len(lessons) == 9 and {lesson.role for lesson in lessons} == {"trace"}
    assert {lesson.function for lesson in lessons} >= {"r/m.py::grown", "r/m.py::other"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"questions": [asked("q", repo="boltons-26.2.0")]}, "boltons"),
        ({"questions": [asked("q", repo="parse@" + "a" * 40)]}, "parse"),
        ({"traces": [trace([{**frame("call", 1, {}), "path": "src/humanize/time.py"},
                            frame("return", 1, "2")])]}, "humanize"),
        # A helper of theirs that another repository's test calls.
        ({"traces": [trace([frame("call", 1, {}), {**frame("call", 1, {}, 1),
                            "path": "tabulate/__init__.py"}, frame("return", 1, "2")])]},
         "tabulate"),
    ],
)  # fmt: skip
def test_held_out_projects_are_refused(rows: Any, told: str, tmp_path: Path) -> None:
    folder = datasets(tmp_path / "d", **rows)
    asked_for = config(tmp_path, "traces=1", f"trace_data={folder}")
    with pytest.raises(UserError, match=f"held-out suites stand on {told}"):
        make_trace_lessons(asked_for, ByteTokenizer(), tmp_path / "f")


@pytest.mark.parametrize("words", ["repos.train=[funcy,boltons-git]", "sources=[tabulate]"])
def test_they_are_refused_in_every_other_way(words: str, tmp_path: Path) -> None:
    assert {"boltons", "tabulate", "parse", "jmespath"} <= held_out_projects()
    assert (
        plain("python_slugify-8.0.4") == "slugify" and plain("more-itertools") in "more-itertools"
    )
    more = ["num_bare=3"] if "sources" in words else []
    with pytest.raises(UserError, match="held-out suites stand on"):
        warmstart.run(config(tmp_path, words, *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"questions": ['{"torn']}, "questions.jsonl:1: not a JSON object"),
        ({"questions": [{"id": "q", "repo": "r"}]}, "questions.jsonl:1: no row of this version"),
        # Of a version whose scratchpads did not say where the function begins.
        ({"scratchpad": [{k: v for k, v in pad().items() if k != "line"}]}, "make it anew"),
        ({"traces": [{"id": "t", "repo": "r", "frames": [1]}]}, "traces.jsonl:1"),
        ({}, "gives no lesson"),
    ],
)  # fmt: skip
def test_odd_datasets_are_told_with_a_remedy(rows: Any, told: str, tmp_path: Path) -> None:
    folder = datasets(tmp_path / "d", **rows)
    asked_for = config(tmp_path, "traces=1", f"trace_data={folder}")
    with pytest.raises(UserError) as error:
        make_trace_lessons(asked_for, ByteTokenizer(), tmp_path / "f")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["num_bugs=0"], "nothing to learn from"),
        (["trace_data=d"], "needs traces=N"),
        (["traces=-1"], "traces=-1"),
    ],
)
def test_settings_that_do_not_fit(words: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        config(tmp_path, *words)


@pytest.mark.slow
def test_without_datasets_the_tests_are_recorded_once(tmp_path: Path) -> None:
    words = ["num_bugs=0", "traces=12", "repos.train=[sample-ledger]", "sandbox=bubblewrap"]
    asked_for, file = config(tmp_path, *words), tmp_path / "out" / "traces.jsonl"
    file.parent.mkdir()
    told = make_trace_lessons(asked_for, ByteTokenizer(), file)["traces"]
    assert told["repos"] == ["sample-ledger"] and sum(told["num_lessons"].values()) == 12
    record = tmp_path / "out" / "traces" / "repos" / "sample-ledger" / "record.json"
    before, lessons = record.stat().st_mtime_ns, file.read_bytes()
    make_trace_lessons(asked_for, ByteTokenizer(), file)
    assert record.stat().st_mtime_ns == before and file.read_bytes() == lessons


@pytest.mark.model
@pytest.mark.slow
def test_a_warm_start_on_traces_alone(tmp_path: Path) -> None:
    words = ["num_bugs=0", "traces=6", f"trace_data={many(tmp_path / 'd')}", "rank=2"]
    words += ["max_minutes=0", "repos.train=[sample-ledger]", "json=true"]
    assert warmstart.run(config(tmp_path, *words)) == 0
    out = tmp_path / "out"
    record = json.loads((out / "record.json").read_text())
    assert record["repos"] == [] and record["traces"]["repos"] == ["r"]
    assert sum(record["num_examples"].values()) == record["num_examples"]["trace"] <= 6
    assert (out / "adapter").is_dir() and not (out / "examples.jsonl").exists()
    written = (out / "traces.jsonl").stat().st_mtime_ns
    assert warmstart.run(config(tmp_path, *words)) == 0
    assert (out / "traces.jsonl").stat().st_mtime_ns == written
