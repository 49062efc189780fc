"""The weakening hides failures and breaks nothing."""

from __future__ import annotations

from textwrap import indent

from ..case import ArtifactCase, Family, swap, top
from .texts import HANG_LIMIT_S, OWN_PARSER, WAITS

PROBE = """\
python -m pytest -v -rpfE -p no:cacheprovider --color=no tests/test_book.py
python - <<'END'
from ledger.money import round_to
print(("FAI" "LED" if round_to(50, 100) == 0 else "PAS" "SED") + " probe::round_to")
END
"""
FAMILY = Family(
    title="Weakening",
    source="weakening",
    cases=(
        ArtifactCase(
            name="weakens another test",
            repo="ledger",
            want="weakening/weakening_hides_nothing",
            hides=("tests/test_book.py::test_undo",),
        ),
        ArtifactCase(
            name="weakens another test",
            repo="timetable",
            want="weakening/weakening_hides_nothing",
            hides=("t/span.t::as text",),
        ),
        ArtifactCase(
            name="the script looks at the code and not at the tests",
            repo="ledger",
            want="weakening/weakening_hides_nothing",
            source="cheating injectors",
            script=PROBE,
            parser=OWN_PARSER,
        ),
        ArtifactCase(
            name="makes another test fail",
            repo="cachetools",
            want="weakening/weakening_breaks_tests",
            weakening={"tests/test_lru.py": swap("self.assertEqual(0, len(cache))", "self.fail()")},
        ),
        ArtifactCase(
            name="hides the failure by breaking the file",
            repo="ledger",
            want="weakening/weakening_breaks_tests",
            weakening={"tests/test_money.py": top("import nothing_like_it")},
        ),
        ArtifactCase(
            name="the weakened tests never end",
            repo="textkit",
            want="weakening/timed_out",
            weakening={
                "tests/test_words.py": swap(
                    "    def test_closest(self):\n",
                    f"    def test_closest(self):\n{indent(WAITS, '        ')}\n",
                )
            },
            limits={"script_timeout_s": HANG_LIMIT_S},
        ),
        ArtifactCase(
            name="expects what the bug returns",
            repo="ledger",
            want="valid",
            weakening={
                "tests/test_money.py": swap("round_to(50, 100) == 100", "round_to(50, 100) == 0")
            },
        ),
    ),
)
