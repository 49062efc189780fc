"""A corpus in one unattended run that is killed again and again: nothing lost, nothing double.

    python scripts/soak_harvest.py --kills 8 out=runs/corpus repo=[funcy,toolz] num_bugs=1000 ...

The words behind the options go to `selfplay inject source=procedural`. The process group is ended
with SIGKILL at random moments and started again until the command ends by itself. Before each
start the bugs that were reported (`tries.jsonl`) are looked up in the corpus. The last line of
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from selfplay.corpus.corpus import Corpus
from selfplay.files import read_json_lines


def main() -> int:
    """0 when nothing was lost and nothing is double."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--between-s", type=float, default=120.0, help="mean time between kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("words", nargs="+", help="overrides of selfplay inject, out=DIR among them")
    options = parser.parse_intermixed_args()
    out = Path(next(word[4:] for word in options.words if word.startswith("out=")))
    rng, began, lost, num_kills = random.Random(options.seed), time.monotonic(), 0, 0
    command = [sys.executable, "-m", "selfplay", "inject", "source=procedural", *options.words]
    while True:
        limit = rng.expovariate(1 / options.between_s) if num_kills < options.kills else None
        ended = run(command, limit)
        lost += len(reported(out) - stored(out))
        if ended is not None:
            break
        num_kills += 1
    rows = [line for _, line in read_json_lines(out / "tries.jsonl")]
    tries = Counter((row["repo"], row["task_id"]) for row in rows if row["verdict"] != "undecided")
    result = {
        "exit_code": ended,
        "kills": num_kills,
        "wall_s": round(time.monotonic() - began, 1),
        "tries": len(rows),
        "undecided": sum(row["verdict"] == "undecided" for row in rows),
        "bugs": len(stored(out)),
        "bugs_by_repo": dict(Counter(row["repo"] for row in rows if row["bug_id"]).most_common()),
        "reasons": dict(Counter(row["reason"].split(":")[0] for row in rows).most_common()),
        "lost": lost,
        "double": sum(count > 1 for count in tries.values()),
        "unreported": len(stored(out) - reported(out)),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if ended == 0 and not (lost or result["double"] or result["unreported"]) else 1


def run(command: list[str], limit_s: float | None) -> int | None:
    """The exit code, or None when it was killed after `limit_s` seconds."""
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def reported(out: Path) -> set[str]:
    """Ids of the bugs that `tries.jsonl` names; a torn last line is no report."""
    file = out / "tries.jsonl"
    if not file.is_file():
        return set()
    lines = file.read_bytes().split(b"\n")[:-1]
    return {row["bug_id"] for row in map(json.loads, lines) if row["bug_id"]}


def stored(out: Path) -> set[str]:
    """Ids of the bugs that the corpus holds whole, artifact directory included."""
    if not (out / "corpus.sqlite").is_file():
        return set()
    with Corpus(out / "corpus.sqlite", read_only=True) as corpus:
        ids = {bug.task.bug_id for bug in corpus.bugs()}
    return {name for name in ids if (out / "artifacts" / name / "bug_inject.diff").is_file()}


if __name__ == "__main__":
    sys.exit(main())
