"""Sources with a byte-order mark, a coding cookie, or other line endings: read, broken, written."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from selfplay.bug_sources.procedural import propose
from selfplay.bugs.patches.layers import apply_patch, make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.languages.python_functions import BYTE_ORDER_MARK, parse_python
from selfplay.repo.languages.python_source import parse, same_code
from selfplay.roles.prompts import render
from selfplay.types import FileChange

CODE = 'def gr\u00f6\u00dfer(a, b):\n    return "\u00e4" if a > b else "\u00f6"\n'
FILES = {
    "byte-order mark": b"\xef\xbb\xbf" + CODE.encode(),
    "byte-order mark and a cookie": b"\xef\xbb\xbf# coding: utf-8\r\n" + CODE.encode(),
    "latin-1": ("# -*- coding: latin-1 -*-\n" + CODE).encode("latin-1"),
    "CRLF": CODE.replace("\n", "\r\n").encode(),
    "no end of line": CODE.encode().rstrip(b"\n"),
}


@pytest.mark.parametrize("raw", FILES.values(), ids=FILES)
def test_functions_are_found_and_broken(raw: bytes, tmp_path: Path) -> None:
    source = raw.decode("utf-8", "surrogateescape")
    (function,) = list_functions(source, "a.py")
    mutants = {m.source.encode("utf-8", "surrogateescape") for m in propose(source, function)}
    wanted = raw.replace(b"a > b", b"a >= b")
    assert wanted in mutants
    for mutant in mutants:
        ast.parse(mutant)  # as the interpreter reads the bytes
        assert mutant[: raw.index(b"def")] == raw[: raw.index(b"def")]
    (tmp_path / "a.py").write_bytes(raw)
    patch = make_patch(tmp_path, {}, {"a.py": FileChange(content=wanted)})
    assert apply_patch(tmp_path, {}, patch)["a.py"].content == wanted
    render("system").encode()
    shown = render("injector", listing=source, strategy="direct", hint=None, change="")
    shown.encode("utf-8")  # whatever is shown can be tokenised


@pytest.mark.parametrize("raw", FILES.values(), ids=FILES)
def test_columns_count_the_files_own_bytes(raw: bytes) -> None:
    tree = parse_python(raw.decode("utf-8", "surrogateescape"))
    lines = raw.split(b"\n")
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert lines[function.lineno - 1][function.col_offset :].startswith(b"def ")
    value = function.body[0]
    assert lines[value.lineno - 1][value.col_offset : value.end_col_offset].startswith(b"return")


def test_bytes_that_are_not_utf8_are_not_all_the_same() -> None:
    left, right = ('a = "\udce4"\n', 'a = "\udcf6"\n')
    assert parse(left) is not None and not same_code(left, right)
    assert same_code(left, "a  = '\udce4'  # why\n")
    assert same_code(BYTE_ORDER_MARK + "a = 1\n", "a = 1\n")


@pytest.mark.parametrize("raw", FILES.values(), ids=FILES)
def test_weakened_tests_keep_their_bytes(raw: bytes, tmp_path: Path) -> None:
    doomed = "\ndef test_x():\n    assert gr\u00f6\u00dfer(1, 2)\n"
    encoding = "latin-1" if b"latin-1" in raw else "utf-8"
    ending = "\r\n" if b"\r\n" in raw else "\n"
    (tmp_path / "test_a.py").write_bytes(raw + doomed.replace("\n", ending).encode(encoding))
    layer = weakening_layer(tmp_path, ["test_a.py::test_x"])
    content = layer["test_a.py"].content or b""
    assert content.rstrip() == raw.rstrip() and b"test_x" not in content


def test_a_text_of_doctests_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/use.rst").write_text(">>> 1 + 1\n2\n", encoding="utf-8")
    (tmp_path / "test_a.py").write_text("def test_x():\n    pass\n", encoding="utf-8")
    tests = ["docs/use.rst::use.rst", "gone.rst::gone.rst", "test_a.py::test_a.helper"]
    layer = weakening_layer(tmp_path, tests)
    assert layer == {"docs/use.rst": FileChange(content=b"")}
