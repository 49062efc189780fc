"""How tests of each language are taken out of their files, or made to fail: one table, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs.test_edits import python_poison, python_weakening, tap, text
from selfplay.bugs.test_edits.python import locate
from selfplay.repo.languages.registry import TEXT, language_of
from selfplay.types import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class TestEditor:
    """What can be done to tests, given by their ids; ids that are not found are left alone.

    without    the layer with the original tree's test files without these tests
    failing    (tree, layer, tests): the layer with these tests made to fail
    can_fail   whether a test can be made to fail
    """

    __test__ = False
    without: Callable[[Path, list[str]], Layer]
    failing: Callable[[Path, Layer, list[str]], Layer]
    can_fail: Callable[[Path, str], bool]


EDITORS: dict[str, TestEditor] = {
    "Python": TestEditor(
        without=python_weakening.without_tests,
        failing=python_poison.with_failing_tests,
        can_fail=lambda tree, test: locate(tree, test) is not None,
    ),
    "Perl": TestEditor(
        without=tap.without_tests,
        failing=tap.with_failing_tests,
        can_fail=tap.poisonable,
    ),
    "text": TestEditor(
        without=text.without_tests,
        failing=lambda _tree, layer, _tests: layer,
        can_fail=lambda *_: False,
    ),
}


def editor_of(test: str) -> TestEditor:
    """The editor of a test, by the file in its id; dotted names without one are unittest's."""
    path, in_file, _ = test.partition("::")
    language = language_of(path)
    dotted = language is TEXT and not in_file
    return EDITORS["Python" if dotted else language.name]


def by_editor(tests: Iterable[str]) -> Iterator[tuple[TestEditor, list[str]]]:
    """Each editor that is wanted, with its tests, in the order of the table."""
    wanted: dict[int, list[str]] = {}
    for test in tests:
        wanted.setdefault(id(editor_of(test)), []).append(test)
    for editor in EDITORS.values():
        if id(editor) in wanted:
            yield editor, wanted[id(editor)]
