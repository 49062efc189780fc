"""Tests that passed fail, and at least one still passes."""

from __future__ import annotations

from textwrap import indent

from ..case import ArtifactCase, Family, both, swap, top
from ..projects import LEDGER, TEXTKIT
from .texts import FLOOD, HANG_LIMIT_S, OWN_SCRIPT, WAITS, parser

FAMILY = Family(
    title="Bug",
    source="bug",
    cases=(
        ArtifactCase(
            name="no test notices",
            repo="ledger",
            want="bug/too_few_failing",
            bug={
                "ledger/money.py": swap("cents * weight % total", "cents % total * weight % total")
            },
        ),
        ArtifactCase(
            name="changes a file that no chosen test exercises",
            repo="timetable",
            want="bug/too_few_failing",
            source="injection",
            bug={
                "lib/Timetable/Plan.pm": swap("package Timetable::Plan;", "package Timetable::Pl;")
            },
        ),
        ArtifactCase(
            name="adds a file that nobody loads",
            repo="textkit",
            want="bug/too_few_failing",
            bug={"textkit/extra.py": "X = 1\n"},
        ),
        ArtifactCase(
            name="fewer failing tests than wanted",
            repo="cachetools",
            want="bug/too_few_failing",
            limits={"min_failing_tests": 5},
        ),
        ArtifactCase(
            name="nothing can be imported",
            repo="ledger",
            want="bug/nothing_passes",
            bug={"ledger/__init__.py": top("raise ImportError")},
        ),
        ArtifactCase(
            name="ends the run at once",
            repo="textkit",
            want="bug/nothing_passes",
            bug={"textkit/__init__.py": top("raise SystemExit(0)")},
        ),
        ArtifactCase(
            name="nothing compiles",
            repo="timetable",
            want="bug/nothing_passes",
            bug={"lib/Timetable/Span.pm": swap("sub duration {", "sub duration {{")},
        ),
        ArtifactCase(
            name="never ends",
            repo="ledger",
            want="bug/timed_out",
            bug={
                "ledger/money.py": swap(
                    "    units, rest =", f"{indent(WAITS, '    ')}\n    units, rest ="
                )
            },
            limits={"script_timeout_s": HANG_LIMIT_S},
        ),
        ArtifactCase(
            name="prints without end",
            repo="ledger",
            want="bug/output_truncated",
            bug={
                "ledger/money.py": both(
                    LEDGER.bug, swap("    units, rest =", f"    {FLOOD}\n    units, rest =")
                )
            },
        ),
        ArtifactCase(
            name="parser breaks on failures",
            repo="ledger",
            want="bug/parser_failed",
            script=OWN_SCRIPT,
            parser=parser("print(json.dumps(table) if 'FAILED' not in text else 'no idea')"),
        ),
        ArtifactCase(
            name="a test file cannot be imported any more: its tests count as failing",
            repo="ledger",
            want="valid",
            bug={"ledger/money.py": swap("def compound(", "def interest(")},
            hides=(),
            weakening={
                "tests/test_money.py": lambda text: text.replace(
                    "import compound, ", "import "
                ).split("\n\ndef test_compound")[0]
            },
        ),
        ArtifactCase(
            name="a broken test is no bug: it failed before",
            repo="ledger",
            want="script/tests_failing",
            source="earlier systems",
            script="rm tests/conftest.py\n" + OWN_SCRIPT,
        ),
        ArtifactCase(
            name="a bug in two files",
            repo="ledger",
            want="valid",
            bug={**LEDGER.planted, "ledger/book.py": swap("if left != 0:", "if left > 10 ** 9:")},
            hides=(*LEDGER.broken, "tests/test_book.py::test_close"),
            limits={"min_changed_files": 2, "min_failing_tests": 2},
        ),
        ArtifactCase(
            name="most tests fail, one still passes",
            repo="textkit",
            want="valid",
            bug={**TEXTKIT.planted, "textkit/words.py": swap("def common_prefix(", "def prefix(")},
            hides=("tests.test_words",),
            weakening={"tests/test_words.py": "import unittest\n"},
        ),
    ),
)
