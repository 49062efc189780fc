"""Early verdicts on every fix of the suite: what is resolved stays so, and nothing else is."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from .bench import open_bench
from .case import FixCase
from .families import CASES

EARLY = ("timed_out", "fail_to_pass")
"""Reasons that an early verdict may give."""


def test_early_verdicts_are_those_of_whole_runs() -> None:
    fixes = [case for case in CASES if isinstance(case, FixCase)]
    with (
        open_bench("forked", early=True) as bench,
        ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as threads,
    ):
        found = list(zip(fixes, threads.map(bench.verdict, fixes), strict=True))
    for case, verdict in found:
        if case.want in ("resolved", "errored"):
            assert verdict == case.want, case.id
        else:
            assert verdict in (case.want, *EARLY), case.id
    early = {case.want for case, verdict in found if verdict != case.want}
    assert early <= {"canary", "pass_to_pass", "no_results", *EARLY}
