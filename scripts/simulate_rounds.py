"""What rounds ahead of the learner bring where engine, sandboxes and learner share no cores.

    .venv/bin/python scripts/simulate_rounds.py RUN [--steps 200]
    .venv/bin/python scripts/simulate_rounds.py --seconds 273,120,274    # a machine that is planned

RUN is a directory of a synchronous run (curriculum.max_staleness=0): the median seconds of its
steps for sampling, sandboxes and learning are the durations here, the first two once for the
injector and once for the solver. Simulated is the controller's own rule (`rounds/ledger.py`):
slots, first finished first consumed. A resource serves one phase at a time, first come first
served. stdout is one JSON object: seconds a step and the gain over synchronous training.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import statistics
import sys
from collections import deque
from pathlib import Path

from selfplay.curriculum.rounds.ledger import Ledger, Round

PHASES = ("engine", "sandboxes", "engine", "sandboxes")
LAYOUTS = {
    "one engine samples and learns, sandboxes elsewhere": {"learner": "engine"},
    "engine, sandboxes and learner apart": {"learner": "learner"},
}


def simulate(
    seconds: dict[str, float], learner: str, max_staleness: int, steps: int
) -> tuple[float, int]:
    """(seconds of all steps, largest age of a sample in versions)."""
    ledger, free_at = (
        Ledger(num_slots=max_staleness + 1),
        dict.fromkeys(("engine", "sandboxes"), 0.0),
    )
    free_at[learner] = 0.0
    queue: list[tuple[float, int, Round, int]] = []
    order, finished = itertools.count(), deque[Round]()
    began: dict[int, int] = {}
    now, version, oldest = 0.0, 0, 0

    def start(round_: Round, phase: int, at: float) -> None:
        heapq.heappush(queue, (at, next(order), round_, phase))

    while version < steps:
        while round_ := ledger.begin(steps):
            began[round_.number] = version
            start(round_, 0, now)
        while not finished:
            at, _, round_, phase = heapq.heappop(queue)
            if phase == len(PHASES):
                now = max(now, at)
                finished.append(round_)
                continue
            resource = PHASES[phase]
            end = max(at, free_at[resource]) + seconds[resource] / 2
            free_at[resource] = end
            start(round_, phase + 1, end)
        round_ = finished.popleft()
        now = max(now, free_at[learner]) + seconds["learner"]
        free_at[learner] = now
        oldest = max(oldest, version - began[round_.number])
        version += 1
        ledger.consume([round_])
    return now, oldest


def measured(run: Path) -> dict[str, float]:
    """Median seconds of a run's steps, by resource."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = {
        "engine": "play/sampling_s",
        "sandboxes": "play/sandbox_s",
        "learner": "learner/wall_s",
    }
    return {key: statistics.median(row[name] for row in rows) for key, name in names.items()}


def planned(text: str) -> dict[str, float]:
    """The three figures of --seconds, by resource."""
    engine, sandboxes, learner = map(float, text.split(","))
    return {"engine": engine, "sandboxes": sandboxes, "learner": learner}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--seconds", help="of a step: engine,sandboxes,learner, in RUN's place")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    if (options.run is None) == (options.seconds is None):
        parser.error("name a RUN or --seconds, and not both")
    seconds = planned(options.seconds) if options.seconds else measured(options.run)
    report: dict[str, object] = {"seconds": {k: round(v, 1) for k, v in seconds.items()}}
    alone = sum(seconds.values())
    for layout, where in LAYOUTS.items():
        for staleness in (0, 1, 2, 4):
            whole, oldest = simulate(seconds, where["learner"], staleness, options.steps)
            report[f"{layout}, max_staleness {staleness}"] = {
                "step_s": round(whole / options.steps, 1),
                "gain": round(alone * options.steps / whole, 2),
                "oldest": oldest,
            }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
