"""Answers to questions about outputs: read, never run, and compared as exact values."""

from __future__ import annotations

import ast
import random
import warnings
from typing import Any

import pytest

from selfplay.bugs.test_runs.inside.values import literal
from selfplay.traces.answers import MAX_TEXT, answer_in, is_literal, same_value
from selfplay.traces.predicting import judged
from selfplay.traces.suites import OutputQuestion
from selfplay.types import Completion

SAME = [
    ("[1, 2]", "[1,2]"),
    ("'it''s'", '"its"'),
    ('"a\\nb"', "'a\\nb'"),
    ("'''a\nb'''", "'a\\nb'"),
    ("{'b': 1, 'a': 2}", "{'a': 2, 'b': 1}"),
    ("{3, 1, 2}", "{1, 2, 3}"),
    ("set()", " set() "),
    ("(1,)", "(1, )"),
    ("'\\u00e9\\U0001f600'", "'é😀'"),
    ("-1", "- 1"),
    ("1e3", "1000.0"),
    ("b'\\x00\\xff'", 'b"\\0\\xff"'),
    ("nan", "nan"),
    ("Point(x=1)", " Point(x=1)"),
    ("[nan]", "[nan]"),
    ("1e999", "2e999"),
]
OTHER = [
    ("1", "True"),
    ("1", "1.0"),
    ("[1]", "(1,)"),
    ("(1)", "(1,)"),
    ("0.0", "-0.0"),
    ("'1'", "1"),
    ("'a'", "b'a'"),
    ("{1: [True]}", "{1: [1]}"),
    ("{True}", "{1}"),
    ("{}", "set()"),
    ("['] ) }']", "['} ) ]']"),  # a comparison of words as a set took this
    ("'hello world'", "'world hello'"),
    ("[2, 1]", "[1, 2]"),
    ("nan", "None"),
    ("'a '", "'a'"),
    ("", "''"),
]


@pytest.mark.parametrize(("said", "true"), SAME)
def test_the_same_value(said: str, true: str) -> None:
    assert same_value(said, true) and same_value(true, said)


@pytest.mark.parametrize(("said", "true"), OTHER)
def test_another_value(said: str, true: str) -> None:
    assert not same_value(said, true) and not same_value(true, said)


FORGED = [
    "type('Any', (), {'__eq__': lambda self, other: True})()",
    "[type('Any', (), {'__eq__': lambda self, other: True})()]",
    "f(3)",
    "assert f(3) == f(3)",
    "9 or True",
    "9 if True else 0",
    "== 9 or True",
    "9, 'else it fails'; raise SystemExit",
    "__import__('os').system('touch /tmp/selfplay-was-here')",
    "4 + 5",
    "open('/etc/passwd').read()",
]


@pytest.mark.parametrize("text", FORGED)
def test_nothing_that_must_be_run_is_a_value(text: str) -> None:
    assert not same_value(answer_in(text, "f"), "9")


TOLD = {
    "9": "9",
    " 9\n": "9",
    "assert f(3) == 9": "9",
    "assert f(3) == 9, 'a message'": "9",
    "f('==') == 'a == b'": "'a == b'",
    "[ANSWER]9[/ANSWER]": "9",
    "I think of [ANSWER]8[/ANSWER], no:\n[ANSWER] 9 [/ANSWER]": "9",
    "[ANSWER]assert f(3) == 9[/ANSWER]": "9",
    "```python\n9\n```": "9",
    "The loop runs.\n```\nassert f(3) == 9\n```\nThat is all.": "9",
    "<think>8? no</think>9": "9",
    "To assert that, f adds.\nassert f(3) == 9\nas asked.": "9",
    "9\nassert g(4) == 8\n": "9",
    "{\n  'a': [\n    1,\n  ],\n}": "{\n  'a': [\n    1,\n  ],\n}",
    "assert 9 == f(3)": "9",
    "`9`": "9",
    "Answer: 9": "9",
    "**Answer:** `'a: b'`": "'a: b'",
    "**Output**: 9": "9",
    "?? = [9]": "[9]",
    "<answer>9</answer>": "9",
    "f adds, and so it is:\n\n    9\n": "9",
    "8\nor so, or 9:\n9": "8",
    "value = 9": "value = 9",
    "'answer: 9'": "'answer: 9'",
    "nan": "nan",
    "I do not know.": "I do not know.",
    "": "",
}


def test_the_last_line_of_what_was_cut_off_is_no_answer() -> None:
    said = "f begins with\n8"
    assert answer_in(said, "f") == "8"
    assert answer_in(said, "f", is_whole=False) == said
    assert answer_in("9\nbecause\n8", "f", is_whole=False) == "9"


@pytest.mark.parametrize("text", TOLD)
def test_where_the_value_is_read(text: str) -> None:
    assert answer_in(text, "f") == TOLD[text]


ODD = [
    "(" * 5000,
    "[" * 90 + "]" * 90,
    "-" * 5000 + "1",
    "9" * 5000,
    "'" + "a" * 2 * MAX_TEXT + "'",
    "'\\ud800'",
    "'a\x00b'",
    "{[]: 1}",
    "{{}}",
    "'\\d'",
    "1 is 1",
    "\ud800",
    "…",
    "0x",
    "[1, 2, … (+9)]",
]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_text_ends_nothing_and_equals_itself(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same_value(answer_in(text, "f"), text)
        assert not same_value(answer_in(text, "f"), "9")


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.choice("sbifnt" + ("ltde" if depth < 3 else ""))
    if kind == "s":
        return "".join(rng.choices("a'\"\\\n\t\r é😀\x00{}=#,\u2028", k=rng.randrange(8)))
    if kind in "bifnt":
        return {"b": rng.randbytes(3), "i": rng.randrange(-9, 9), "f": rng.gauss(0, 1e3),
                "n": None, "t": rng.random() < 0.5}[kind]  # fmt: skip
    items = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == "l":
        return items
    plain = [item for item in items if isinstance(item, str | bytes | int | float)]
    return {"t": tuple(items), "d": dict(zip(plain, items, strict=False)), "e": set(plain)}[kind]


@pytest.mark.parametrize("seed", range(300))
def test_what_the_recorder_writes_is_read_as_the_same_value(seed: int) -> None:
    one, two = (value(random.Random(f"{seed} {i}")) for i in (0, 1))
    text, other = literal(one), literal(two)
    assert text is not None and other is not None and is_literal(text)
    assert same_value(repr(one), text)
    assert answer_in(f"assert f('==', g(2)) == {text}", "f") == text
    assert same_value(text, other) == (repr(one) == repr(two) or _exact(one, two))


def _exact(one: Any, two: Any) -> bool:
    """Equal, of the same types: of sets and dicts, whose order is no matter."""
    return bool(one == two) and sorted(repr(one)) == sorted(repr(two))


def completion(text: str, cut: bool = False, problem: str = "") -> Completion:
    return Completion(
        token_ids=(), logprobs=(), text=text, finish_reason="length" if cut else "stop",
        policy_version=0, problem=problem,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion("12"), "resolved"),
        (completion("13"), "wrong_value"),
        (completion("twelve"), "no_literal"),
        (completion("12", cut=True), "cut_off"),  # of 123, perhaps
        (completion("12\nassert f(", cut=True), "resolved"),
        (completion("", problem="content_filter"), "content_filter"),
    ],
)
def test_verdicts(answer: Completion, reason: str) -> None:
    question = OutputQuestion(id="q", code="def f(x):\n    return x", input="12", output="12")
    assert judged(question, 0, (), answer).reason == reason


def test_values_are_those_of_python() -> None:
    for one, two in SAME:
        if is_literal(one):
            assert ast.literal_eval(one.strip()) == ast.literal_eval(two.strip())
