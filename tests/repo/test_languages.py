"""Every language keeps the protocol's promises; every room's table is about languages there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.code_signals.readers import READERS, reader_of
from selfplay.bugs.code_signals.signals import new_signals
from selfplay.bugs.grading.canaries import CANARIES
from selfplay.bugs.patches.paths import is_hook_path, is_shadowing
from selfplay.bugs.test_edits.editors import EDITORS
from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.scripts import (
    on_targets,
    parser_runner,
    parser_source,
    runner_script,
    script_runner,
    script_targets,
)
from selfplay.compact.failure_readers import READERS as FAILURE_READERS
from selfplay.repo.discovery.discover import FRAMEWORKS as DISCOVERIES
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.languages.language import Language
from selfplay.repo.languages.registry import LANGUAGES, TEXT, language_of
from selfplay.sandbox.base import Environment
from selfplay.scripted.habits import HABITS

KNOWN = [language for language in LANGUAGES if language is not TEXT]
SAMPLES = {
    "Python": ("def f(x):\n    return x + 1\n", "def f(x):  # why\n    return x+1\n"),
    "Perl": ("sub f {\n  return 1;\n}\n", "# why\nsub f { return 1; }\n"),
}
EVERY = pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
PIECES = st.sampled_from(
    ["def f():\n", "    pass\n", "sub f {", "}", "=pod\n", "#", "'", '"', "\udcff", "\ufeff", "(",
     "\0", "<<E;\n", "q(", "\r", "\x0c", "é", "class A:\n", "\\", "$"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))


def environment(tree: Path) -> Environment:
    return Environment(tree=tree, mounts={}, path="/usr/bin", digest="d")


def test_suffixes_are_of_one_language_each() -> None:
    suffixes = [suffix for language in LANGUAGES for suffix in language.suffixes]
    assert len(suffixes) == len(set(suffixes))
    for language in LANGUAGES:
        for suffix in language.suffixes:
            assert language_of(f"a/b{suffix}") is language
    for path in ("README.md", "py", "a.pyx", "Makefile", "", "a.py.bak", "bin/tool"):
        assert language_of(path) is TEXT


def test_tables_name_languages_that_there_are() -> None:
    names = {language.name for language in LANGUAGES}
    assert len(names) == len(LANGUAGES)
    for table in (READERS, EDITORS, FAILURE_READERS, HABITS):
        assert set(table) <= names
        assert {language.name for language in KNOWN} <= set(table), "a language without its piece"


def test_tables_name_frameworks_that_there_are() -> None:
    assert set(DISCOVERIES) == set(CANARIES) == set(FRAMEWORKS)


@pytest.mark.parametrize("name", FRAMEWORKS)
@given(targets=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_scripts_of_every_framework_are_known_by_their_text(name: str, targets: list[str]) -> None:
    targets = [target for target in targets if "\\\n" not in target] or ["a"]
    script = runner_script(name, targets)
    assert script_runner(script) == name
    assert script_targets(script) == tuple(targets)
    assert on_targets(script, ["b c"]) == runner_script(name, ["b c"])
    for other in (script + "true\n", "\n" + script, script[:-2], ""):
        assert script_runner(other) != name or script_targets(other) != tuple(targets)
    assert parser_runner(parser_source(name)) == name


@EVERY
@given(left=TEXTS, right=TEXTS)
def test_nothing_raises_and_same_code_is_an_equivalence(
    language: Language, left: str, right: str
) -> None:
    path = f"a{language.suffixes[0] if language.suffixes else '.txt'}"
    same = language.same_code(left, right)
    assert same == language.same_code(right, left)
    assert language.same_code(left, left) or not language.is_valid(left)
    if same and language.normal_form(left) != left:
        assert language.normal_form(left) == language.normal_form(right)
    num_lines = left.count("\n") + left.count("\r") + 1
    for function in language.functions(left, path):
        assert 1 <= function.start_line <= function.end_line <= num_lines
        assert function.path == path and function.qualname
    reader = reader_of(path)
    assert all(count > 0 for count in reader.signals(left).values())
    assert all(1 <= source.line <= num_lines for source in reader.chance(left, False))
    assert isinstance(reader.is_readable(left), bool)
    list(reader.reach(Path("/nowhere"), path, left))


@pytest.mark.parametrize("language", KNOWN, ids=lambda language: language.name)
def test_layout_and_comments_are_no_change_of_code(language: Language) -> None:
    plain, other = SAMPLES[language.name]
    assert plain != other and language.same_code(plain, other)
    assert not language.same_code(plain, plain.replace("1", "2"))
    path = f"lib/a{language.suffixes[0]}"
    assert [f.qualname for f in list_functions(plain, path)] == ["f"]
    assert language.is_source(path)
    assert language.is_valid(plain)


def test_text_is_equal_or_not() -> None:
    python, _ = SAMPLES["Python"]
    assert TEXT.same_code("a", "a") and not TEXT.same_code("a", "a ")
    assert list_functions(python, "notes.md") == [] and not TEXT.is_source("notes.md")
    assert new_signals("notes.md", "import os; os._exit(0)", [], ("runner",)) == []


@pytest.mark.parametrize(
    ("path", "is_source"),
    [
        ("pkg/core.py", True),
        ("pkg/core.pyi", False),  # a stub: no bug in it fails a test
        ("setup.py", False),
        ("conftest.py", False),
        ("pkg/Core_Test.py", False),
        ("lib/A.pm", True),
        ("bin/a.pl", True),
        ("t/a.t", False),
        ("Makefile.PL", False),
        ("Build.PL", False),
        ("notes.txt", False),
    ],
)
def test_where_bugs_are_seeded(path: str, is_source: bool) -> None:
    assert language_of(path).is_source(path) is is_source


@pytest.mark.parametrize(
    "path", ["conftest.py", "a/conftest.py", ".proverc", "Makefile", "a/x.pyc", "a/__pycache__/b"]
)
def test_a_hook_is_one_whoever_looks(path: str) -> None:
    assert is_hook_path(path)
    assert not is_hook_path("src/core.py") and not is_hook_path("lib/A.pm")


@pytest.mark.parametrize(
    ("path", "shadows"),
    [
        ("json.py", True),
        ("src/json.py", True),
        ("json/data.txt", True),  # the folder becomes a package
        ("pkg/json.py", False),
        ("pytest/__init__.py", True),
        ("data.txt", False),
        ("lib/Test/More.pm", True),
        ("lib/strict.pm", True),
        ("lib/Shop.pm", False),
        ("app.psgi", False),
    ],
)
def test_new_files_that_take_a_modules_name(tmp_path: Path, path: str, shadows: bool) -> None:
    (tmp_path / "pkg").mkdir()
    assert is_shadowing(path, environment(tmp_path)) is shadows
    (tmp_path / "json").mkdir()  # the project's own name by now
    assert not is_shadowing("json/data.txt", environment(tmp_path))
