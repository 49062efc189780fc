"""Where the repositories of a run came from: `repos.json` beside its corpus.

A specification may lie in `repos/` under the repository's name; one that was given by its path is
known to the run alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.files import write_atomic
from selfplay.repo.sources.fetch import local_commit
from selfplay.repo.spec import LocalSource, RepoSpec

SOURCES = "repos.json"


def environment_of(spec: RepoSpec) -> dict[str, Any]:
    """How the sandbox of a repository is made: enough to prepare it again elsewhere.

    A local git work tree also tells the commit that it is at.
    """
    source = spec.source
    kind = type(source).__name__.removesuffix("Source").lower()
    document = {
        "repo": spec.name,
        "source": {kind: dataclasses.asdict(source)},
        "install": list(spec.install),
        "license": spec.license,
    }
    commit = local_commit(Path(source.path)) if isinstance(source, LocalSource) else None
    return document | ({"commit": commit} if commit else {})


def keep_sources(run: Path, specs: Iterable[RepoSpec]) -> None:
    """Add to what the run directory knows of its repositories."""
    known = {spec.name: environment_of(spec) for spec in specs}
    text = json.dumps({**read_sources(run), **known}, indent=1)
    write_atomic(run / SOURCES, text.encode() + b"\n")


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
