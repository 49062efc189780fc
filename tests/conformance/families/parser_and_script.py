"""A table comes out of real output, and the original passes."""

from __future__ import annotations

from ..case import ArtifactCase, Family
from .texts import OWN_PARSER, OWN_SCRIPT, parser

FAMILY = Family(
    title="Parser and script",
    source="parser",
    cases=(
        ArtifactCase(
            name="parser ends with an error",
            repo="ledger",
            want="parser/parser_failed",
            parser="raise SystemExit(1)",
        ),
        ArtifactCase(
            name="parser answers a list",
            repo="timetable",
            want="parser/parser_failed",
            parser="print('[]')",
        ),
        ArtifactCase(
            name="statuses in another letter case",
            repo="cachetools",
            want="parser/parser_failed",
            source="earlier systems",
            parser=parser("print(json.dumps({t: s.upper() for t, s in table.items()}))"),
        ),
        ArtifactCase(
            name="statuses of another kind: skipped",
            repo="ledger",
            want="parser/parser_failed",
            parser=parser("print(json.dumps({**table, 'a': 'skipped'}))"),
        ),
        ArtifactCase(
            name="parser needs a file of the machine",
            repo="ledger",
            want="parser/parser_failed",
            source="earlier systems",
            parser=parser("import io\nio.open('/etc/shadow').read()\nprint(json.dumps(table))"),
        ),
        ArtifactCase(
            name="parser finds no test",
            repo="textkit",
            want="parser/parser_empty",
            parser="print('{}')",
        ),
        ArtifactCase(
            name="script runs no test", repo="ledger", want="parser/parser_empty", script="true\n"
        ),
        ArtifactCase(
            name="script never ends",
            repo="ledger",
            want="parser/timed_out",
            script="sleep 99\n",
            limits={"script_timeout_s": 2.0},
        ),
        ArtifactCase(
            name="script prints without end",
            repo="timetable",
            want="parser/output_truncated",
            script="yes not a test | head -c 60M\n",
        ),
        ArtifactCase(
            name="fewer tests pass than wanted",
            repo="ledger",
            want="script/too_few_passing",
            source="script",
            script=OWN_SCRIPT.replace("-v ", "-v -k round_to "),
            parser=OWN_PARSER,
        ),
        ArtifactCase(
            name="fewer tests pass than wanted",
            repo="cachetools",
            want="script/too_few_passing",
            source="script",
            limits={"min_passing_tests": 999},
        ),
        ArtifactCase(
            name="own script and parser",
            repo="ledger",
            want="valid",
            script=OWN_SCRIPT,
            parser=OWN_PARSER,
        ),
        ArtifactCase(
            name="results on stderr are read, too",
            repo="ledger",
            want="valid",
            source="earlier systems",
            script=f"exec 1>&2\n{OWN_SCRIPT}",
            parser=OWN_PARSER,
        ),
        ArtifactCase(
            name="results after a megabyte of noise are read, too",
            repo="ledger",
            want="valid",
            source="earlier systems",
            script=f"yes noise | head -c 1M\n{OWN_SCRIPT}",
            parser=OWN_PARSER,
        ),
        *(
            ArtifactCase(name="the sound bug", repo=repo, want="valid", source="validation")
            for repo in ("ledger", "textkit", "timetable", "cachetools")
        ),
        ArtifactCase(
            name="the machine fails at the first run",
            repo="ledger",
            want="undecided parser/infrastructure",
            source="earlier systems",
            fault_at=0,
        ),
        *(
            ArtifactCase(
                name=f"the machine fails at run {number + 1}",
                repo="ledger",
                want=f"undecided {check}/infrastructure",
                source="earlier systems",
                fault_at=number,
            )
            for number, check in (
                (1, "bug"),
                (2, "weakening"),
                (3, "determinism"),
                (5, "gold_resolves"),
            )
        ),
        ArtifactCase(
            name="the machine fails later",
            repo="timetable",
            want="undecided weakening/infrastructure",
            source="earlier systems",
            fault_at=2,
        ),
        ArtifactCase(
            name="the machine fails while the parser runs",
            repo="ledger",
            want="undecided parser/infrastructure",
            source="earlier systems",
            script=OWN_SCRIPT,
            parser=OWN_PARSER,
            fault_at=1,
        ),
    ),
)
