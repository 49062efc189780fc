"""Early verdicts against whole runs: the same attempts graded both ways, on fresh runners.

    python scripts/bench_grading.py RUN ...            the attempts of run directories
    python scripts/bench_grading.py SUITE ATTEMPTS     those of an evaluation (out=FILE)

Each distinct fix patch is graded early and wholly, one after the other; which comes first takes
turns. The last line of stdout is one JSON object: verdicts that differ, and the seconds of each way
(wall time and runs of tests), by whether the attempt resolved its bug.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.commands.compose import prepare_repos, sandbox_pool
from selfplay.config import ReposConfig, SandboxConfig
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import read_suite
from selfplay.files import read_json_lines
from selfplay.types import SolveTask


def main() -> int:
    """0 when no verdict differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--sandbox", default="bubblewrap")
    options = parser.parse_args()
    found = list(dict.fromkeys(attempts(options.paths)))[: options.limit]
    tasks = dict(known_tasks(options.paths))
    result = compare([(tasks[bug_id], patch) for bug_id, patch in found], options.sandbox)
    print(json.dumps(result))
    return 1 if result["different"] else 0


def known_tasks(paths: list[Path]) -> Iterator[tuple[str, SolveTask]]:
    """Bugs of run directories and suites."""
    for path in paths:
        if path.is_dir():
            with Corpus(path / "corpus.sqlite", read_only=True) as corpus:
                yield from ((bug.task.bug_id, bug.task) for bug in corpus.bugs())
        elif not path.name.endswith(".attempts.jsonl"):
            yield from ((t.solve_task.bug_id, t.solve_task) for t in read_suite(path))


def attempts(paths: list[Path]) -> Iterator[tuple[str, str]]:
    """(bug id, fix patch) of the attempts that gave one."""
    for path in paths:
        if path.is_dir():
            with Corpus(path / "corpus.sqlite", read_only=True) as corpus:
                for bug in corpus.bugs():
                    for attempt in corpus.attempts(bug.task.bug_id):
                        if attempt["patch"]:
                            yield bug.task.bug_id, attempt["patch"]
        elif path.name.endswith(".attempts.jsonl"):
            yield from ((r["bug_id"], r["patch"]) for _, r in read_json_lines(path) if r["patch"])


def compare(pairs: list[tuple[SolveTask, str]], sandbox: str) -> dict[str, Any]:
    """Both ways on one worker."""
    spent: defaultdict[str, float] = defaultdict(float)
    reasons: Counter[str] = Counter()
    different = []
    with sandbox_pool(SandboxConfig(name=sandbox, num_workers=1)) as pool:
        repos = prepare_repos(sorted({task.repo for task, _ in pairs}), ReposConfig(), pool)
        originals: dict[str, dict[str, str]] = {name: {} for name in repos}
        for number, (task, patch) in enumerate(pairs):
            prepared, verdicts = repos[task.repo], {}
            for way in ("early", "whole") if number % 2 else ("whole", "early"):
                runner = TestRunner(
                    pool.sandbox, prepared.environment, originals=originals[task.repo]
                )
                seconds = prepared.profile.seconds if way == "early" else None
                began = time.monotonic()
                verdicts[way] = grade(task, patch, runner, seconds)
                kind = "resolved" if verdicts[way].resolved else "not"
                took = time.monotonic() - began
                spent[f"{way}/{kind}/s"] += took
                spent[f"{way}_s"] += took
                spent[f"{way}/{kind}/runs"] += runner.num_runs
            early, whole = verdicts["early"], verdicts["whole"]
            reasons[f"{whole.reason or 'resolved'} -> {early.reason or 'resolved'}"] += 1
            if early.resolved != whole.resolved:
                different.append({"bug_id": task.bug_id, "patch": patch})
    return {
        "attempts": len(pairs),
        "different": different,
        "reasons": dict(reasons.most_common()),
        **{name: round(value, 2) for name, value in sorted(spent.items())},
    }


if __name__ == "__main__":
    sys.exit(main())
