"""The part of `selfplay warmstart` that makes lessons of traces."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfplay.commands.output import say
from selfplay.commands.traces import record_all
from selfplay.config import TracesConfig, WarmstartConfig
from selfplay.errors import UserError
from selfplay.files import encode_json, write_atomic
from selfplay.sampling import Tokenizer
from selfplay.warmstart.held_out import refuse_held_out
from selfplay.warmstart.lessons import lesson_line
from selfplay.warmstart.trace_lessons import repos_of, trace_examples

FOLDER = "traces"
"""Folder below `out` of what is recorded here."""


def make_trace_lessons(config: WarmstartConfig, tokenizer: Tokenizer, file: Path) -> dict[str, Any]:
    """Write `traces=N` lessons whole; what the warm start's record says of them.

    Recording goes on with the repositories that it has not done; the lessons are a function of
    the datasets and the seed. Raises `UserError` where a held-out project is among them.
    """
    folder = Path(config.trace_data) if config.trace_data else recorded(config, file.parent)
    found, paths = repos_of(folder)
    refuse_held_out(f"trace_data={folder}", found, paths)
    kinds: Counter[str] = Counter()
    lines = []
    told = trace_examples(folder, tokenizer, config.seed)
    with tqdm(total=config.traces, unit="lesson", desc="traces") as bar:
        for kind, function, example in itertools.islice(told, config.traces):
            lines.append(encode_json(lesson_line(example, function)) + b"\n")
            kinds[kind] += 1
            bar.update(1)
    if not lines:
        raise UserError(f"{folder}: gives no lesson that is short enough; record more tests")
    if len(lines) < config.traces:
        say(f"{folder} gave only {len(lines)} of {config.traces} lessons")
    write_atomic(file, b"".join(lines))
    record = folder / "record.json"
    command = json.loads(record.read_bytes()).get("command", "") if record.is_file() else ""
    seen = {"repos": sorted(found), "num_lessons": dict(kinds), "command": command}
    return {"traces": seen}


def recorded(config: WarmstartConfig, out: Path) -> Path:
    """The tests of `repos.train`, recorded; the folder of the datasets."""
    folder = out / FOLDER
    asked = TracesConfig(
        repo=list(config.repos.train),
        out=str(folder),
        seed=config.seed,
        sandbox=config.sandbox,
        repos=config.repos,
    )
    document = record_all(asked)
    for name, why in document["failed"].items():
        say(f"{name} gives no traces: {why}")
    if not document["repos"]:
        raise UserError(f"traces={config.traces}: no repository of repos.train could be recorded")
    return folder
