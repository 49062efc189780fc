"""What reads the failures and tests of each language: one table, by `Language.name`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfplay.compact.failures import Failure, TestBody
from selfplay.compact.python_failures import python_bodies, python_failures, python_name
from selfplay.compact.tap_failures import is_tap, tap_bodies, tap_failures, tap_name
from selfplay.repo.languages.registry import language_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReader:
    """How the tests of one language are read.

    knows      whether an output is of its test framework
    failures   output -> failing tests, in order
    name       test id -> what the test calls itself
    bodies     (test file, its text, test ids) -> the code of those tests that it holds
    """

    knows: Callable[[str], bool]
    failures: Callable[[str], list[Failure]]
    name: Callable[[str], str]
    bodies: Callable[[str, str, Sequence[str]], list[TestBody]]


USUAL = FailureReader(
    knows=lambda _: True, failures=python_failures, name=python_name, bodies=python_bodies
)
READERS: dict[str, FailureReader] = {
    "Perl": FailureReader(knows=is_tap, failures=tap_failures, name=tap_name, bodies=tap_bodies),
    "Python": USUAL,  # the last: it knows any output
}


def read_failures(output: str) -> list[Failure]:
    """The failures that a test run printed."""
    return next(reader for reader in READERS.values() if reader.knows(output)).failures(output)


def test_name(test_id: str) -> str:
    """What a test calls itself: `tests/test_a.py::TestB::test_c[x-1]` -> `test_c`."""
    path, in_file, _ = test_id.partition("::")
    reader = READERS.get(language_of(path).name, USUAL) if in_file else USUAL
    return reader.name(test_id)


test_name.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


def test_bodies(path: str, source: str, test_ids: Sequence[str]) -> list[TestBody]:
    """The code of these tests in one test file; [] where nobody knows the language."""
    reader = READERS.get(language_of(path).name)
    return reader.bodies(path, source, test_ids) if reader else []


test_bodies.__test__ = False  # type: ignore[attr-defined]
