"""The bug patch changes source files, enough of them, and nothing else."""

from __future__ import annotations

from ..case import ArtifactCase, Family, swap, top
from ..projects import LEDGER
from .texts import BINARY, LINK, OUTSIDE, misfit

FAMILY = Family(
    title="Scope",
    source="scope",
    cases=(
        ArtifactCase(name="no bug", repo="ledger", want="scope/bug_empty", bug="\n"),
        ArtifactCase(
            name="bug is prose", repo="timetable", want="scope/bug_malformed", bug="swap + and -\n"
        ),
        ArtifactCase(
            name="bug writes outside of the tree",
            repo="ledger",
            want="scope/bug_malformed",
            bug=OUTSIDE,
        ),
        ArtifactCase(
            name="bug adds a link to a file of the machine",
            repo="ledger",
            want="scope/bug_malformed",
            bug=LINK,
        ),
        ArtifactCase(name="bug is binary", repo="ledger", want="scope/bug_malformed", bug=BINARY),
        ArtifactCase(
            name="bug fits no file",
            repo="cachetools",
            want="scope/bug_does_not_apply",
            bug=misfit("src/cachetools/keys.py"),
        ),
        ArtifactCase(
            name="bug edits an oracle test",
            repo="textkit",
            want="scope/touches_oracle_test",
            bug={"tests/test_words.py": swap('"hello-world"', '"hello"')},
        ),
        ArtifactCase(
            name="bug edits conftest.py",
            repo="ledger",
            want="scope/touches_hook_file",
            bug={**LEDGER.planted, "tests/conftest.py": swap("250000, income", "25000, income")},
        ),
        ArtifactCase(
            name="bug edits the configuration of the runner",
            repo="cachetools",
            want="scope/touches_hook_file",
            bug={"pyproject.toml": top("# changed")},
        ),
        ArtifactCase(
            name="bug steers prove",
            repo="timetable",
            want="scope/touches_hook_file",
            bug={".proverc": "--exec 'echo not ok'\n"},
        ),
        ArtifactCase(
            name="bug is in a document",
            repo="textkit",
            want="scope/too_few_files",
            bug={"README.md": top("changed")},
        ),
        ArtifactCase(
            name="bug is in a test that is not listed",
            repo="ledger",
            want="scope/too_few_files",
            bug={"tests/test_report.py": swap("== 8", "== 9")},
        ),
        ArtifactCase(
            name="one file where two are wanted",
            repo="ledger",
            want="scope/too_few_files",
            limits={"min_changed_files": 2},
        ),
        ArtifactCase(
            name="breaks the syntax",
            repo="cachetools",
            want="scope/syntax_error",
            source="injection",
            bug={"src/cachetools/keys.py": swap("def hashkey(", "def hashkey((")},
        ),
        ArtifactCase(
            name="changes a comment",
            repo="ledger",
            want="scope/no_code_change",
            bug={"ledger/money.py": swap('"""Round to a multiple', '"""Round down to a multiple')},
        ),
        ArtifactCase(
            name="changes a comment of another language",
            repo="timetable",
            want="scope/no_code_change",
            bug={"lib/Timetable/Span.pm": swap("# The fewest spans", "# The most spans")},
        ),
    ),
)
