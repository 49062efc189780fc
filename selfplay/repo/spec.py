"""Where a repository comes from: one YAML file each, read strictly."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selfplay.errors import UserError
from selfplay.files import at_home
from selfplay.repo.dependencies.pip import read_lock
from selfplay.shipped import find_shipped


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
    """A Docker image that holds the repository at `workdir`, dependencies installed."""

    image: str
    workdir: str = "/testbed"


Source = PypiSource | GitSource | LocalSource | ImageSource
SOURCES: dict[str, type[Any]] = {
    "pypi": PypiSource,
    "git": GitSource,
    "local": LocalSource,
    "image": ImageSource,
}
FORMS = {
    "project": (re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"), "the name of a project"),
    "version": (re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]*"), "one released version, such as 1.2.0"),
    "image": (re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*"), "a reference of a Docker image"),
    "workdir": (re.compile(r"/\S*"), "an absolute path inside the image"),
    "url": (re.compile(r"[^-\s]\S*"), "a URL that git can clone"),
    "commit": (
        re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}"),
        "a full commit id of 40 hexadecimal digits (64 with SHA-256; branches and tags move)",
    ),
}
"""What a field must look like, and how an error says so."""
KEYS = ("source", "install", "license", "tests", "suite_timeout_s")
SUITE_TIMEOUT_S, LONGEST_S = 900.0, 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SuitePart:
    """How much of a suite is run. `paths`: files and folders of the tree, () for all of it;
    `timeout_s`: seconds after which a run of it begins no further test."""

    paths: tuple[str, ...] = ()
    timeout_s: float = SUITE_TIMEOUT_S

    def within(self, tree: Path) -> SuitePart:
        """The same without what a tree does not have; all of it where it has nothing of it."""
        there = tuple(path for path in self.paths if (tree / path).exists())
        return dataclasses.replace(self, paths=there)


WHOLE = SuitePart()


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSpec:
    """One target repository. `install`: requirements beside those that the project declares;
    `lock`: the very versions that are installed, "name==1.0"; `tests`, `suite_timeout_s`: of a
    suite that is too large, see `SuitePart`; else nothing is said about tests."""

    name: str
    source: Source
    install: tuple[str, ...] = ()
    license: str = ""
    lock: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    suite_timeout_s: float = SUITE_TIMEOUT_S

    @property
    def part(self) -> SuitePart:
        """How much of its suite is run."""
        return SuitePart(paths=self.tests, timeout_s=self.suite_timeout_s)


def find_repos_dir() -> Path:
    """`repos/` as it travels with the package, or `$SELFPLAY_REPOS`."""
    return find_shipped("repos")


def list_specs(repos_dir: Path) -> list[RepoSpec]:
    """Every specification of a directory, by name."""
    return [read_spec(path) for path in sorted(repos_dir.glob("*.yaml"))]


def load_spec(name_or_path: str, repos_dir: Path) -> RepoSpec:
    """A name in `repos/`, or a path to a git work tree or any other directory.

    Raises `UserError` for anything else, with the names that are known.
    """
    file = repos_dir / f"{name_or_path}.yaml"
    if "/" not in name_or_path and file.is_file():
        return read_spec(file)
    path = Path(at_home(name_or_path))
    if name_or_path and path.is_dir():
        path = path.resolve()
        return RepoSpec(name=_plain(path.name), source=LocalSource(path=str(path)))
    known = ", ".join(sorted(p.stem for p in repos_dir.glob("*.yaml"))) or "none"
    raise UserError(
        f"repo={name_or_path}: neither a file {repos_dir}/NAME.yaml nor a directory; known: {known}"
    )


def spec_from(name: str, document: Mapping[str, Any]) -> RepoSpec:
    """A specification as a suite writes it: {"source": ..., "install": [...], "license": ...,
    "tests": [...], "suite_timeout_s": ...}.

    Raises `UserError` that names the repository.
    """
    where = Path(f"suite: {name}")
    return RepoSpec(
        name=name,
        source=_source(where, document.get("source")),
        install=_texts(where, "install", document.get("install") or []),
        license=_text(where, "license", document.get("license") or ""),
        **_part(where, document),
    )


def projects_of(spec: RepoSpec) -> frozenset[str]:
    """Names by which one project may be known, whatever its release or commit: the
    specification's, and that of the package or of the clone."""
    source, names = spec.source, {spec.name}
    if isinstance(source, PypiSource):
        names.add(source.project)
    elif isinstance(source, GitSource):
        names.add(source.url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
    plain = (re.sub(r"[._-]+", "-", name).lower() for name in names)
    return frozenset(name.removeprefix("python-") for name in plain)


def _plain(name: str) -> str:
    """A directory's name as one that may stand in file names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "repository"


def read_spec(path: Path) -> RepoSpec:
    """Read one specification. Every `UserError` names file, key, value and remedy."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: must be a mapping with the keys {', '.join(KEYS)}")
    for key in document:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key {key!r}; the keys are {', '.join(KEYS)}")
    install = _texts(path, "install", document.get("install") or [])
    for requirement in install:
        if requirement.startswith("-"):
            raise UserError(
                f"{path}: install: {requirement!r} is an option of pip; list requirements only, "
                "such as hypothesis>=6"
            )
    return RepoSpec(
        name=path.stem,
        source=_source(path, document.get("source")),
        install=install,
        license=_text(path, "license", document.get("license") or ""),
        lock=_lock(path.with_suffix(".lock")),
        **_part(path, document),
    )


def _part(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """The two keys about the size of a suite."""
    tests = _texts(path, "tests", document.get("tests") or [])
    for test in tests:
        if not re.fullmatch(r"[^-/\s]\S*", test) or ".." in Path(test).parts or "::" in test:
            raise UserError(
                f"{path}: tests: {test!r} is no file or folder of the source; write its path from "
                "the source's root, such as tests/unit or tests/test_api.py"
            )
    seconds = document.get("suite_timeout_s", SUITE_TIMEOUT_S)
    known = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not known or not 1 <= seconds <= LONGEST_S:
        raise UserError(
            f"{path}: suite_timeout_s: {seconds!r} is not a number of seconds from 1 to {LONGEST_S}"
        )
    return {"tests": tests, "suite_timeout_s": float(seconds)}


def _lock(path: Path) -> tuple[str, ...]:
    """The lines of NAME.lock beside NAME.yaml, () where there is none."""
    if not path.is_file():
        return ()
    try:
        return read_lock(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; copy the requirements.lock of a prepared one") from None


def _source(path: Path, document: Any) -> Source:
    kinds = ", ".join(SOURCES)
    if not isinstance(document, dict) or len(document) != 1:
        raise UserError(
            f"{path}: source: {document!r} must have exactly one of the keys {kinds}, "
            "as in source: {local: {path: samples/ledger}}"
        )
    kind, given = next(iter(document.items()))
    if kind not in SOURCES:
        raise UserError(f"{path}: source: unknown kind {kind!r}; use one of {kinds}")
    known = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(SOURCES[kind])}
    if not isinstance(given, dict):
        raise UserError(f"{path}: source.{kind}: {given!r} must be a mapping of {', '.join(known)}")
    for key in given:
        if key not in known:
            raise UserError(
                f"{path}: source.{kind}: unknown key {key!r}; the keys are {', '.join(known)}"
            )
    for key, required in known.items():
        if required and not given.get(key):
            raise UserError(f"{path}: source.{kind}.{key} is missing; add it")
    fields: dict[str, Any] = {}
    for key, value in given.items():
        where = f"source.{kind}.{key}"
        fields[key] = (_texts if key == "history" else _text)(path, where, value)
        for text in fields[key] if key == "history" else (fields[key],):
            _check(path, where, "version" if key == "history" else key, text)
    source: Source = SOURCES[kind](**fields)
    if isinstance(source, LocalSource):
        folder = (path.parent / at_home(source.path)).resolve()
        if not folder.is_dir():
            raise UserError(f"{path}: source.local.path: {source.path}: no directory at {folder}")
        return LocalSource(path=str(folder))
    return source


def _check(path: Path, where: str, key: str, text: str) -> None:
    """Refuse a value that would not name one fixed thing, or that a command could misread."""
    if key in FORMS and not FORMS[key][0].fullmatch(text):
        raise UserError(f"{path}: {where}: {text!r} is not {FORMS[key][1]}")


def _text(path: Path, where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{path}: {where}: {value!r} is not text; put it in quotes")
    return value


def _texts(path: Path, where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"{path}: {where}: {value!r} is not a list; write [{value}]")
    return tuple(_text(path, where, item) for item in value)
