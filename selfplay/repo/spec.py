"""Where a repository comes from: one YAML file each, read strictly."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selfplay.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSource:
    """A source distribution. `history`: older versions, stacked as commits, oldest first."""

    project: str
    version: str
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """A git URL at a commit; its full history is kept for the history strategy."""

    url: str
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSource:
    """A directory; a git work tree is taken at HEAD, any other directory as it is."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """A Docker image that holds the repository at `workdir`."""

    image: str
    workdir: str = "/testbed"


Source = PypiSource | GitSource | LocalSource | ImageSource
SOURCES: dict[str, type[Any]] = {
    "pypi": PypiSource,
    "git": GitSource,
    "local": LocalSource,
    "image": ImageSource,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSpec:
    """One target repository. `install`: requirements of its tests; nothing is said about tests."""

    name: str
    source: Source
    install: tuple[str, ...] = ()
    license: str = ""


def find_repos_dir() -> Path:
    """`repos/` beside the package, or `$SELFPLAY_REPOS`."""
    chosen = os.environ.get("SELFPLAY_REPOS")
    found = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "repos"
    if not found.is_dir():
        raise UserError(f"no repository specifications at {found}; set SELFPLAY_REPOS")
    return found


def list_specs(repos_dir: Path) -> list[RepoSpec]:
    """Every specification of a directory, by name."""
    return [_read(path) for path in sorted(repos_dir.glob("*.yaml"))]


def load_spec(name_or_path: str, repos_dir: Path) -> RepoSpec:
    """A name in `repos/`, or a path to a directory. Raises `UserError` for anything else."""
    file = repos_dir / f"{name_or_path}.yaml"
    if "/" not in name_or_path and file.is_file():
        return _read(file)
    path = Path(name_or_path).expanduser()
    if path.is_dir() and ("/" in name_or_path or path.exists()):
        return RepoSpec(name=path.resolve().name, source=LocalSource(path=str(path.resolve())))
    known = ", ".join(sorted(p.stem for p in repos_dir.glob("*.yaml")))
    raise UserError(f"repo={name_or_path}: no such repository or directory; known: {known}")


def _read(path: Path) -> RepoSpec:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: must be a mapping with keys source, install, license")
    unknown = sorted(set(document) - {"source", "install", "license"})
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]!r}; keys are source, install, license")
    return RepoSpec(
        name=path.stem,
        source=_source(path, document.get("source")),
        install=tuple(map(str, document.get("install") or ())),
        license=str(document.get("license") or ""),
    )


def _source(path: Path, document: Any) -> Source:
    if not isinstance(document, dict) or len(document) != 1 or next(iter(document)) not in SOURCES:
        raise UserError(f"{path}: source must be one of {', '.join(SOURCES)}, e.g. source: {{pypi: ...}}")
    kind, fields = next(iter(document.items()))
    try:
        fields = {k: tuple(map(str, v)) if isinstance(v, list) else str(v) for k, v in fields.items()}
        source: Source = SOURCES[kind](**fields)
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path}: source.{kind}: {error}") from None
    if isinstance(source, LocalSource):
        return LocalSource(path=str((path.parent / source.path).resolve()))
    return source
