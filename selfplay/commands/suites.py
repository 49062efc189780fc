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
from selfplay.bug_sources.repaired_trees import repaired_environment, repaired_repo
from selfplay.commands.compose import repos_dir
from selfplay.commands.output import say
from selfplay.config import ReposConfig
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import SuiteTask, read_suite
from selfplay.errors import InfrastructureError, PatchError, UserError
from selfplay.export.sources import read_sources
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.sources.fetch import local_commit
from selfplay.repo.spec import GitSource, LocalSource, RepoSpec, load_spec, spec_from
from selfplay.sandbox.base import Environment
from selfplay.sandbox.pool import SandboxPool

T = TypeVar("T")
Problems = dict[str, str]


def read_tasks(path: Path) -> list[SuiteTask]:
    """Tasks of a suite file, of an export's directory, of the corpus of a run directory, or of what
    others wrote (docs/formats.md, "Suites of others")."""
    if (path / "suite.jsonl").is_file():
        return read_suite(path / "suite.jsonl")
    file = path / "corpus.sqlite"
    if not file.is_file():
        return read_suite(path)
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

    def opened(prepared: PreparedRepo, task: SuiteTask) -> Environment:
        artifact = task.solve_task.artifact
        if is_buggy(task):
            return repaired_environment(prepared, artifact)
        place = _place(task)
        return place_environment(prepared, place) if place else prepared.environment

    return _opened(tasks, config, pool, problems, opened)


def prepare_suite(
    tasks: Sequence[SuiteTask],
    config: ReposConfig,
    pool: SandboxPool,
    problems: Problems | None = None,
) -> dict[str, PreparedRepo]:
    """{task.repo: repository} of a suite's tasks, with what solvers need to be shown."""

    def opened(prepared: PreparedRepo, task: SuiteTask) -> PreparedRepo:
        solve = task.solve_task
        place = None if is_buggy(task) else _place(task)
        if is_buggy(task) or place:
            say(f"preparing {solve.repo}")
        if is_buggy(task):
            return repaired_repo(prepared, solve.artifact, solve.repo, pool.sandbox)
        return at_place(prepared, place, pool.sandbox) if place else prepared

    return _opened(tasks, config, pool, problems, opened)


def is_buggy(task: SuiteTask) -> bool:
    """Whether its source holds the buggy tree: gold patch and oracle tests make the original."""
    return task.environment.get("state") == "buggy"


def _place(task: SuiteTask) -> Place | None:
    """Of a mined bug."""
    _, commit = split_name(task.solve_task.repo)
    return place_of(task.solve_task.artifact, commit) if commit else None


def _opened(
    tasks: Sequence[SuiteTask],
    config: ReposConfig,
    pool: SandboxPool,
    problems: Problems | None,
    opened: Callable[[PreparedRepo, SuiteTask], T],
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
            found[name] = opened(prepared, task)
        except PatchError as error:
            problem = UserError(f"{name}: patch: does not fit the source ({error})")
            if problems is None:
                raise problem from None
            problems[name] = str(problem)
        except (InfrastructureError, UserError) as error:
            if problems is None:
                raise
            if str(error) not in problems.values():  # of many commits of a repository once
                say(f"{name}: {error}")
            problems[name] = str(error)
            bases.setdefault(key, error)
    return found


def _base(
    name: str, document: Mapping[str, Any], mined: bool, config: ReposConfig, pool: SandboxPool
) -> PreparedRepo:
    """A suite's repository: from `repos/` by its name, unless the suite's is a folder that is here,
    or its name is not known."""
    spec = _spec(name, document, config)
    say(f"preparing {name}")
    return prepare(spec if mined else _as_it_was(spec, document.get("commit")), pool.sandbox)


def suite_spec(task: SuiteTask, config: ReposConfig) -> RepoSpec:
    """Where the repository of a task comes from, whatever the commit."""
    name, _ = split_name(task.solve_task.repo)
    return _spec(name, task.environment, config)


def _spec(name: str, document: Mapping[str, Any], config: ReposConfig) -> RepoSpec:
    folder = repos_dir(config)
    if document.get("state") == "buggy":
        return with_mirror(spec_from(name, document), folder)
    source = document.get("source")
    if not source:
        return load_spec(name, folder)
    if not (folder / f"{name}.yaml").is_file():
        return spec_from(name, document)
    known = load_spec(name, folder)
    local = source.get("local") if isinstance(source, dict) else None
    path = local.get("path") if isinstance(local, dict) else None
    if not isinstance(path, str) or not Path(path).is_dir():
        return known
    # A clone of a known project has its name, and commits that the known source need not have.
    told = spec_from(name, document)
    return known if told.source == known.source else told


def with_mirror(spec: RepoSpec, folder: Path) -> RepoSpec:
    """Cloned from where `repos/NAME.yaml` says, where that is a git source, too."""
    if not isinstance(spec.source, GitSource) or not (folder / f"{spec.name}.yaml").is_file():
        return spec
    known = load_spec(spec.name, folder).source
    url = known.url if isinstance(known, GitSource) else spec.source.url
    return replace(spec, source=GitSource(url=url, commit=spec.source.commit))


def _as_it_was(spec: RepoSpec, commit: object) -> RepoSpec:
    """A local work tree at the commit where its bugs were found, although it has moved on."""
    source = spec.source
    if not isinstance(source, LocalSource) or not isinstance(commit, str) or not commit:
        return spec
    if local_commit(Path(source.path)) == commit:
        return spec
    return replace(spec, source=GitSource(url=source.path, commit=commit))
