"""What only a project's build backend knows: version, entry points, files that it writes, layout.

A git checkout has none of what an archive brings along. So the backend makes a wheel, inside the
sandbox and without a network: what it needs is installed beforehand, from wheels alone, like
everything else that a project names. Of the wheel four things are kept:

    metadata    NAME-VERSION.dist-info, for `importlib.metadata`, entry points and plugins
    roots       folders of the tree that modules are imported from ("", "src", "lib", ...)
    aliases     packages whose folder has another name: {"pkg": "source"}
    generated   files that are in no commit, such as _version.py; compiled modules apart
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfplay.errors import RepoError
from selfplay.repo.dependencies.layout import find_layout
from selfplay.repo.dependencies.pip import install_into
from selfplay.repo.dependencies.requirements import parse
from selfplay.repo.dependencies.venv import INSIDE, PACKAGES, make_interpreter
from selfplay.sandbox.base import Environment, Job, Quota, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable

log = logging.getLogger(__name__)
BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
SETUPTOOLS = "setuptools.build_meta:__legacy__"
MAX_ROUNDS = 3
"""How often a backend may ask for more."""
QUOTA = Quota(timeout_s=240.0, output=128 << 20, num_processes=512)
COMPILED = (".so", ".pyd", ".dll", ".dylib")
PRETEND = (
    "SETUPTOOLS_SCM_PRETEND_VERSION",  # hatch-vcs reads it, too
    "PDM_BUILD_SCM_VERSION",
    "PBR_VERSION",
    "POETRY_DYNAMIC_VERSIONING_OVERRIDE",
    "UV_DYNAMIC_VERSIONING_BYPASS",
)
"""How backends are told the version that they would ask git for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came of a build; empty where there is no backend or it failed (`failure` says why)."""

    metadata: Mapping[str, bytes] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    generated: Mapping[str, bytes] = field(default_factory=dict)
    compiled: Mapping[str, bytes] = field(default_factory=dict)
    failure: str = ""


def build(name: str, tree: Path, version: str, sandbox: Sandbox) -> Built:
    """Ask the backend of the project in `tree`; `version` is what git's tags say, or "".

    Nothing is written, and a backend that fails is told in `failure`, never raised: many projects
    can be tested without.
    """
    if not any((tree / file).is_file() for file in BUILD_FILES):
        return Built()
    system = _build_system(tree)
    requires = [line for line in system["requires"] if not isinstance(parse(line), str)]
    make_readable(tree)  # a backend writes into its tree
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="build.") as scratch:
        for _ in range(MAX_ROUNDS):
            tools = Path(tempfile.mkdtemp(dir=scratch))
            try:
                install_into(tuple(requires), tools, "--only-binary=:all:")
            except RepoError as error:
                return _failed(name, f"its backend's needs cannot be installed: {error}")
            make_interpreter(tools)
            make_readable(Path(scratch))
            result = sandbox.run(_job(tree, tools, version, system, requires))
            more = _more(result.files.get("requires.json"))
            if not more:
                break
            requires += more
    wheels = [name for name in result.files if name.endswith(".whl")]
    if not wheels:
        lines = result.output.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        said = "out of time" if result.timed_out else lines[-1][:200]
        return _failed(name, f"its build backend {system['backend']} failed: {said}")
    try:
        return read_wheel(result.files[wheels[0]], tree)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        return _failed(name, f"its wheel cannot be read: {error}")


def _failed(name: str, why: str) -> Built:
    log.warning("%s: no metadata of its own: %s", name, why)
    return Built(failure=why)


def _build_system(tree: Path) -> dict[str, Any]:
    """PEP 518's table with its defaults."""
    try:
        document = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
        table = document.get("build-system")
    except (OSError, ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        table = {}
    requires = table.get("requires")
    lines = requires if isinstance(requires, list) else ["setuptools", "wheel"]
    folders = table.get("backend-path")
    return {
        "backend": str(table.get("build-backend") or SETUPTOOLS),
        "backend_path": [str(f) for f in folders] if isinstance(folders, list) else [],
        "requires": [line for line in lines if isinstance(line, str)],
    }


def _job(
    tree: Path, tools: Path, version: str, system: Mapping[str, Any], installed: Sequence[str]
) -> Job:
    asked = {
        "backend": system["backend"],
        "backend_path": system["backend_path"],
        "installed": list(installed),
    }
    program = (INSIDE / "backend_program.py").read_bytes()
    environment = Environment(
        tree=tree,
        mounts={**host_mounts(), str(tools): PACKAGES},
        path=f"{PACKAGES}/bin:/usr/local/bin:/usr/bin:/bin",
        digest=f"build:{tools.name}",
        variables={"PYTHONPATH": PACKAGES, **(dict.fromkeys(PRETEND, version) if version else {})},
    )
    return Job(
        environment=environment,
        argv=("python", "/in/backend_program.py"),
        inputs={"backend_program.py": program, "build.json": json.dumps(asked).encode()},
        quota=QUOTA,
    )


def _more(document: bytes | None) -> list[str]:
    """What the backend asks for beside; only names of packages count."""
    try:
        lines = json.loads(document) if document else []
    except ValueError:
        return []
    lines = lines if isinstance(lines, list) else []
    return [ln for ln in lines if isinstance(ln, str) and not isinstance(parse(ln), str)]


def read_wheel(wheel: bytes, tree: Path) -> Built:
    """Sort the files of a wheel by what they tell of the tree. The wheel is a stranger's: names
    that would leave a folder raise `ValueError`."""
    metadata: dict[str, bytes] = {}
    code: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        if sum(info.file_size for info in archive.infolist()) > QUOTA.output:
            raise ValueError("it unpacks to more than the bound on output")
        for info in archive.infolist():
            path = Path(info.filename)
            if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
                raise ValueError(f"{info.filename} leaves its folder")
            if info.is_dir() or path.parts[0].endswith(".data"):
                continue
            inside = path.parts[0].endswith(".dist-info")
            (metadata if inside else code)[path.as_posix()] = archive.read(info)
    layout = find_layout(tree, code)
    return Built(
        metadata={p: c for p, c in metadata.items() if not p.endswith(("/RECORD", "/WHEEL"))},
        roots=layout.roots,
        aliases=layout.aliases,
        generated={p: c for p, c in layout.missing.items() if not p.endswith(COMPILED)},
        compiled={p: c for p, c in layout.missing.items() if p.endswith(COMPILED)},
    )
