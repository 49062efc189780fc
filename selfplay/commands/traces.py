"""`selfplay traces`: what repositories' tests run, as datasets; one repository after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selfplay.commands.application import task_words
from selfplay.commands.compose import repos_dir, sandbox_pool
from selfplay.commands.output import print_json, print_table, say
from selfplay.config import TracesConfig
from selfplay.errors import SelfplayError, UserError
from selfplay.files import encode_json, held_lock, write_atomic
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.spec import RepoSpec, load_spec
from selfplay.sandbox.base import Sandbox
from selfplay.seeds import derive_rng
from selfplay.traces.datasets import (
    distinct_questions,
    question_rows,
    scratchpad_rows,
    trace_rows,
)
from selfplay.traces.questions import true_questions
from selfplay.traces.record import Recorded, record
from selfplay.traces.recordings import Bounds
from selfplay.traces.replay import Replay

CONFIG, SCHEMA = "traces", TracesConfig
HELP = """
keys: repo=NAME_OR_PATH or [A,B], out=DIR (traces.jsonl, questions.jsonl, scratchpad.jsonl,
      record.json go there),
      num_tests=N (of each repository; null: all), seed=, max_events=2000, max_bytes=200000,
      max_seconds=5 (of one test), include_tests=true, check=true, sandbox=..., json=true
Tests are run in the sandbox, plainly and traced twice; a test whose verdict or whose recording
changes is left out and counted. The same command goes on with the repositories that it has not
done; one that fails costs itself alone.
"""
log = logging.getLogger(__name__)
FORMS = ("traces", "questions", "scratchpad")
PARTS = "repos"
"""Folder below `out` with one folder for each repository that is done."""
Row = dict[str, Any]


def run(config: TracesConfig) -> int:
    """Record; 0 when something is there, 1 when nothing is, 3 when a repository failed."""
    document = record_all(config)
    if config.json:
        print_json(document)
    else:
        show(document, Path(config.out))
    if document["failed"]:
        return 3
    return 0 if document["num_traces"] else 1


def record_all(config: TracesConfig) -> Row:
    """Record the repositories that are not done, and write the datasets of all; the record."""
    out = Path(config.out)
    specs = [load_spec(name, repos_dir(config.repos)) for name in config.names]
    if len({spec.name for spec in specs}) < len(specs):
        raise UserError(f"repo={config.names}: two are called the same; rename one's folder")
    with held_lock(out / ".lock", f"out={out}"):
        (out / PARTS).mkdir(exist_ok=True)
        return collect(out, {spec.name: row for spec, row in _each(specs, config, out)})


def _each(
    specs: Sequence[RepoSpec], config: TracesConfig, out: Path
) -> Iterator[tuple[RepoSpec, Row]]:
    """Each repository with its record; {"failed": why} for one that could not be done."""
    with sandbox_pool(config.sandbox) as pool:
        for spec in specs:
            try:
                prepared = prepare(spec, pool.sandbox)
                yield spec, one_repo(prepared, pool.sandbox, config, out / PARTS / spec.name)
            except SelfplayError as error:
                log.warning("%s: %s", spec.name, error)
                yield spec, {"failed": str(error)}
            except Exception as error:  # one odd repository ends no other
                log.exception("%s", spec.name)
                yield spec, {"failed": repr(error)}


def one_repo(prepared: PreparedRepo, sandbox: Sandbox, config: TracesConfig, folder: Path) -> Row:
    """Record one repository into its folder, or take what is there; its record."""
    settings = settings_of(config, prepared)
    file = folder / "record.json"
    if file.is_file():
        known: Row = json.loads(file.read_text(encoding="utf-8"))
        if known.get("settings") == settings:
            return known
        file.unlink()
    tests = drawn(prepared, config)
    with tqdm(total=len(tests), unit="test", desc=prepared.name) as bar:
        recorded = record(
            prepared,
            sandbox,
            tests,
            Bounds(
                max_events=config.max_events,
                max_bytes=config.max_bytes,
                max_seconds=config.max_seconds,
            ),
            bar.update,
            include_tests=config.include_tests,
            check=config.check,
        )
    asked = distinct_questions(recorded.tests)
    true = true_questions(prepared, sandbox, asked)
    rows: dict[str, Iterable[Row]] = {
        "traces": trace_rows(prepared, recorded.tests),
        "questions": question_rows(prepared, true),
        "scratchpad": scratchpad_rows(prepared, recorded.tests),
    }
    folder.mkdir(parents=True, exist_ok=True)
    counts = {form: write_rows(folder / f"{form}.jsonl", found) for form, found in rows.items()}
    row = {
        "settings": settings,
        **{f"num_{form}": count for form, count in counts.items()},
        "num_questions_not_true_again": len(asked) - len(true),
        "num_questions_told": len(true) - counts["questions"],
        **facts(recorded, len(tests)),
    }
    write_atomic(file, json.dumps(row, indent=1).encode() + b"\n")
    return row


def settings_of(config: TracesConfig, prepared: PreparedRepo) -> Row:
    """What a repository's record must agree in to be taken again."""
    names = (
        "num_tests",
        "seed",
        "max_events",
        "max_bytes",
        "max_seconds",
        "include_tests",
        "check",
    )
    return {
        **{name: getattr(config, name) for name in names},
        "environment": prepared.environment.digest,
    }


def drawn(prepared: PreparedRepo, config: TracesConfig) -> list[str]:
    """The tests that are recorded, in the order in which they run."""
    tests = list(prepared.profile.tests)
    if config.num_tests is None or config.num_tests >= len(tests):
        return tests
    chosen = derive_rng(config.seed, "traces", prepared.name).sample(tests, config.num_tests)
    return [test for test in tests if test in set(chosen)]


def facts(recorded: Recorded, num_tests: int) -> Row:
    """Counts and shares of one repository."""
    return {
        "num_tests": num_tests,
        "num_tests_kept": len(recorded.tests),
        "left_out": dict(recorded.left_out),
        "cut_at": dict(recorded.cut),
        "replay": dataclasses.asdict(recorded.replay),
        "checked": dataclasses.asdict(recorded.checked),
        "num_unchecked": recorded.num_unchecked,
        "run_s": [round(seconds, 3) for seconds in recorded.run_s],
        "body_s": [round(seconds, 4) for seconds in recorded.body_s],
    }


def write_rows(file: Path, rows: Iterable[Row]) -> int:
    """Write a dataset whole; the number of its lines."""
    lines = [encode_json(row) + b"\n" for row in rows]
    write_atomic(file, b"".join(lines))
    return len(lines)


def collect(out: Path, rows: dict[str, Row]) -> Row:
    """Write the datasets of all repositories that are done, and the record of all."""
    done = {name: row for name, row in rows.items() if "failed" not in row}
    for form in FORMS:
        parts = [(out / PARTS / name / f"{form}.jsonl").read_bytes() for name in done]
        write_atomic(out / f"{form}.jsonl", b"".join(parts))
    total = sum((Replay(**row["replay"]) for row in done.values()), Replay())
    checked = sum((Replay(**row["checked"]) for row in done.values()), Replay())
    document = {
        "command": "selfplay traces " + " ".join(task_words()),
        **{f"num_{form}": sum(row[f"num_{form}"] for row in done.values()) for form in FORMS},
        "replayed_equal": share(total.equal_values, total.values),
        "checked_equal": share(checked.equal_values, checked.values),
        "times_the_plain_run": times([*done.values()], "run_s"),
        "times_the_plain_bodies": times([*done.values()], "body_s"),
        "failed": {name: row["failed"] for name, row in rows.items() if "failed" in row},
        "repos": done,
    }
    write_atomic(out / "record.json", json.dumps(document, indent=1).encode() + b"\n")
    return document


def times(rows: Iterable[Row], key: str) -> float | None:
    """How many times as long the traced runs took."""
    plain, traced = (sum(row[key][i] for row in rows) for i in (0, 1))
    return share(traced, plain)


def share(part: float, whole: float) -> float | None:
    """None of nothing."""
    return round(part / whole, 6) if whole else None


def show(document: Row, out: Path) -> None:
    """The record as a table."""
    columns = ("repository", "tests", "kept", *FORMS, "tests left out")
    rows = []
    for name, row in document["repos"].items():
        counts = [row["num_tests"], row["num_tests_kept"], *(row[f"num_{form}"] for form in FORMS)]
        left_out = ", ".join(f"{why}: {count}" for why, count in row["left_out"].items())
        rows.append([name, *counts, left_out])
    print_table(f"traces in {out}", columns, rows)
    for name, why in document["failed"].items():
        say(f"{name} failed: {why}")
    with contextlib.suppress(TypeError):
        say(
            f"recorded twice: {document['replayed_equal']:.3%} of the values equal; "
            f"{document['times_the_plain_run']:.1f} times the plain run"
        )
