"""What comes through pip, and so from the package index that the user's own pip is set to."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from selfplay.errors import RepoError
from selfplay.repo.dependencies.pip import (
    Unresolvable,
    install,
    install_locked,
    levels,
    run_pip,
    run_python,
    without,
)
from selfplay.repo.dependencies.requirements import Declared

log = logging.getLogger(__name__)
TOOLS = ("pytest>=8,<10", "coverage>=7.6")
GUARD = "selfplay_guard"
"""Module name under which `repo.guard` lies among the packages."""
STEADY = {
    "--hypothesis-profile=ci": ("hypothesis/_settings.py", 'register_profile("ci"'),
    "--benchmark-disable": ("pytest_benchmark/plugin.py", "--benchmark-disable"),
}
"""Options for plugins that are there, so that a run depends on the code alone: no random examples
and no deadlines; benchmarks run once, as tests. Each with a file that knows it, and how."""


def download_sdist(project: str, version: str, folder: Path) -> Path:
    """The source archive of a release, in `folder`; nothing of it is run. Raises `RepoError`."""
    folder.mkdir(exist_ok=True)
    requirement = f"{project}=={version}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        argv = ["-P", str(Path(__file__).with_name("sdist.py")), project, version, scratch]
        try:
            run_python(argv)
        except RepoError as error:
            raise RepoError(f"{requirement}: source archive not available: {error}") from None
        found = [p for p in Path(scratch).iterdir() if p.name.endswith((".tar.gz", ".zip"))]
        if not found:
            raise RepoError(f"{requirement}: the package index has no source archive of it")
        return Path(shutil.move(found[0], folder / found[0].name))


def install_packages(
    name: str,
    requirements: Sequence[str],
    tree: Path,
    packages: Path,
    declared: Declared | None = None,
    lock: Sequence[str] = (),
) -> tuple[str, ...]:
    """Test tools, what the user asks for and what the project declares, into `packages`; never the
    repository itself. Returns the versions, lines for a lock.

    What cannot be had as declared is asked for in any version, then run-time dependencies alone,
    then nothing of it; the log says so. A project is a stranger: what it names comes as wheels,
    which run nothing here. Only the user's own `requirements` may be built from source, and only
    where nothing declared is installed beside them. With a `lock` exactly its versions are taken.
    A requirement may depend on the repository: what that brings along is removed again, so that
    tests import the tree. The tree's own metadata is left beside it, for those that ask for it.
    Raises `RepoError`.
    """
    declared = declared or Declared(name="")
    if lock:
        installed = install_locked(name, lock, packages)
    else:
        installed = _install_declared(name, requirements, declared, packages)
    _remove_distribution(declared.name, packages)
    for module in modules_of(tree):
        shutil.rmtree(packages / module, ignore_errors=True)
        (packages / f"{module}.py").unlink(missing_ok=True)
    _copy_metadata(tree, packages)
    _make_interpreter(packages)
    _add_guard(packages)
    return installed


def _install_declared(
    name: str, requirements: Sequence[str], declared: Declared, packages: Path
) -> tuple[str, ...]:
    ours = (*TOOLS, *requirements)
    for level, what in levels(declared):
        wanted = list(what)
        while wanted:
            try:
                return install((*ours, *wanted), packages, "--only-binary=:all:")
            except Unresolvable as error:
                fewer = without(wanted, error.nothing_of)
                if len(fewer) == len(wanted):
                    log.warning("%s: cannot install %s: %s", name, level, error)
                    break
                log.warning("%s: not installed: there is no wheel of %s", name, error.nothing_of)
                wanted = fewer
            except RepoError as error:
                raise RepoError(f"{name}: cannot install {level}: {error}") from None
    try:
        return install(ours, packages)
    except RepoError as error:
        raise RepoError(f"{name}: cannot install {', '.join(ours)}: {error}") from None


def steady_options(packages: Path) -> tuple[str, ...]:
    """Options of pytest that the installed plugins need for runs that can be repeated."""
    return tuple(
        option
        for option, (name, text) in STEADY.items()
        if (packages / name).is_file() and text in (packages / name).read_text("utf-8", "replace")
    )


def install_tools(name: str, requirements: Sequence[str], python: str, packages: Path) -> None:
    """Wheels for an interpreter of another version ("3.9") into `packages`. Raises `RepoError`."""
    packages.mkdir(exist_ok=True)
    _add_guard(packages)
    if not requirements:
        return
    version = ("--python-version", python, "--only-binary=:all:")
    try:
        run_pip("install", "--no-compile", *version, "--target", packages, "--", *requirements)
    except RepoError as error:
        wanted = f"{', '.join(requirements)} for Python {python}"
        raise RepoError(f"{name}: cannot install {wanted}: {error}") from None


def modules_of(tree: Path) -> set[str]:
    """Names of the packages and modules that a tree provides."""
    roots = [tree / "src"] if (tree / "src").is_dir() else [tree]
    return {
        entry.stem
        for root in roots
        for entry in root.iterdir()
        if (entry / "__init__.py").is_file() or (entry.suffix == ".py" and root.name == "src")
    }


def _add_guard(packages: Path) -> None:
    shutil.copy(Path(__file__).with_name("guard.py"), packages / f"{GUARD}.py")


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
        shutil.copy(information, packages / name / "METADATA")


def _make_interpreter(packages: Path) -> None:
    """`bin/python`, and beside `bin/` the file that makes it a virtual environment: nothing of the
    host's site-packages (plugins that load themselves, other versions) can be imported inside."""
    home = Path(sys.base_prefix) / "bin"
    (packages / "bin").mkdir(exist_ok=True)
    python = packages / "bin" / "python"
    python.unlink(missing_ok=True)
    python.symlink_to(home / f"python3.{sys.version_info.minor}")
    (packages / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\n", encoding="utf-8"
    )


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
