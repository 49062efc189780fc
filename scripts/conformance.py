"""Whether the system's verdicts are right, and stay so: the conformance suite, repeatedly.

    python scripts/conformance.py [--repetitions N] [--backends a,b] [--workers N] [--write-docs]

Plays every case of `tests/conformance` on plain bubblewrap, forked runs and Docker. Repetitions
share no cached run. Prints a table of what was wrong or changed; the last line of stdout is one
JSON object: {"cases", "repositories", "repetitions", "backends": {name: {"verdicts", "right",
"changed", "runs", "seconds"}}}. Exit code 0 when every verdict is right, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.conformance.bench import BACKENDS, Bench, open_bench  # noqa: E402
from tests.conformance.case import Case  # noqa: E402
from tests.conformance.families import CASES, FAMILIES  # noqa: E402
from tests.conformance.table import DOCUMENT, table  # noqa: E402


def play(bench: Bench, cases: Sequence[Case], num_workers: int, label: str) -> list[str]:
    """The verdicts of all cases, in order; what should not happen is a verdict, too."""
    for repo in dict.fromkeys(case.repo for case in cases):
        bench.task(repo)

    def verdict(case: Case) -> str:
        try:
            return bench.verdict(case)
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:200]

    with ThreadPoolExecutor(num_workers) as threads:
        verdicts = threads.map(verdict, cases)
        return list(tqdm(verdicts, total=len(cases), desc=label, disable=None))


def measure(backend: str, repetitions: int, num_workers: int) -> dict[str, Any]:
    """One backend: how many verdicts are right in every repetition, and which change."""
    began, num_runs = time.monotonic(), 0
    rounds: list[list[str]] = []
    with open_bench(backend) as bench:
        for number in range(repetitions):
            bench.forget()
            rounds.append(play(bench, CASES, num_workers, f"{backend} {number + 1}"))
            num_runs += bench.num_runs
    right = changed = 0
    for case, found in zip(CASES, zip(*rounds, strict=True), strict=True):
        right += sum(verdict == case.want for verdict in found)
        changed += len(set(found)) > 1
        if set(found) != {case.want}:
            sys.stdout.write(f"{backend:10}  {case.id}\n  want {case.want}\n  got  {found}\n")
    return {
        "verdicts": len(CASES) * repetitions,
        "right": right,
        "changed": changed,
        "runs": num_runs,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    """Play, compare, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--workers", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    if options.write_docs:
        (ROOT / "docs" / DOCUMENT).write_text(table(FAMILIES), encoding="utf-8")
        return 0
    report: dict[str, Any] = {
        "cases": Counter(case.kind for case in CASES),
        "repositories": sorted({case.repo for case in CASES}),
        "repetitions": options.repetitions,
        "backends": {},
    }
    for backend in options.backends.split(","):
        found = measure(backend, options.repetitions, options.workers)
        report["backends"][backend] = found
        sys.stdout.write(
            f"{backend:10}  {found['right']} of {found['verdicts']} right, {found['changed']} "
            f"changed, {found['runs']} runs, {found['seconds']} s\n"
        )
        sys.stdout.flush()
    sys.stdout.write(json.dumps(report) + "\n")
    return int(any(b["right"] < b["verdicts"] for b in report["backends"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
