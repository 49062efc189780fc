"""What a repository's tests need, installed beside its tree: one call, `install`.

Everything comes through pip, and so from the package index that the user's own pip is set to.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from selfplay.errors import RepoError
from selfplay.files import write_atomic
from selfplay.repo.dependencies.build import Built, build
from selfplay.repo.dependencies.declarations import read_declared
from selfplay.repo.dependencies.pip import (
    Unresolvable,
    install_into,
    install_locked,
    levels,
    run_pip,
    without,
)
from selfplay.repo.dependencies.project import Project, write_project
from selfplay.repo.dependencies.requirements import Declared, refused_python
from selfplay.repo.dependencies.venv import (
    add_metadata,
    add_plugins,
    make_interpreter,
    without_description,
)
from selfplay.repo.spec import RepoSpec
from selfplay.sandbox.base import Sandbox

log = logging.getLogger(__name__)
TOOLS = ("pytest>=8,<10", "coverage>=7.6")
LOCK_FILE = "requirements.lock"
"""What is installed beside the tree; copied to repos/NAME.lock it makes the same environment."""


def install(
    spec: RepoSpec, tree: Path, folder: Path, sandbox: Sandbox, version: str
) -> tuple[str, ...]:
    """Into `folder/packages`: test tools, what the user asks for and what the project declares;
    never the repository itself. Returns the lines of a lock, written to `folder` too.

    A checkout without the metadata of an archive is given to its build backend in the sandbox
    first (`build.py`): what the backend writes joins the tree, what it knows of the project is
    kept in `folder` (`project.py`). `version` is what git's tags say. Raises `RepoError`.
    """
    packages = folder / "packages"
    archived = (tree / "PKG-INFO").is_file()
    built = Built() if archived else build(spec.name, tree, version, sandbox)
    declared = read_declared(tree, built.metadata)
    asked = refused_python(declared)
    if asked:
        log.warning("%s: %s", spec.name, asked)
    lock = install_packages(spec, tree, packages, declared, built.roots)
    add_metadata(built.metadata, packages)
    write_project(Project.of(built), built, tree, folder)
    write_atomic(folder / LOCK_FILE, "".join(f"{line}\n" for line in lock).encode())
    return lock


def install_packages(
    spec: RepoSpec, tree: Path, packages: Path, declared: Declared, roots: Sequence[str] = ()
) -> tuple[str, ...]:
    """Everything but the project into `packages`; the lines of a lock.

    What cannot be had as declared is asked for in any version, then run-time dependencies alone,
    then nothing of it; the log says so. A project is a stranger: what it names comes as wheels,
    which run nothing here. Only the user's own `spec.install` may be built from source, and only
    where nothing declared is installed beside it. With a lock exactly its versions are taken. A
    requirement may depend on the repository: what that brings along is removed again, so that
    tests import the tree. Raises `RepoError`.
    """
    if spec.lock:
        lock = install_locked(spec.name, spec.lock, packages)
    else:
        lock = _install_declared(spec.name, spec.install, declared, packages)
    _remove_distribution(declared.name, packages)
    for module in modules_of(tree, roots):
        shutil.rmtree(packages / module, ignore_errors=True)
        (packages / f"{module}.py").unlink(missing_ok=True)
    _copy_metadata(tree, packages)
    make_interpreter(packages)
    add_plugins(packages)
    return lock


def _install_declared(
    name: str, requirements: Sequence[str], declared: Declared, packages: Path
) -> tuple[str, ...]:
    """The user's word on pytest comes before the project's."""
    plain = (*TOOLS, *requirements)
    asked = any(re.match(r"pytest(?![\w.-])", line) for line in requirements)
    ours = plain if asked or not declared.pytest else (*plain, declared.pytest)
    for level, what in levels(declared):
        wanted = list(what)
        while wanted:
            try:
                return install_into((*ours, *wanted), packages, "--only-binary=:all:")
            except Unresolvable as error:
                fewer = without(wanted, error.nothing_of)
                if len(fewer) == len(wanted) and ours != plain:
                    ours = plain  # perhaps it is its pytest that does not go with the others
                    continue
                if len(fewer) == len(wanted):
                    log.warning("%s: cannot install %s: %s", name, level, error)
                    break
                log.warning("%s: not installed: there is no wheel of %s", name, error.nothing_of)
                wanted = fewer
            except RepoError as error:
                raise RepoError(f"{name}: cannot install {level}: {error}") from None
    try:
        return install_into(plain, packages)
    except RepoError as error:
        raise RepoError(f"{name}: cannot install {', '.join(plain)}: {error}") from None


def install_tools(name: str, requirements: Sequence[str], python: str, packages: Path) -> None:
    """Wheels for an interpreter of another version ("3.9") into `packages`. Raises `RepoError`."""
    packages.mkdir(exist_ok=True)
    add_plugins(packages)
    if not requirements:
        return
    version = ("--python-version", python, "--only-binary=:all:")
    try:
        run_pip("install", "--no-compile", *version, "--target", packages, "--", *requirements)
    except RepoError as error:
        wanted = f"{', '.join(requirements)} for Python {python}"
        raise RepoError(f"{name}: cannot install {wanted}: {error}") from None


def modules_of(tree: Path, roots: Sequence[str] = ()) -> set[str]:
    """Names of the packages and modules that a tree provides, in `roots` or where they usually
    lie."""
    usual = ["src"] if (tree / "src").is_dir() else [""]
    folders = [tree / root for root in (roots or usual) if (tree / root).is_dir()]
    return {
        entry.stem
        for folder in folders
        for entry in folder.iterdir()
        if (entry / "__init__.py").is_file() or (entry.suffix == ".py" and folder != tree)
    }


def _copy_metadata(tree: Path, packages: Path) -> None:
    information = tree / "PKG-INFO"
    if not information.is_file():
        return
    fields = dict(
        line.split(": ", 1)
        for line in information.read_text("utf-8", "replace").splitlines()
        if line.startswith(("Name: ", "Version: "))
    )
    name = f"{fields.get('Name', '').replace('-', '_')}-{fields.get('Version', '')}.dist-info"
    if {"Name", "Version"} <= set(fields) and "/" not in name:
        (packages / name).mkdir(exist_ok=True)
        told = without_description(information.read_bytes())
        (packages / name / "METADATA").write_bytes(told)


def _remove_distribution(name: str, packages: Path) -> None:
    """Remove an installed distribution by its name: every file that it says it brought."""
    if not name:
        return
    for found in distributions(name=name, path=[str(packages)]):
        for file in found.files or ():
            place = Path(os.path.normpath(str(found.locate_file(file))))
            if place.is_relative_to(packages):
                place.unlink(missing_ok=True)
            if file.name == "METADATA":
                shutil.rmtree(place.parent, ignore_errors=True)
