"""From a specification to a sandboxed environment: fetched, installed, discovered, cached."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from selfplay.errors import RepoError
from selfplay.repo.discovery import discover
from selfplay.repo.functions import FunctionInfo, list_functions
from selfplay.repo.profile import RepoProfile
from selfplay.repo.sources import fetch, git
from selfplay.repo.spec import LocalSource, RepoSpec
from selfplay.sandbox.base import WORKDIR, Environment, Sandbox
from selfplay.sandbox.host import cache_root, host_mounts, make_readable

log = logging.getLogger(__name__)
LAYOUT = 1
"""Raised when what is cached changes its form."""
TOOLS = ("pytest>=8,<10", "coverage>=7.6")
PACKAGES, BYTE_CODE = "/opt/selfplay/packages", "/opt/selfplay/pycache"
NOT_SOURCE = ("test", "tests", "testing", "docs", "doc", "examples", "benchmarks", "bench")


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

    Raises `RepoError` when it cannot be fetched, installed or tested.
    """
    root = (cache_dir or cache_root()) / "repos"
    root.mkdir(parents=True, exist_ok=True)
    key = spec_digest(spec)
    target = root / f"{spec.name}-{key[:16]}"
    with _locked(root / f"{spec.name}-{key[:16]}.lock"):
        if refresh or not (target / "done.json").is_file():
            partial = root / f"{target.name}.tmp"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
            partial.mkdir()
            fetched = fetch(spec, partial)
            _install(spec, partial, fetched.tree)
            partial.rename(target)
            _discover(target, sandbox, key)
    return _open(spec, target, key)


def spec_digest(spec: RepoSpec) -> str:
    """What the environment depends on: source (content of local ones), packages, interpreter."""
    parts = [str(LAYOUT), sys.version, json.dumps(dataclasses.asdict(spec), sort_keys=True)]
    if isinstance(spec.source, LocalSource):
        path = Path(spec.source.path)
        if (path / ".git").exists():
            parts.append(git("rev-parse", "HEAD", cwd=path))
        else:
            parts += [_tree_digest(path)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _tree_digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{file.relative_to(path)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _install(spec: RepoSpec, folder: Path, tree: Path) -> None:
    """Test tools and the repository's extras into `folder/packages`; never the project itself."""
    packages = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--no-compile", "--target", str(packages), *TOOLS, *spec.install],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RepoError(f"{spec.name}: installing {', '.join(spec.install) or 'pytest'}: {reason}")
    for package in _packages_of(tree):
        shutil.rmtree(packages / package, ignore_errors=True)
        (packages / f"{package}.py").unlink(missing_ok=True)
    information = tree / "PKG-INFO"
    if information.is_file():
        fields = dict(
            line.split(": ", 1)
            for line in information.read_text("utf-8", "replace").splitlines()
            if line.startswith(("Name: ", "Version: "))
        )
        if {"Name", "Version"} <= set(fields):
            name = f"{fields['Name'].replace('-', '_')}-{fields['Version']}.dist-info"
            (packages / name).mkdir(exist_ok=True)
            shutil.copy(information, packages / name / "METADATA")
    (packages / "bin").mkdir(exist_ok=True)
    python = packages / "bin" / "python"
    python.unlink(missing_ok=True)
    python.symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    # Beside bin/, this file makes it a virtual environment: nothing of the host's own site-packages
    # (plugins that load themselves, other versions) can be imported inside.
    (packages / "pyvenv.cfg").write_text(
        f"home = {Path(sys.base_prefix) / 'bin'}\ninclude-system-site-packages = false\n"
    )
    make_readable(folder)


def _packages_of(tree: Path) -> set[str]:
    roots = [tree / "src"] if (tree / "src").is_dir() else [tree]
    return {
        entry.stem
        for root in roots
        for entry in root.iterdir()
        if (entry / "__init__.py").is_file() or (entry.suffix == ".py" and root.name == "src")
    }


def _environment(folder: Path, key: str) -> Environment:
    tree = folder / "tree"
    source = f"{WORKDIR}/src:{WORKDIR}" if (tree / "src").is_dir() else WORKDIR
    variables = {"PYTHONPATH": f"{source}:{PACKAGES}"}
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


def _discover(target: Path, sandbox: Sandbox, key: str) -> None:
    scratch = target / "pycache.tmp"
    profile = discover(_environment(target, key), sandbox, scratch)
    make_readable(scratch)
    scratch.rename(target / "pycache")
    (target / "profile.json").write_text(profile.to_json(), encoding="utf-8")
    (target / "done.json.tmp").write_text(json.dumps({"digest": key}), encoding="utf-8")
    (target / "done.json.tmp").rename(target / "done.json")


def _open(spec: RepoSpec, target: Path, key: str) -> PreparedRepo:
    profile = RepoProfile.from_json((target / "profile.json").read_text(encoding="utf-8"))
    history = target / "history.git"
    return PreparedRepo(
        name=spec.name,
        spec=spec,
        environment=_environment(target, key),
        history=history if history.is_dir() else None,
        profile=profile,
        functions=_functions(target / "tree"),
    )


@cache
def _functions(tree: Path) -> tuple[FunctionInfo, ...]:
    found: list[FunctionInfo] = []
    for file in sorted(tree.rglob("*.py")):
        relative = file.relative_to(tree)
        folders = {part.lower() for part in relative.parts[:-1]}
        name = relative.name.lower()
        if folders & set(NOT_SOURCE) or name.startswith("test_") or name.endswith("_test.py"):
            continue
        if name in ("conftest.py", "setup.py", "noxfile.py", "tasks.py"):
            continue
        source = file.read_bytes().decode("utf-8", "surrogateescape")
        found += list_functions(source, relative.as_posix())
    return tuple(found)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
