"""`selfplay evaluate` on questions about outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.cli import main
from selfplay.traces.asking import output_question, tells_its_value

IDENTITY = 'def same(x):\n    """>>> same(3)\n    3\n    """\n    return x'


def question(name: str, given: str, output: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "repo": "r", "path": "m.py", "function": "same", "code": IDENTITY,
            "input": given, "output": output, **more}  # fmt: skip


QUESTIONS = [
    question("q-first", "'a\\n\"b'", "'a\\n\"b'"),
    question("q-true", "[1], 2", "True"),
    question("q-never", "0", "12345"),
    question("q-other", "{2, 1}", "{1, 2}", function="sorted_", repo="s"),
]


def suite(folder: Path, rows: list[Any] | None = None) -> Path:
    file = folder / "questions.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows or QUESTIONS]
    file.write_text("\n".join(lines) + "\n")
    return file


def evaluate(*words: str) -> int:
    return main(["evaluate", "policy=scripted", "json=true", *words])


def test_what_was_right_and_every_attempt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.json"
    assert evaluate(f"suite={suite(tmp_path)}", f"out={out}", "num_samples=3") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text())
    counts = {row["instance_id"]: (row["resolved"], row["n"]) for row in document["tasks"]}
    # The arguments are tried first, then True, False, ...
    assert counts == {"q-first": (1, 3), "q-true": (1, 3), "q-never": (0, 3), "q-other": (1, 3)}
    assert document["pass@1"]["mean"] == pytest.approx(3 / 12)
    assert document["pass@3"]["mean"] == pytest.approx(3 / 4)
    assert document["pass@1"]["low"] <= 0.25 <= document["pass@1"]["high"]
    assert document["reasons"] == {"wrong_value": 9, "resolved": 3}
    assert document["tasks"][0]["function"] == "r/m.py::same"
    lines = [json.loads(line) for line in (tmp_path / "e.attempts.jsonl").open()]
    assert len(lines) == 12 and len({(row["bug_id"], row["sample"]) for row in lines}) == 12
    first = lines[0]
    assert (first["gold"], first["said"], first["resolved"]) == ("'a\\n\"b'", "'a\\n\"b'", True)
    assert first["prompt"].endswith("assert same('a\\n\"b') == ??")
    assert main(["episode", "show", f"run={tmp_path / 'e.attempts.jsonl'}", "id=q-true"]) == 0
    assert "assert same([1], 2) == ??" in capsys.readouterr().out


def test_it_goes_on_from_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = suite(tmp_path), tmp_path / "e.json"
    words = [f"suite={file}", f"out={out}"]
    assert evaluate(*words, "num_samples=1", "num_tasks=2") == 0
    attempts = tmp_path / "e.attempts.jsonl"
    before = attempts.read_text()
    assert evaluate(*words, "num_samples=2") == 0
    assert attempts.read_text().startswith(before)
    assert len(attempts.read_text().splitlines()) == 8
    capsys.readouterr()
    # What is asked anew: a question that has changed.
    suite(tmp_path, [question("q-first", "7", "7"), *QUESTIONS[1:]])
    assert evaluate(*words, "num_samples=2") == 0
    assert len(attempts.read_text().splitlines()) == 10
    capsys.readouterr()
    assert evaluate(*words, "seed=1") == 2
    assert "another policy, scaffold or seed" in capsys.readouterr().err


def test_two_evaluations_are_compared_by_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [question(f"q{i}", str(i), str(i)) for i in range(20)]
    rows.append(question("z", "1", "'never'", function="other"))
    file = suite(tmp_path, rows)
    other = tmp_path / "b"
    other.mkdir()
    suite(other, [dict(row, output="True") for row in rows])
    for name, words in (("a", f"suite={file}"), ("b", f"suite={other}")):  # a folder, too
        assert evaluate(words, f"out={tmp_path / name}.json", "num_samples=1") == 0
    capsys.readouterr()
    assert main(["compare", f"{tmp_path}/a.json", f"{tmp_path}/b.json", "json=true"]) == 0
    document = json.loads(capsys.readouterr().out)
    change = document["pass@1"]["difference"]
    assert document["num_tasks"] == 21 and change["mean"] == pytest.approx(-20 / 21)
    # Two functions, one of which changed: the interval knows how little that is.
    assert change["low"] == -1.0 and change["high"] == 0.0


MALFORMED = [
    ('{"torn', ":2: not a JSON object"),
    ("[]", ":2: not a JSON object"),
    ({"id": "x", "code": "def f(): pass", "input": ""}, ":2: output: is missing"),
    ({**question("x", "1", "1"), "output": 7}, ":2: output: expected str, got int"),
    (question("x", "1", " "), ":2: output: is empty"),
    (question("q-first", "1", "1"), ":2: id: 'q-first' is line 1's"),
    ("[" * 100_000, ":2: not a JSON object"),
]


@pytest.mark.parametrize(("row", "told"), MALFORMED, ids=[told for _, told in MALFORMED])
def test_a_malformed_line_is_named_with_its_remedy(
    row: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "is line 1's" not in told:  # what the file holds is told from any of its first lines
        assert evaluate(f"suite={suite(tmp_path, [row, *QUESTIONS])}") == 2
        assert told.replace(":2:", ":1:") in capsys.readouterr().err
    file = suite(tmp_path, [QUESTIONS[0], row, *QUESTIONS[1:]])
    assert evaluate(f"suite={file}") == 2
    error = capsys.readouterr().err
    assert f"{file}{told}" in error and "mend or remove that line" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(("key", "held"), [("frames", "frames of traces"), ("steps", "scratchpad")])
def test_the_other_datasets_are_told_apart(
    key: str, held: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = suite(tmp_path, [question("x", "1", "1", **{key: []})])
    assert evaluate(f"suite={file}") == 2
    error = capsys.readouterr().err
    assert held in error and "questions.jsonl" in error


def test_lines_of_cruxeval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "sample_0", "code": "def f(s):\n    return s", "input": "'x'", "output": "'x'"}]
    assert evaluate(f"suite={suite(tmp_path, rows)}", "num_samples=1") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pass@1"]["mean"] == 1.0 and document["num_tasks"] == 1


def test_neither_inner_docstrings_nor_comments_answer() -> None:
    code = """\
def joined(parts, end):
    def each(part):
        '''each('a') gives 'a-'''
        return part + "-"
    # joined(["a"], 1) is 'a-1'
    return "".join(map(each, parts)) + str(end)  # two '-' at least: 'a-b-end'
"""
    shown = output_question(code, "joined", "['a'], 1")
    assert "gives" not in shown and "return part" in shown
    assert tells_its_value(code, "joined", "'a-1'") and tells_its_value(code, "joined", "'a-b-end'")
    assert not tells_its_value(code, "joined", "'-'")
    assert not tells_its_value(code, "joined", "'a-2'")
    assert not tells_its_value("def f(:\n  (", "f", "1")


def test_the_examples_of_a_docstring_do_not_answer() -> None:
    asked = output_question(IDENTITY, "same", "3")
    assert asked == "def same(x):\n    return x\n\nassert same(3) == ??"
    for code in (
        'def f(x): """doc"""; return x',
        'def f(x):\n    """all that there is"""',
        "def f(x):\n  return x +",
        'class A:\n    """doc"""\n    x = 1',
        "x = 1",
        "",
        'def f(x):\r    """doc"""\r    return x',
    ):
        shown = output_question(code, "f", "1")
        assert "return" in shown or "return" not in code
