"""Operators: what they do on small functions, and what they never do on real ones."""

from __future__ import annotations

import ast
import importlib
import json
import textwrap
from pathlib import Path

import pytest

from selfplay.bug_sources.procedural import KINDS, OPERATORS, REMOVAL_KINDS, Mutation, propose
from selfplay.bug_sources.procedural.statements import MAX_LINES
from selfplay.repo.languages.functions import FunctionInfo, list_functions
from selfplay.repo.languages.python_source import parse, same_code, split_lines


def mutate(text: str, operator: str) -> list[str]:
    """What one operator makes of a file that holds one function."""
    source = textwrap.dedent(text).lstrip("\n")
    (function, *_) = list_functions(source, "a.py")
    return [m.source for m in propose(source, function) if m.operator == operator]


CASES = {
    "swap_comparison": ("if a < b: return 1", ["if a <= b: return 1", "if a > b: return 1"]),
    "negate_condition": ("if a and b: return 1", ["if not (a and b): return 1"]),
    "swap_and_or": ("return a and b", ["return a or b"]),
    "swap_branches": ("return a if b else 1", ["return 1 if b else a"]),
    "off_by_one": ("return a + 3", ["return a + 4", "return a + 2"]),
    "flip_constant": ("return True", ["return False"]),
    "swap_arithmetic": ("return a // b", ["return a / b", "return a % b"]),
    "drop_sign": ("return -a", ["return a"]),
    "swap_augmented": ("a += b", ["a -= b", "a = b"]),
    "wrong_name": ("return a", ["return b"]),
    "wrong_attribute": ("self.x = self.y", ["self.x = self.x"]),
    "wrong_call": ("return a.lstrip()", ["return a.strip()", "return a.rstrip()"]),
    "swap_arguments": ("return g(a, b)", ["return g(b, a)"]),
    "unwrap_call": ("return sorted(a)", ["return a"]),
    "swap_elements": ("return a, b", ["return b, a"]),
    "change_index": ("return a[1:b]", ["return a[:b]", "return a[1:]"]),
    "change_string": ("return 'ab'", ["return 'a'", "return 'AB'"]),
    "wrong_return": ("return a + b", ["return None"]),
    "wrong_exception": ("raise KeyError(a)", ["raise IndexError(a)"]),
    "drop_statement": ("a.sort()", ["pass"]),
    "drop_operand": ("return a or b", ["return a", "return b"]),
    "drop_argument": ("return g(a, key=b)", ["return g(a)"]),
    "change_loop": ("return enumerate(a)", ["return enumerate(a, 1)"]),
}


@pytest.mark.parametrize("operator", CASES)
def test_operator_on_one_line(operator: str) -> None:
    line, expected = CASES[operator]
    head = "def f(self, a, b):\n    "
    assert mutate(head + line + "\n", operator) == [head + new + "\n" for new in expected]


def test_default_is_changed_in_the_header_only() -> None:
    assert mutate("def f(a=1, *, b=None):\n    return a\n", "change_default") == [
        "def f(a=2, *, b=None):\n    return a\n",
        "def f(a=1, *, b=0):\n    return a\n",
    ]


BLOCKS = """
def f(a):
    total = 0
    if a is None:
        return 0
    for x in a:
        if x < 0:
            continue
        elif x == 1:
            total += 1
        else:
            total += x
    return total
"""


def test_guard_and_else_are_removed_with_their_lines() -> None:
    first, second = mutate(BLOCKS, "remove_guard")[0], mutate(BLOCKS, "remove_else")[0]
    assert "a is None" not in first and first.count("\n") == BLOCKS.count("\n") - 3
    assert "else:" not in second and "elif x == 1" in second


def test_return_slips_into_the_loop() -> None:
    (changed,) = mutate(BLOCKS, "indent_return")
    assert changed.endswith("            total += x\n        return total\n")


def test_handlers() -> None:
    source = """
    def f(a):
        try:
            return a[0]
        except KeyError:
            return 1
        except (IndexError, TypeError):
            return 2
    """
    assert all("raise" in new for new in mutate(source, "reraise"))
    assert len(mutate(source, "remove_handler")) == 2
    assert any("except IndexError:" in new for new in mutate(source, "wrong_exception"))


def test_columns_count_utf8_bytes() -> None:
    (changed,) = mutate('def f(a, b):\n    return "äöü€" + g("é", a < b), 1\n', "swap_elements")
    assert changed == 'def f(a, b):\n    return 1, "äöü€" + g("é", a < b)\n'


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_and_form_feeds_survive(ending: str) -> None:
    text = "x = 1\n\x0c\ndef f(a):\n    a.sort()\n    a.pop()\n    return a < 1".replace(
        "\n", ending
    )
    function = FunctionInfo(path="a.py", qualname="f", start_line=3, end_line=6)
    mutations = propose(text, function)
    assert mutations
    for mutation in mutations:
        assert mutation.source.startswith(f"x = 1{ending}\x0c{ending}def f")
        assert mutation.source.count("\r") in (0, mutation.source.count("\n"))


@pytest.mark.parametrize(
    "text", ["", "def f(:\n", "x = 1\n", "def f(a):\n    return '\ud800'\n", "class A:\n    pass\n"]
)
def test_what_cannot_be_parsed_gives_nothing(text: str) -> None:
    assert propose(text, FunctionInfo(path="a.py", qualname="f", start_line=1, end_line=9)) == []


def test_docstrings_and_annotations_stay() -> None:
    source = 'def f(a: "x" = 1) -> "y":\n    "doc 1"\n    return a\n'
    for mutation in propose(source, list_functions(source, "a.py")[0]):
        assert '"doc 1"' in mutation.source and '"y"' in mutation.source


def test_kinds_tell_removal_apart() -> None:
    assert len({op.name for op in OPERATORS}) == len(OPERATORS) >= 12
    assert not set(KINDS) & set(REMOVAL_KINDS)


@pytest.mark.parametrize("module", [json.decoder, textwrap, json.encoder])
def test_real_code(module: object) -> None:
    """Parses, differs in code, touches at most MAX_LINES lines, all inside the function."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
    lines = split_lines(source)
    for function in list_functions(source, "a.py"):
        mutations = propose(source, function)
        assert len({m.source for m in mutations}) == len(mutations)
        for mutation in mutations[::7]:
            check_locality(lines, function.start_line - 1, function.end_line, mutation)
            assert parse(mutation.source) is not None
            assert not same_code(source, mutation.source)


def check_locality(lines: list[str], first: int, last: int, mutation: Mutation) -> None:
    new = split_lines(mutation.source)
    assert new[:first] == lines[:first] and first < mutation.line <= last
    assert new[: mutation.line - 1] == lines[: mutation.line - 1]
    tail = len(lines) - last
    assert tail == 0 or new[-tail:] == lines[-tail:]
    assert abs(len(new) - len(lines)) <= MAX_LINES


def test_proposals_are_deterministic() -> None:
    source = Path(textwrap.__file__).read_text(encoding="utf-8")
    function = max(list_functions(source, "a.py"), key=lambda f: f.end_line - f.start_line)
    assert propose(source, function) == propose(source, function)
    assert len({m.operator for m in propose(source, function)}) >= 8


def test_every_operator_finds_something_in_the_standard_library() -> None:
    found: set[str] = set()
    for name in ("textwrap", "argparse", "ast", "functools", "bisect", "statistics", "shlex"):
        source = (Path(ast.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        for function in list_functions(source, f"{name}.py")[::2]:
            found |= {m.operator for m in propose(source, function)}
        if len(found) == len(OPERATORS):
            return
    missing = {op.name for op in OPERATORS} - found
    assert missing <= {"remove_handler", "drop_sign", "change_loop", "unwrap_call"}


def test_work_does_not_grow_with_the_square_of_a_functions_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is read stays below a bound, and every operator and part of the function is there."""
    body = "    if a < {n} and b:\n        a += {n}\n    b = [g(a, {n}), 'x{n}']\n"
    text = "def f(a, b):\n" + "".join(body.format(n=n) for n in range(150)) + "    return a + b\n"
    short = "def f(a, b):\n" + body.format(n=1) + "    return a + b\n"
    (function,), (small,) = list_functions(text, "a.py"), list_functions(short, "a.py")
    most = 1_000_000
    module = importlib.import_module("selfplay.bug_sources.procedural.propose")
    monkeypatch.setattr(module, "MAX_READ", most)
    found = propose(text, function)
    operators = {mutation.operator for mutation in found}
    assert operators >= {mutation.operator for mutation in propose(short, small)}
    assert len(found) * len(text) < most + len(operators) * len(text)
    assert {mutation.line * 10 // function.end_line for mutation in found} >= set(range(10))
