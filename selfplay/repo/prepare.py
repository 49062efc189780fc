"""From a specification to a sandboxed environment: fetched, installed, discovered, cached."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from selfplay.cache import cache_root
from selfplay.errors import RepoError, UserError
from selfplay.files import waiting_lock, write_atomic
from selfplay.repo.dependencies.declarations import read_declared
from selfplay.repo.dependencies.install import install
from selfplay.repo.dependencies.project import Project, add_compiled
from selfplay.repo.dependencies.requirements import other_python
from selfplay.repo.dependencies.venv import PACKAGES, steady_options
from selfplay.repo.discovery.discover import discover
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.discovery.pytest_settings import moved_variables
from selfplay.repo.discovery.test_names import test_names
from selfplay.repo.languages.functions import FunctionInfo
from selfplay.repo.languages.registry import language_of
from selfplay.repo.sources.docker_image import (
    BYTE_CODE,
    IMAGE_FILE,
    fetch_image,
    find_image,
    image_environment,
)
from selfplay.repo.sources.fetch import fetch, local_commit, plain_files
from selfplay.repo.sources.git import described_version
from selfplay.repo.spec import SUITE_TIMEOUT_S, LocalSource, RepoSpec, SuitePart
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.docker.image_store import ImageFacts
from selfplay.sandbox.host import host_mounts, make_readable

LAYOUT = 5
"""Raised when what is cached changes its form."""
NOT_SOURCE = (
    *("test", "tests", "testing", "docs", "doc", "examples", "benchmarks", "bench"),
    *("site-packages", "blib"),
)


@dataclass(frozen=True, kw_only=True)
class PreparedRepo:
    """A repository ready to be played on. `functions` are those of its source files."""

    name: str
    spec: RepoSpec
    environment: Environment
    history: Path | None
    profile: RepoProfile
    functions: tuple[FunctionInfo, ...]
    _sources: dict[str, str] = field(default_factory=dict, repr=False)

    def source(self, path: str) -> str:
        """Text of a file of the original tree (surrogateescape)."""
        if path not in self._sources:
            content = (self.environment.tree / path).read_bytes()
            self._sources[path] = content.decode("utf-8", "surrogateescape")
        return self._sources[path]


def prepare(
    spec: RepoSpec, sandbox: Sandbox, *, cache_dir: Path | None = None, refresh: bool = False
) -> PreparedRepo:
    """Prepare a repository, or take it from the cache. Two processes may do so at once.

    What a kill leaves behind is built anew. Raises `RepoError` when the repository cannot be
    fetched, installed or tested, `UserError` when what the specification names is not there.
    """
    try:
        image = find_image(spec, sandbox)
        key = spec_digest(spec, image)
        root = (cache_dir or cache_root()) / "repos"
        root.mkdir(parents=True, exist_ok=True)
        target = root / f"{spec.name}-{key[:16]}"
        with waiting_lock(root / f"{target.name}.lock"):
            if refresh or not (target / "done.json").is_file():
                _build(spec, target, sandbox, key, image)
        return _open(spec, target, key)
    except OSError as error:
        raise RepoError(f"{spec.name}: cannot be prepared: {error}") from error


def _build(
    spec: RepoSpec, target: Path, sandbox: Sandbox, key: str, image: ImageFacts | None
) -> None:
    partial = target.with_name(f"{target.name}.tmp")
    for leftover in (partial, target):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir()
    if image is not None:
        fetch_image(spec, image, sandbox, partial)
        _check_part(spec, partial / "tree")
    else:
        fetched = fetch(spec, partial)
        version = described_version(fetched.history) if fetched.history else ""
        _check_part(spec, fetched.tree)
        install(spec, fetched.tree, partial, sandbox, version)
    make_readable(partial)
    partial.rename(target)
    scratch = target / "pycache.tmp"
    try:
        profile = _discover(target, key, sandbox, scratch, spec.part)
    except RepoError as error:
        raise RepoError(f"{spec.name}: {error}{_hint(target / 'tree', image)}") from None
    make_readable(target)
    scratch.rename(target / "pycache")
    write_atomic(target / "profile.json", profile.to_json().encode())
    write_atomic(target / "done.json", json.dumps({"digest": key}).encode())


def _hint(tree: Path, image: ImageFacts | None) -> str:
    """What may help where no test passes: the Python for which a source was written."""
    why = other_python(read_declared(tree)) if image is None else ""
    if not why:
        return ""
    return (
        f" ({why}: take a commit for it, start selfplay under such a Python, or name an image that "
        "holds it, as SWE-bench's do: `source: {image: {image: NAME}}` in repos/NAME.yaml)"
    )


def _check_part(spec: RepoSpec, tree: Path) -> None:
    """Raise `UserError` for a path of `tests` that the source does not have."""
    for path in spec.tests:
        if not (tree / path).exists():
            raise UserError(
                f"{spec.name}: tests: {path!r} is not in the source; write a file's or folder's "
                "path from the source's root"
            )


def _discover(
    target: Path, key: str, sandbox: Sandbox, scratch: Path, part: SuitePart
) -> RepoProfile:
    """Discovery; once more with the modules that the build compiled where no test runs without."""
    try:
        return discover(_environment(target, key), sandbox, scratch, part)
    except RepoError:
        if not add_compiled(target, target / "tree"):
            raise
    shutil.rmtree(scratch, ignore_errors=True)
    make_readable(target)
    return discover(_environment(target, f"{key}+compiled"), sandbox, scratch, part)


def spec_digest(spec: RepoSpec, image: ImageFacts | None = None) -> str:
    """What the environment depends on: source (content of local ones and of images), packages,
    interpreter."""
    document = dataclasses.asdict(spec)
    for name, usual in (("tests", ()), ("suite_timeout_s", SUITE_TIMEOUT_S)):
        if document[name] == usual:
            del document[name]  # environments that are kept stay what they are
    content = [] if image is None else [image.id]
    if isinstance(spec.source, LocalSource):
        path = Path(spec.source.path)
        document["source"] = "local"  # wherever it lies
        content = [local_commit(path) or _tree_digest(path)]
    parts = [str(LAYOUT), sys.version, json.dumps(document, sort_keys=True), *content]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _tree_digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in plain_files(path):
        content = os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()
        digest.update(b"%s\0%d\0" % (os.fsencode(file.relative_to(path)), len(content)))
        digest.update(content)
    return digest.hexdigest()


def prepare_tree(
    spec: RepoSpec, environment: Environment, folder: Path, sandbox: Sandbox
) -> PreparedRepo:
    """A repository whose tree and environment are there already; discovery is kept in `folder`.

    Raises `RepoError` when its tests cannot be run.
    """
    profile = folder / "profile.json"
    if not profile.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            found = discover(environment, sandbox, Path(scratch) / "pycache", spec.part)
        write_atomic(profile, found.to_json().encode())
    known = RepoProfile.from_json(profile.read_text(encoding="utf-8"))
    return PreparedRepo(
        name=spec.name,
        spec=spec,
        environment=_as_discovered(environment, known),
        history=None,
        profile=known,
        functions=_functions(environment.tree, frozenset(known.test_files)),
    )


def environment_for(environment: Environment, tree: Path, digest: str) -> Environment:
    """The same packages and interpreter around another tree."""
    variables = moved_variables(environment.variables, environment.tree, tree)
    if environment.image is None:
        project = Project.read(environment.tree.parent)
        variables["PYTHONPATH"] = project.python_path(tree)
    return dataclasses.replace(environment, tree=tree, digest=digest, variables=variables)


def _as_discovered(environment: Environment, profile: RepoProfile) -> Environment:
    """With the variables without which this repository's tests do not run."""
    variables = {**environment.variables, **profile.variables}
    return dataclasses.replace(environment, variables=variables)


def _environment(folder: Path, key: str) -> Environment:
    tree = folder / "tree"
    if (folder / IMAGE_FILE).is_file():
        return image_environment(folder, key)
    variables = {"PYTHONPATH": Project.read(folder).python_path(tree)}
    steady = steady_options(folder / "packages")
    if steady:
        variables["PYTEST_ADDOPTS"] = " ".join(steady)
    mounts = {**host_mounts(), str(folder / "packages"): PACKAGES}
    if (folder / "pycache").is_dir():
        mounts[str(folder / "pycache")] = BYTE_CODE
        variables["PYTHONPYCACHEPREFIX"] = BYTE_CODE
    return Environment(
        tree=tree,
        mounts=mounts,
        path=f"{PACKAGES}/bin:/usr/local/bin:/usr/bin:/bin",
        digest=key,
        variables=variables,
    )


def _open(spec: RepoSpec, target: Path, key: str) -> PreparedRepo:
    profile = RepoProfile.from_json((target / "profile.json").read_text(encoding="utf-8"))
    history = target / "history.git"
    return PreparedRepo(
        name=spec.name,
        spec=spec,
        environment=_as_discovered(_environment(target, key), profile),
        history=history if history.is_dir() else None,
        profile=profile,
        functions=_functions(target / "tree", frozenset(profile.test_files)),
    )


@cache
def _functions(tree: Path, test_files: frozenset[str]) -> tuple[FunctionInfo, ...]:
    """Functions of source files: of no test, no helper of one, and no file that builds or runs."""
    found: list[FunctionInfo] = []
    is_test = test_names(tree)
    files = (file for file in tree.rglob("*") if language_of(file.name).is_source(file.name))
    for file in sorted(file for file in files if file.is_file()):
        relative = file.relative_to(tree)
        path = relative.as_posix()
        folders = {part.lower() for part in relative.parts[:-1]}
        if folders & set(NOT_SOURCE) or relative.parts[0] in ("t", "xt"):
            continue
        if relative.name.lower().startswith("test_") or path in test_files or is_test(path):
            continue
        source = file.read_bytes().decode("utf-8", "surrogateescape")
        found += language_of(path).functions(source, path)
    return tuple(found)
