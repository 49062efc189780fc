"""`selfplay export`: the bugs, episodes or weights of a run in formats of other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.commands.compose import repos_dir, sandbox_pool
from selfplay.commands.output import print_json, say
from selfplay.commands.suites import Problems, suite_environments
from selfplay.config import ExportConfig, TrainConfig, read_config
from selfplay.corpus.suite import SuiteTask
from selfplay.errors import UserError
from selfplay.export.harbor import write_task
from selfplay.export.manifest import write_manifest
from selfplay.export.parquet.write import FOLDER, write_parquet
from selfplay.export.preferences import export_preferences
from selfplay.export.sources import read_sources
from selfplay.export.swebench import write_corpus
from selfplay.export.swesmith import write_swesmith
from selfplay.export.traces import export_traces
from selfplay.export.verifiers.package import write_verifiers

CONFIG, SCHEMA = "export", ExportConfig
HELP = """
keys: run=DIR (a run directory) format=swebench|swesmith|harbor|verifiers|sft|dpo|hf out=DIR,
      problem_statement=template, parquet=true, step=N (hf), json=true
swebench  out/suite.jsonl (SWE-bench's field names) and out/artifacts/<bug id>/
swesmith  the same, and out/tasks.jsonl (`patch` is the bug) with out/profiles.py
harbor    the same, and out/tasks/<bug id>/: Harbor's task folders
verifiers the same, and out/selfplay_bugs/: an environment package with load_environment()
sft       out/traces.jsonl: solved and valid episodes as chat messages, with token ids
dpo       out/preferences.jsonl: a resolved and a failed attempt on one bug, as TRL reads them
hf        out/ as a model directory that transformers and vLLM load: the weights of the newest
          checkpoint or that of step=N, an adapter merged; on any number of ranks, also in mid-run
parquet=true: the lines once more in out/parquet/, a folder with a dataset card that the package
          datasets loads
out/export.json: licences and sources of the repositories, the hash of each file.
`selfplay corpus verify out=DIR` replays what holds bugs. docs/ecosystem.md tells how each is used.
"""


def run(config: ExportConfig) -> int:
    """Export; 0 when something was written, 1 when the corpus is empty."""
    run_dir, out = Path(config.run), Path(config.out)
    if not (run_dir / "corpus.sqlite").is_file():
        raise UserError(f"run={run_dir}: no corpus.sqlite there; name a directory under runs/")
    if config.format == "hf":
        number = export_weights(run_dir, config.step, out)
    elif config.format in ("sft", "dpo"):
        write, file = EPISODES[config.format]
        number = write(run_dir, out)
        sources = read_sources(run_dir)
        parts = [file, *as_parquet(config, out, file, sources)]
        write_manifest(out, config.format, parts, sources)
    else:
        number = export_bugs(config, run_dir, out)
    if config.json:
        print_json({"format": config.format, "out": str(out), "num_records": number})
    else:
        say(f"{number} records written to {out}")
    return 0 if number else 1


EPISODES = {
    "sft": (export_traces, "traces.jsonl"),
    "dpo": (export_preferences, "preferences.jsonl"),
}


def export_bugs(config: ExportConfig, run_dir: Path, out: Path) -> int:
    """The suite, which replays, and beside it the bugs in another format; how many of them."""
    template = config.problem_statement == "template"
    tasks = write_corpus(run_dir, out, repos_dir(config.repos), template=template)
    silent = sum(not task.solve_task.problem_statement for task in tasks)
    if template and silent:
        say(f"{silent} without an issue text: it would give something away")
    parts, number = ["suite.jsonl", "artifacts"], len(tasks)
    if config.format == "swesmith":
        number = len(write_swesmith(tasks, out))
        parts += ["tasks.jsonl", "profiles.py"]
        if number < len(tasks):
            say(f"{len(tasks) - number} left out of tasks.jsonl: their parsers are not ours")
    elif config.format == "harbor":
        number = write_harbor(config, tasks, out / "tasks")
        parts.append("tasks")
    elif config.format == "verifiers":
        origins = {task.solve_task.repo: task.environment for task in tasks}
        parts.append(write_verifiers(out, number, origins))
    environments = {task.solve_task.repo: task.environment for task in tasks}
    lines = "tasks.jsonl" if config.format == "swesmith" else "suite.jsonl"
    parts += as_parquet(config, out, lines, environments)
    write_manifest(out, config.format, parts, environments)
    return number


def as_parquet(
    config: ExportConfig, out: Path, lines: str, environments: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """With parquet=true the lines once more; the folder, if it was written."""
    if not config.parquet:
        return []
    left_out = write_parquet(out, lines, environments)
    if left_out:
        say(f"{left_out} left out of {FOLDER}/: their texts are not UTF-8")
    return [FOLDER]


def write_harbor(config: ExportConfig, tasks: Sequence[SuiteTask], out: Path) -> int:
    """Task folders; the number of those whose repository could be had."""
    problems: Problems = {}
    out.mkdir(parents=True, exist_ok=True)
    with sandbox_pool(config.sandbox) as pool:
        environments = suite_environments(tasks, config.repos, pool, problems)
        told = [task for task in tasks if task.solve_task.repo in environments]
        for task in told:
            solve = task.solve_task
            write_task(task, environments[solve.repo], out / solve.bug_id)
    return len(told)


def export_weights(run_dir: Path, step: int | None, out: Path) -> int:
    """The weights of one checkpoint as a model directory; 1, as one thing was written."""
    from selfplay.learner import checkpoint
    from selfplay.learner.grpo import export_checkpoint

    folder = run_dir / "checkpoints"
    path = checkpoint.latest(folder) if step is None else folder / f"step_{step}"
    if path is None or not path.is_dir():
        there = ", ".join(sorted(found.name for found in folder.glob("step_*"))) or "none"
        raise UserError(f"run={run_dir}: no checkpoint of step={step}; there are: {there}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out}: is there already; name a new directory")
    config = read_config(TrainConfig, run_dir / "config.yaml")
    export_checkpoint(config.policy, config.learner, config.seed, path, out)
    return 1
