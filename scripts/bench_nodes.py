"""Rounds a minute by the nodes of a Ray cluster, beside one machine with as many workers.

    .venv/bin/python scripts/bench_nodes.py [--seconds 60] [--times 3] [--nodes 1,2,3] [overrides]

A head without slots and nodes of one sandbox slot each, all in this machine. Played is the real
curriculum on the sample repositories: injection, validation, solving and grading in real sandboxes,
the scripted policy, no learner, three rounds in flight, so that sandboxes are what is waited for.
Every way plays for so many seconds, from its first round on, once in each repetition; a repetition
has a seed of its own, the same for all ways, and every second one goes through them backwards.
`cores` are the processor seconds that this machine spent in a second, whoever spent them, and
`load` its load average at the end. The last line of stdout is one JSON object: rounds a minute
(minimum, median, maximum), and the medians of the ratios to one worker, within a repetition.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfplay.commands.compose import keep_originals, prepare_repos, sandbox_pool
from selfplay.commands.opening import make_controller, open_metrics, open_run
from selfplay.config import TrainConfig, load_config, to_yaml
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.step import StepResult
from selfplay.errors import SelfplayError, UserError
from selfplay.run_dir import RunDir

SMALL = 78_643_200
"""Bytes of a node's object store: the least that Ray takes."""
MAX_STARTS = 3
SETTINGS = ("experiment=samples", "metrics.report=false", "curriculum.max_staleness=2")
NEVER = 1 << 30


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


class Clock:
    """A watcher that shows nothing, and knows when the last step was over."""

    def __init__(self) -> None:
        self.num_steps, self.last = 0, time.monotonic()

    def phase(self, step: int, name: str) -> None: ...

    def round_done(self, number: int, result: StepResult) -> None: ...

    def evaluating(self, when: str, done: int, total: int) -> None: ...

    def step_done(self, step: int, row: Mapping[str, float]) -> None:
        self.num_steps, self.last = self.num_steps + 1, time.monotonic()


class Nodes:
    """A cluster in this machine whose nodes with slots come and go."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.update(RAY_worker_niceness="0")  # as this process: Ray's own is 15
        os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        import ray
        from ray.cluster_utils import Cluster

        self._ray, self._nodes = ray, []  # type: ignore[var-annotated]
        self._cluster: Any = Cluster(shutdown_at_exit=True)
        self._add(num_cpus=0, include_dashboard=False)
        ray.init(address=self._cluster.address, log_to_driver=False, configure_logging=False)

    def become(self, number: int) -> None:
        """So many nodes of one slot."""
        while len(self._nodes) > number:
            self._cluster.remove_node(self._nodes.pop())
        while len(self._nodes) < number:
            self._nodes.append(self._add(num_cpus=0, resources={"sandbox_slots": 1}))

    def close(self) -> None:
        self._ray.shutdown()
        self._cluster.shutdown()

    def _add(self, **words: Any) -> Any:
        """Ray gives a node 30 seconds to start, which a busy machine may not have."""
        for number in range(1, MAX_STARTS + 1):
            try:
                return self._cluster.add_node(object_store_memory=SMALL, **words)
            except Exception as error:
                say(f"a node of Ray did not start, try {number}: {error}")
        raise SelfplayError(f"no node of Ray started in {MAX_STARTS} tries")


def cpu_seconds() -> float:
    """Processor seconds that this machine has spent, at whatever niceness."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(
        float, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def play(words: Sequence[str], workers: int, seconds: float) -> dict[str, float]:
    """Rounds of one way of running sandboxes, once all of them are there."""
    config = load_config(TrainConfig, "train", [*SETTINGS, *words])
    with tempfile.TemporaryDirectory() as folder, sandbox_pool(config.sandbox) as pool:
        while (slots := getattr(pool.sandbox.inner, "num_slots", workers)) < workers:  # type: ignore[attr-defined]
            say(f"{slots} of {workers} slots are there")
            time.sleep(1.0)
        with RunDir(Path(folder) / "run") as run_dir, Corpus(run_dir.corpus) as corpus:
            run_dir.write_config(to_yaml(config))
            repos = prepare_repos(config.repos.train, config.repos, pool)
            opened = open_run(config, run_dir, repos, tuple(repos), pool, no_learner)
            keep_originals(opened.context.repo_contexts.values(), corpus)
            clock, metrics = Clock(), open_metrics(config, run_dir, opened)
            controller = make_controller(config, run_dir, corpus, opened, metrics, clock)
            began, spent = time.monotonic(), cpu_seconds()
            controller.run(0, NEVER, began + seconds)
            cores = (cpu_seconds() - spent) / (time.monotonic() - began)
            metrics.close()
    rate = 60.0 * clock.num_steps / (clock.last - began) if clock.num_steps else 0.0
    return {"rounds": rate, "cores": cores, "load": os.getloadavg()[0]}


def no_learner(run_dir: RunDir) -> Any:
    raise UserError(f"{run_dir.path}: nothing learns here; leave learner=none")


@contextmanager
def opened_nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.close()


def measure(
    counts: Sequence[int], times: int, seconds: float, words: Sequence[str]
) -> dict[str, list[dict[str, float]]]:
    """Rows of each way, in the order of repetitions."""
    ways = [(kind, number) for number in counts for kind in ("machine", "ray")]
    found: dict[str, list[dict[str, float]]] = {f"{kind} {n}": [] for kind, n in ways}
    with opened_nodes() as nodes:
        for number in range(times):
            for kind, workers in ways if number % 2 == 0 else reversed(ways):
                where = [f"sandbox.num_workers={workers}"]
                if kind == "ray":
                    nodes.become(workers)
                    where = ["cluster=ray"]
                row = play([*where, f"seed={number}", *words], workers, seconds)
                found[f"{kind} {workers}"].append(row)
                say(f"{number} {kind} {workers}: {json.dumps(row)}")
    return found


def summed_up(found: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """What is printed; `ratio`: to one worker of the same kind, within a repetition."""
    document: dict[str, Any] = {}
    for name, rows in found.items():
        rates = [row["rounds"] for row in rows]
        alone = found.get(f"{name.split()[0]} 1", [])
        ratios = [r["rounds"] / a["rounds"] for r, a in zip(rows, alone, strict=False)]
        document[name] = {
            "rounds_per_minute": [round(f(rates), 2) for f in (min, statistics.median, max)],
            "ratio": round(statistics.median(ratios), 2) if ratios else None,
            "cores": round(statistics.median(row["cores"] for row in rows), 2),
            "load": round(statistics.median(row["load"] for row in rows), 1),
        }
    return document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--nodes", default="1,2,3")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    counts = [int(number) for number in options.nodes.split(",")]
    found = measure(counts, options.times, options.seconds, options.overrides)
    sys.stdout.write(json.dumps(summed_up(found)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
