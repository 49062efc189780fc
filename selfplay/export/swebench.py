"""The corpus as a suite file with SWE-bench's field names, and the artifact directories."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selfplay.bugs.artifact import write_artifact
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import SuiteTask, write_suite
from selfplay.errors import UserError
from selfplay.export.eval_script import LOG_PARSER, eval_script
from selfplay.export.sources import environment_of, read_sources
from selfplay.repo.spec import RepoSpec, load_spec, spec_from
from selfplay.types import SolveTask

log = logging.getLogger(__name__)


Tell = Callable[[SolveTask], str]
"""Makes an issue text; "" where none can be told."""


def export_swebench(run: Path, out: Path, repos_dir: Path, tell: Tell | None = None) -> int:
    """Write `out/suite.jsonl` and `out/artifacts/<bug id>/`; the number of bugs."""
    return len(write_corpus(run, out, repos_dir, tell))


def write_corpus(
    run: Path, out: Path, repos_dir: Path, tell: Tell | None = None
) -> list[SuiteTask]:
    """The same, and the tasks. `tell`: makes the issue text of those that have none. The suite
    appears last and whole.
    """
    with Corpus(run / "corpus.sqlite", read_only=True) as corpus:
        bugs = corpus.bugs()
    kept, names = read_sources(run), sorted({bug.task.repo for bug in bugs})
    sources = {name: source_of(name, repos_dir, kept) for name in names}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for bug in bugs:
            write_artifact(bug.task.artifact, out / "artifacts" / bug.task.bug_id)
        tasks = [
            SuiteTask(
                solve_task=with_statement(bug.task, tell) if tell else bug.task,
                base_commit=base_commit,
                environment=environment,
            )
            for bug in bugs
            for environment, base_commit in (sources[bug.task.repo],)
        ]
        keys = {"created_at": began_at(run), "hints_text": ""}
        write_suite(tasks, out / "suite.jsonl", lambda task: {**harness_keys(task), **keys})
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    return tasks


def with_statement(task: SolveTask, tell: Tell) -> SolveTask:
    """With an issue text, where it has none and one can be told."""
    if task.problem_statement:
        return task
    return dataclasses.replace(task, problem_statement=tell(task))


def began_at(run: Path) -> str:
    """When a run first started (ISO 8601); "" where it does not say, as `inject` does not."""
    file = run / "run.json"
    tries = json.loads(file.read_bytes())["tries"] if file.is_file() else []
    return str(tries[0].get("started", "")) if tries else ""


def harness_keys(task: SuiteTask) -> dict[str, str]:
    """What SWE-bench's own harness (5.0) reads of an instance beside its patches and tests.

    It wants an image with the buggy tree at /testbed, which a suite does not hold: `image` names
    that of the original, where there is one.
    """
    artifact, source = task.solve_task.artifact, task.environment.get("source") or {}
    fields: Mapping[str, Any] = next(iter(source.values()), {})
    return {
        "version": str(fields.get("version", task.base_commit)),
        "environment_setup_commit": task.base_commit,
        "image": str(fields.get("image", "")),
        "eval_script": eval_script(artifact, task.environment.get("variables") or {}),
        "log_parser": LOG_PARSER,
        "eval_type": "pass_and_fail",
    }


def source_of(
    name: str, repos_dir: Path, kept: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], str]:
    """(environment, base commit) of a repository: as `repos_dir` or else as the run has it."""
    variables: dict[str, str] = kept.get(name, {}).get("variables", {})
    if (repos_dir / f"{name}.yaml").is_file():
        spec = load_spec(name, repos_dir)
    elif name in kept:
        spec = spec_from(name, kept[name])
        commit = kept[name].get("commit")
        return dict(kept[name]), str(commit) if commit else describe_source(spec)
    else:
        log.warning("%s: no specification in %s; the suite holds its name alone", name, repos_dir)
        return {"repo": name}, ""
    return environment_of(spec, variables), describe_source(spec)


def describe_source(spec: RepoSpec) -> str:
    """A commit where there is one, else "project==version" or a path."""
    fields = dataclasses.asdict(spec.source)
    if "commit" in fields:
        return str(fields["commit"])
    if "version" in fields:
        return f"{fields['project']}=={fields['version']}"
    return str(next(iter(fields.values())))
