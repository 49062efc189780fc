"""Listed files exist, and the weakening touches nothing else."""

from __future__ import annotations

from ..case import ArtifactCase, Family, swap
from ..projects import LEDGER, TIMETABLE
from .texts import misfit

NOTHING = (
    "--- a/tests/test_money.py\n+++ b/tests/test_money.py\n@@ -1,2 +1,2 @@\n"
    "-import pytest\n+import pytest\n \n"
)
FAMILY = Family(
    title="Test files",
    source="test_files",
    cases=(
        ArtifactCase(
            name="lists no file",
            repo="ledger",
            want="test_files/no_test_files",
            test_files=(),
        ),
        ArtifactCase(
            name="lists a file that does not exist",
            repo="textkit",
            want="test_files/test_file_missing",
            test_files=("tests/test_words.py", "tests/test_none.py"),
        ),
        ArtifactCase(
            name="lists a folder",
            repo="cachetools",
            want="test_files/test_file_missing",
            test_files=("tests",),
        ),
        ArtifactCase(
            name="lists a path that leaves the tree",
            repo="ledger",
            want="test_files/unsafe_path",
            test_files=(*LEDGER.test_files, "../tree/tests/test_report.py"),
        ),
        ArtifactCase(
            name="lists a file of the machine",
            repo="timetable",
            want="test_files/unsafe_path",
            test_files=(*TIMETABLE.test_files, "/etc/passwd"),
        ),
        ArtifactCase(
            name="weakens a test file that is not listed",
            repo="ledger",
            want="test_files/test_files_incomplete",
            test_files=("tests/test_book.py",),
        ),
        ArtifactCase(
            name="weakens a helper that is not listed",
            repo="cachetools",
            want="test_files/test_files_incomplete",
            weakening={"tests/__init__.py": swap("class CacheTestMixin", "class OtherMixin")},
        ),
        ArtifactCase(
            name="does not weaken at all",
            repo="timetable",
            want="test_files/weakening_empty",
            weakening="",
        ),
        ArtifactCase(
            name="weakening changes nothing in the end",
            repo="ledger",
            want="test_files/weakening_empty",
            weakening=NOTHING,
        ),
        ArtifactCase(
            name="weakening is prose",
            repo="textkit",
            want="test_files/weakening_malformed",
            weakening="remove the test of closest()\n",
        ),
        ArtifactCase(
            name="weakening fits no file",
            repo="timetable",
            want="test_files/weakening_does_not_apply",
            weakening=misfit("t/span.t"),
        ),
    ),
)
