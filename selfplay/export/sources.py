"""Where the repositories of a run came from: `repos.json` beside its corpus.

A specification may lie in `repos/` under the repository's name; one that was given by its path is
known to the run alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from selfplay.errors import UserError
from selfplay.files import write_atomic
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.sources.fetch import local_commit
from selfplay.repo.spec import SUITE_TIMEOUT_S, LocalSource, RepoSpec

SOURCES = "repos.json"
TOLD = ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
TREE = "/testbed"
"""Where the tree lies, here and in images of SWE-bench."""
NOTHING: Mapping[str, str] = MappingProxyType({})
NONE_KNOWN: Mapping[str, Mapping[str, str]] = MappingProxyType({})


def environment_of(spec: RepoSpec, variables: Mapping[str, str] = NOTHING) -> dict[str, Any]:
    """How the sandbox of a repository is made: enough to prepare it again elsewhere.

    A local git work tree also tells the commit that it is at. `variables` are those that discovery
    found test runs to need (`told_variables`): for readers without a discovery of their own.
    """
    source = spec.source
    kind = type(source).__name__.removesuffix("Source").lower()
    document: dict[str, Any] = {
        "repo": spec.name,
        "source": {kind: dataclasses.asdict(source)},
        "install": list(spec.install),
        "license": spec.license,
    }
    document |= {"tests": list(spec.tests)} if spec.tests else {}
    if spec.suite_timeout_s != SUITE_TIMEOUT_S:
        document["suite_timeout_s"] = spec.suite_timeout_s
    commit = local_commit(Path(source.path)) if isinstance(source, LocalSource) else None
    document |= {"variables": dict(variables)} if variables else {}
    return document | ({"commit": commit} if commit else {})


def keep_sources(
    run: Path, specs: Iterable[RepoSpec], variables: Mapping[str, Mapping[str, str]] = NONE_KNOWN
) -> None:
    """Add to what the run directory knows of its repositories. `variables`: of each, by name."""
    known = {spec.name: environment_of(spec, variables.get(spec.name, NOTHING)) for spec in specs}
    keep_environments(run, known)


def keep_environments(run: Path, environments: Mapping[str, Mapping[str, Any]]) -> None:
    """Add to it what suites say of the repositories of their tasks."""
    text = json.dumps({**read_sources(run), **environments}, indent=1)
    write_atomic(run / SOURCES, text.encode() + b"\n")


def keep_prepared(run: Path, repos: Iterable[PreparedRepo]) -> None:
    """`keep_sources` with what test runs find in their environment."""
    known = list(repos)
    variables = {repo.name: told_variables(repo.environment.variables) for repo in known}
    keep_sources(run, (repo.spec for repo in known), variables)


def told_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Of what a test run finds in its environment, that which means something elsewhere."""
    found = {name: variables[name] for name in TOLD if name in variables}
    places = found.pop("PYTHONPATH", "").split(":")
    inside = [place for place in places if place == TREE or place.startswith(f"{TREE}/")]
    return {**({"PYTHONPATH": ":".join(inside)} if inside else {}), **found}


def read_sources(run: Path) -> dict[str, dict[str, Any]]:
    """{repository: its `environment` in a suite}; {} for a run that kept none."""
    file = run / SOURCES
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(document, dict):
        raise UserError(f"{file}: must be an object of repositories")
    return document
