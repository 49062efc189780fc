"""Opening suites: their tasks, and the repositories that these stand on.

A repository that cannot be had is no fault of the others: where `problems` is given, it is told
there ({task.repo: why}) and left out of the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from selfplay.bug_sources.commit_trees import (
    Place,
    at_place,
    place_environment,
    place_of,
    split_name,
)
from selfplay.commands.compose import repos_dir
from selfplay.commands.output import say
from selfplay.config import ReposConfig
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import SuiteTask, read_suite
from selfplay.errors import InfrastructureError, UserError
from selfplay.export.sources import read_sources
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.sources.fetch import local_commit
from selfplay.repo.spec import GitSource, LocalSource, RepoSpec, load_spec, spec_from
from selfplay.sandbox.base import Environment
from selfplay.sandbox.pool import SandboxPool

T = TypeVar("T")
Problems = dict[str, str]


def read_tasks(path: Path) -> list[SuiteTask]:
    """Tasks of a suite file, of an export's directory, or of the corpus of a run directory."""
    if not path.is_dir():
        return read_suite(path)
    if (path / "suite.jsonl").is_file():
        return read_suite(path / "suite.jsonl")
    file = path / "corpus.sqlite"
    if not file.is_file():
        raise UserError(f"suite={path}: a directory without corpus.sqlite is no run directory")
    sources = read_sources(path)
    with Corpus(file, read_only=True) as corpus:
        tasks = [bug.task for bug in corpus.bugs()]
    return [
        SuiteTask(solve_task=task, base_commit="", environment=sources.get(task.repo, {}))
        for task in tasks
    ]


def suite_environments(
    tasks: Sequence[SuiteTask],
    config: ReposConfig,
    pool: SandboxPool,
    problems: Problems | None = None,
) -> dict[str, Environment]:
    """{task.repo: environment} of a suite's tasks, for grading alone: nothing is discovered at the
    commits of mined bugs."""

    def at_commit(prepared: PreparedRepo, place: Place | None) -> Environment:
        return place_environment(prepared, place) if place else prepared.environment

    return _opened(tasks, config, pool, problems, at_commit)


def prepare_suite(
    tasks: Sequence[SuiteTask],
    config: ReposConfig,
    pool: SandboxPool,
    problems: Problems | None = None,
) -> dict[str, PreparedRepo]:
    """{task.repo: repository} of a suite's tasks, with what solvers need to be shown."""

    def at_commit(prepared: PreparedRepo, place: Place | None) -> PreparedRepo:
        if place is None:
            return prepared
        say(f"preparing {prepared.name}@{place.sha}")
        return at_place(prepared, place, pool.sandbox)

    return _opened(tasks, config, pool, problems, at_commit)


def _opened(
    tasks: Sequence[SuiteTask],
    config: ReposConfig,
    pool: SandboxPool,
    problems: Problems | None,
    at_commit: Callable[[PreparedRepo, Place | None], T],
) -> dict[str, T]:
    bases: dict[str, PreparedRepo | InfrastructureError | UserError] = {}
    found: dict[str, T] = {}
    for name, task in {task.solve_task.repo: task for task in reversed(tasks)}.items():
        base, commit = split_name(name)
        key = json.dumps([base, task.environment.get("source")], sort_keys=True)
        try:
            if key not in bases:
                bases[key] = _base(base, task.environment, bool(commit), config, pool)
            prepared = bases[key]
            if not isinstance(prepared, PreparedRepo):
                raise prepared
            place = place_of(task.solve_task.artifact, commit) if commit else None
            found[name] = at_commit(prepared, place)
        except (InfrastructureError, UserError) as error:
            bases.setdefault(key, error)
            if problems is None:
                raise
            problems[name] = str(error)
            say(f"{name}: {error}")
    return found


def _base(
    name: str, document: Mapping[str, Any], mined: bool, config: ReposConfig, pool: SandboxPool
) -> PreparedRepo:
    """A suite's repository by name: from `repos/`, else as the suite says."""
    spec = _spec(name, document, config)
    say(f"preparing {name}")
    return prepare(spec if mined else _as_it_was(spec, document.get("commit")), pool.sandbox)


def suite_spec(task: SuiteTask, config: ReposConfig) -> RepoSpec:
    """Where the repository of a task comes from, whatever the commit."""
    name, _ = split_name(task.solve_task.repo)
    return _spec(name, task.environment, config)


def _spec(name: str, document: Mapping[str, Any], config: ReposConfig) -> RepoSpec:
    folder = repos_dir(config)
    known = (folder / f"{name}.yaml").is_file() or not document.get("source")
    return load_spec(name, folder) if known else spec_from(name, document)


def _as_it_was(spec: RepoSpec, commit: object) -> RepoSpec:
    """A local work tree at the commit where its bugs were found, although it has moved on."""
    source = spec.source
    if not isinstance(source, LocalSource) or not isinstance(commit, str) or not commit:
        return spec
    if local_commit(Path(source.path)) == commit:
        return spec
    return replace(spec, source=GitSource(url=source.path, commit=commit))
