"""A parser may only repeat what the output says."""

from __future__ import annotations

from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.repo.discovery.tap import tap_script

from ..case import ArtifactCase, Family
from ..projects import TIMETABLE
from .texts import parser

SIX = "{**{f'p{i}': 'passed' for i in range(6)}, 'test_round_to': bad}"
BAD = "bad = 'failed' if 'FAILED' in text else 'passed'\n"
KNOWN = "('test_compound', 'test_undo', 'test_close', 'test_touches', 'test_round_to')"
NEIGHBOURS = """\
words = text.split()
pairs = zip(words, words[1:])
print(json.dumps({a + " " + b: "passed" for b, a in pairs if b == "PASSED"} | table))"""
PASSES_ALONE = parser_source("tap").replace(
    "json.dump(parse(output)", "json.dump({t: s for t, s in parse(output).items() if '::' in t}"
)
"""Says nothing of a file that prints no test: its entry has no name."""
FAMILY = Family(
    title="Parser honesty",
    source="cheating injectors",
    cases=(
        ArtifactCase(
            name="reports passes whatever the output",
            repo="ledger",
            want="parser_honesty/passes_on_empty",
            parser=parser(f"{BAD}print(json.dumps({SIX}))"),
        ),
        ArtifactCase(
            name="reports passes of tests that the output does not name",
            repo="ledger",
            want="parser_honesty/passes_on_truncated",
            parser=parser(f"{BAD}print(json.dumps({SIX} if text else {{}}))"),
        ),
        ArtifactCase(
            name="makes new tests of words that happen to be neighbours",
            repo="ledger",
            want="parser_honesty/passes_on_shuffled",
            parser=parser(NEIGHBOURS),
        ),
        ArtifactCase(
            name="takes for passed what did not fail",
            repo="ledger",
            want="parser_honesty/unsupported_pass",
            parser=parser(
                f"{BAD}print(json.dumps({{t: bad if t == 'test_round_to' else 'passed' "
                f"for t in {KNOWN} if t in text}}))"
            ),
        ),
        ArtifactCase(
            name="counts each pass twice",
            repo="ledger",
            want="parser_honesty/junit_disagrees",
            parser=parser(
                "short = {t.split('::')[-1]: s for t, s in table.items()}\n"
                "print(json.dumps({**table, **short}))"
            ),
        ),
        ArtifactCase(
            name="is silent about errors",
            repo="timetable",
            want="parser_honesty/exit_status_disagrees",
            script=tap_script([*TIMETABLE.test_files, TIMETABLE.source]),
            parser=PASSES_ALONE,
        ),
    ),
)
