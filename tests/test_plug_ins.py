"""No branch on a language outside its plug-ins: docs/architecture.md, "Languages".

A plug-in is a file that is named for a language or its test framework. Whoever else needs to know
asks `language_of` or a room's table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.repo.languages.registry import LANGUAGES

PACKAGE = Path(__file__).resolve().parent.parent / "selfplay"
SUFFIXES = sorted({suffix for language in LANGUAGES for suffix in language.suffixes})
NAMES = {language.name.lower() for language in LANGUAGES if language.suffixes}
WORDS = NAMES | set(FRAMEWORKS) | {"unittest"}
A_SUFFIX = re.compile(rf"(^|[*)\\]){'(' + '|'.join(map(re.escape, SUFFIXES)) + ')'}\$?$")
ON_NAMES = {
    "endswith",
    "removesuffix",
    "glob",
    "rglob",
    "match",
    "fullmatch",
    "search",
    "compile",
    "sub",
}
PLUG_IN = re.compile(rf"(^|_)({'|'.join(sorted(WORDS))})(_|$)")
OF_ONE = r"\.languages\.(perl|python$)"
ASIDE = {
    "repo/languages/": "the plug-ins' own room",
    "repo/dependencies/": "installs Python packages, and nothing else",
    "scripted/programs/": "programs of their own, written into a sandbox",
    "sandbox/bubblewrap/fork_server.py": "a Python program: pytest is what it loads beforehand",
    "bug_sources/commit_files.py": "what files of any repository are, by usual names",
    "bugs/test_runs/junit.py": "reads what pytest writes",
    "bugs/leak_search.py": "a program of its own: byte code is named for its module",
    "warmstart/bare_examples.py": "learns from any Python code, beside the repositories",
    "bugs/test_runs/frameworks.py": "the table itself",
    "scripted/habits.py": "the table itself",
}


def texts(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def branches(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that asks for a suffix, a language or a framework by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ON_NAMES:
                given = [text for argument in node.args for text in texts(argument)]
                yield from ((node.lineno, text) for text in given if A_SUFFIX.search(text))
        elif isinstance(node, ast.Compare):
            for text in texts(node):
                if text in SUFFIXES or text.lower() in WORDS:
                    yield node.lineno, text
        elif isinstance(node, ast.ImportFrom) and re.search(OF_ONE, node.module or ""):
            yield node.lineno, node.module or ""


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_nobody_asks_for_a_language(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    if PLUG_IN.search(path.stem) or name.startswith(tuple(ASIDE)):
        return
    found = list(branches(path.read_text(encoding="utf-8")))
    assert not found, f"{name}: a branch on a language belongs into its plug-in: {found}"


@pytest.mark.parametrize(
    "code",
    [
        'path.endswith(".py")',
        'path.endswith((".md", ".pm"))',
        'folder.rglob("*.t")',
        'path.suffix == ".py"',
        'kind in ("pytest", "tap")',
        'language.name == "Perl"',
        'name.removesuffix(".pl")',
        're.compile(r"^.*\\.t$")',
        "from selfplay.repo.languages.perl_source import scan",
    ],
)
def test_what_counts_as_a_branch(code: str) -> None:
    assert list(branches(code))


@pytest.mark.parametrize(
    "code",
    [
        'path.endswith((".md", ".rst"))',
        "language_of(path).is_valid(text)",
        'TABLE = {"Python": 1, "Perl": 2}',
        'kind == "image"',
        "from selfplay.repo.languages.python_source import parse",
    ],
)
def test_what_does_not(code: str) -> None:
    assert not list(branches(code))


def test_what_stands_aside_is_there() -> None:
    assert all((PACKAGE / place).exists() for place in ASIDE)
