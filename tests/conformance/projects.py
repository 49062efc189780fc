"""The repositories that the cases play on, each with one sound bug that a test notices."""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.scripts import runner_script, unittest_script

from .case import Edit, Edits, swap


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A repository of `repos/` and its sound bug.

    source      the file that holds the bug
    bug         the edit that plants it
    broken      the tests that fail with it: exactly these
    original    a text of `source` that the bug removes
    """

    spec: str
    runner: str
    test_files: tuple[str, ...]
    source: str
    bug: Edit
    broken: tuple[str, ...]
    original: str

    @property
    def script(self) -> str:
        """The harness's own script of the runner; for unittest one as people write it."""
        if self.runner in FRAMEWORKS:
            return runner_script(self.runner, self.test_files)
        return unittest_script(self.test_files)

    @property
    def planted(self) -> Edits:
        """The sound bug as edits of the original tree."""
        return {self.source: self.bug}


PROJECTS = {
    "ledger": Project(
        spec="sample-ledger",
        runner="pytest",
        test_files=("tests/test_money.py", "tests/test_book.py"),
        source="ledger/money.py",
        bug=swap("rest * 2 >= step", "rest * 2 > step"),
        broken=("tests/test_money.py::test_round_to",),
        original="rest * 2 >= step",
    ),
    "textkit": Project(
        spec="sample-textkit",
        runner="unittest",
        test_files=("tests/test_words.py", "tests/test_layout.py"),
        source="textkit/words.py",
        bug=swap("edits < fewest", "edits <= fewest"),
        broken=(
            "tests.test_words.DistanceTest.test_closest",
            "tests.test_words.DistanceTest.test_closest_too_far",
        ),
        original="edits < fewest",
    ),
    "timetable": Project(
        spec="sample-timetable",
        runner="tap",
        test_files=("t/merge.t", "t/span.t"),
        source="lib/Timetable/Span.pm",
        bug=swap("{end} - $span->{start}", "{end} + $span->{start}"),
        broken=("t/span.t::ninety minutes",),
        original="{end} - $span->{start}",
    ),
    "cachetools": Project(
        spec="cachetools",
        runner="pytest",
        test_files=("tests/test_fifo.py", "tests/test_lru.py"),
        source="src/cachetools/__init__.py",
        bug=swap(
            'pair first inserted."""\n        try:\n            key = next(iter(self.__order))',
            'pair first inserted."""\n        try:\n            key = next(reversed(self.__order))',
        ),
        broken=(
            "tests/test_fifo.py::FIFOCacheTest::test_fifo",
            "tests/test_fifo.py::FIFOCacheTest::test_fifo_update_existing",
        ),
        original="key = next(iter(self.__order))",
    ),
}
LEDGER, TEXTKIT = PROJECTS["ledger"], PROJECTS["textkit"]
TIMETABLE, CACHETOOLS = PROJECTS["timetable"], PROJECTS["cachetools"]
