"""What a fix patch must be, and explicit passes only."""

from __future__ import annotations

from ..case import GOLD, Family, FixCase, swap, top
from ..projects import CACHETOOLS, LEDGER
from .texts import BINARY, FLOOD, LINK, OUTSIDE, WAITS, misfit

NOTHING = (
    "--- a/ledger/money.py\n+++ b/ledger/money.py\n@@ -3,3 +3,3 @@\n \n"
    "-def parse_cents(text):\n+def parse_cents(text):\n"
    '     """\'1,234.5\' -> 123450. A leading minus or parentheses mean a negative amount."""\n'
)
MARK = "/testbed/ledger/left.txt"
LEAVES_A_MARK = f"with open({MARK!r}, 'w') as file:\n    file.write('x')"
NEEDS_THE_MARK = f"""\
    try:
        open({MARK!r}).close()
        rest += 1
    except OSError:
        pass
"""
SKIP = "    import doctest\n    raise doctest.unittest.SkipTest('not today')\n"
FAMILY = Family(
    title="Fix patches",
    source="grading",
    cases=(
        *(
            FixCase(name="the gold patch", repo=repo, want="resolved", fix=GOLD)
            for repo in ("ledger", "textkit", "timetable", "cachetools")
        ),
        FixCase(
            name="another correct repair",
            repo="ledger",
            want="resolved",
            fix={"ledger/money.py": swap("if rest * 2 > step:", "if 2 * rest > step - 1:")},
        ),
        FixCase(
            name="no patch", repo="ledger", want="empty_patch", source="earlier systems", fix=""
        ),
        FixCase(
            name="no patch",
            repo="timetable",
            want="empty_patch",
            source="earlier systems",
            fix="\n \n",
        ),
        FixCase(
            name="changes nothing in the end",
            repo="ledger",
            want="empty_patch",
            source="earlier systems",
            fix=NOTHING,
        ),
        FixCase(name="prose", repo="textkit", want="patch_malformed", fix="closest is wrong"),
        FixCase(
            name="writes outside of the tree", repo="ledger", want="patch_malformed", fix=OUTSIDE
        ),
        FixCase(name="adds a link", repo="ledger", want="patch_malformed", fix=LINK),
        FixCase(name="is binary", repo="ledger", want="patch_malformed", fix=BINARY),
        FixCase(
            name="fits no file",
            repo="cachetools",
            want="patch_does_not_apply",
            fix=misfit(CACHETOOLS.source),
        ),
        FixCase(
            name="leaves the bug in place",
            repo="ledger",
            want="fail_to_pass",
            source="earlier systems",
            fix={LEDGER.source: top("# looked at")},
        ),
        FixCase(
            name="leaves the bug in place",
            repo="timetable",
            want="fail_to_pass",
            fix={"lib/Timetable/New.pm": "package Timetable::New;\n1;\n"},
        ),
        FixCase(
            name="repairs this and breaks that",
            repo="ledger",
            want="pass_to_pass",
            fix={
                LEDGER.source: lambda text: text.replace(
                    "rest * 2 > step", "rest * 2 >= step"
                ).replace("len(fraction) > 2", "len(fraction) > 9")
            },
        ),
        FixCase(
            name="makes tests vanish: missing is not passed",
            repo="ledger",
            want="pass_to_pass",
            source="earlier systems",
            fix={
                LEDGER.source: lambda text: text.replace("rest * 2 > step", "rest * 2 >= step"),
                "ledger/book.py": swap(
                    "    def undo(self, count=1):", "    def take_back(self, count=1):"
                ),
            },
        ),
        FixCase(
            name="a failing file vanishes: missing is not passed",
            repo="ledger",
            want="fail_to_pass",
            source="earlier systems",
            fix={LEDGER.source: swap("def round_to(", "def rounded(")},
        ),
        FixCase(
            name="errors at set-up: not failed is not passed",
            repo="ledger",
            want="pass_to_pass",
            source="earlier systems",
            fix={
                LEDGER.source: lambda text: text.replace("rest * 2 > step", "rest * 2 >= step"),
                "ledger/book.py": swap("        self.closed = set()", "        self.closed = None"),
            },
        ),
        FixCase(
            name="skips its tests: skipped is not passed",
            repo="ledger",
            want="fail_to_pass",
            source="earlier systems",
            fix={
                LEDGER.source: swap(
                    "    sign = -1 if cents < 0 else 1\n    units",
                    f"{SKIP}    units",
                )
            },
        ),
        FixCase(
            name="never ends",
            repo="ledger",
            want="timed_out",
            fix={LEDGER.source: top(WAITS)},
            timeout_s=5.0,
        ),
        FixCase(
            name="prints without end",
            repo="ledger",
            want="output_truncated",
            fix={LEDGER.source: swap("    units, rest =", f"    {FLOOD}\n    units, rest =")},
        ),
        FixCase(
            name="the run ends before any test: an empty table is no pass",
            repo="ledger",
            want="no_results",
            source="earlier systems",
            fix={"ledger/__init__.py": top("raise SystemExit(0)")},
        ),
        FixCase(
            name="the run dies before any test: an empty table is no pass",
            repo="textkit",
            want="no_results",
            source="earlier systems",
            fix={"textkit/__init__.py": top("import signal\nsignal.raise_signal(9)")},
        ),
        FixCase(
            name="repaired only by what an earlier attempt left behind",
            repo="ledger",
            want="fail_to_pass",
            source="earlier systems",
            earlier={LEDGER.source: top(LEAVES_A_MARK)},
            fix={
                LEDGER.source: swap(
                    "    if rest * 2 > step:", NEEDS_THE_MARK + "    if rest * 2 > step:"
                )
            },
        ),
        FixCase(
            name="the machine fails: no reward",
            repo="ledger",
            want="errored",
            source="earlier systems",
            fix=GOLD,
            fault_at=0,
        ),
        FixCase(
            name="the machine fails at the poisoned run: no reward",
            repo="textkit",
            want="errored",
            source="earlier systems",
            fix={"textkit/words.py": swap("edits <= fewest", "fewest > edits")},
            fault_at=1,
        ),
    ),
)
