"""What is known of a prepared project beside its tree, kept with it: `project.json`.

Trees of other commits are given the same: where modules lie, and files that a build writes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from selfplay.files import write_atomic
from selfplay.repo.dependencies.build import Built
from selfplay.repo.dependencies.venv import PACKAGES
from selfplay.sandbox.base import WORKDIR

PROJECT_FILE, GENERATED, COMPILED = "project.json", "generated", "compiled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """`roots`: folders of the tree that modules are imported from ("" for itself); `generated`:
    files that its build wrote into the tree; `failure`: why its backend told nothing, or ""."""

    roots: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @classmethod
    def of(cls, built: Built) -> Project:
        """What a build told."""
        return cls(
            roots=built.roots,
            generated=tuple(built.generated),
            aliases=dict(built.aliases),
            failure=built.failure,
        )

    @classmethod
    def read(cls, folder: Path) -> Project:
        """What `folder` keeps; nothing where it was prepared without."""
        file = folder / PROJECT_FILE
        if not file.is_file():
            return cls()
        document = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            roots=tuple(document["roots"]),
            generated=tuple(document["generated"]),
            aliases=document["aliases"],
            failure=document["failure"],
        )

    def python_path(self, tree: Path) -> str:
        """PYTHONPATH inside a sandbox, for this tree."""
        roots = dict.fromkeys((*self.roots, "src", ""))
        places = [f"{WORKDIR}/{r}" if r else WORKDIR for r in roots if (tree / r).is_dir()]
        return ":".join([*places, PACKAGES])


def write_project(project: Project, built: Built, tree: Path, folder: Path) -> None:
    """Keep a project in `folder`; files that its build wrote join the tree, compiled modules wait
    in a folder of their own (`add_compiled`)."""
    for kind, files in ((GENERATED, built.generated), (COMPILED, built.compiled)):
        for path, content in files.items():
            target = folder / kind / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    add_generated(folder, tree)
    for package, place in project.aliases.items():
        (folder / "packages" / package).symlink_to(f"{WORKDIR}/{place}")
    write_atomic(folder / PROJECT_FILE, json.dumps(asdict(project)).encode())


def add_generated(folder: Path, tree: Path) -> None:
    """Files that the build wrote, into a tree that lacks them."""
    _add(folder / GENERATED, tree)


def add_compiled(folder: Path, tree: Path) -> bool:
    """The same for compiled modules, which may stand for functions that a bug is played on: only
    where tests do not run without. False when there are none."""
    return _add(folder / COMPILED, tree)


def _add(source: Path, tree: Path) -> bool:
    files = [file for file in source.rglob("*") if file.is_file()]
    for file in files:
        target = tree / file.relative_to(source)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return bool(files)
