"""What comes through pip, and so from the package index that the user's own pip is set to."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from selfplay.errors import RepoError

TOOLS = ("pytest>=8,<10", "coverage>=7.6")


def download_sdist(project: str, version: str, folder: Path) -> Path:
    """The source archive of a release, in `folder`; nothing of it is run. Raises `RepoError`."""
    folder.mkdir(exist_ok=True)
    requirement = f"{project}=={version}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _call(
            f"{requirement}: source archive not available",
            ["-P", str(Path(__file__).with_name("sdist.py")), project, version, scratch],
        )
        found = [p for p in Path(scratch).iterdir() if p.name.endswith((".tar.gz", ".zip"))]
        if not found:
            raise RepoError(f"{requirement}: the package index has no source archive of it")
        return Path(shutil.move(found[0], folder / found[0].name))


def install_packages(name: str, requirements: Sequence[str], tree: Path, packages: Path) -> None:
    """Test tools and a repository's requirements into `packages`; never the repository itself.

    A requirement may depend on the repository: what that brings along is removed again, so that
    tests import the tree. The tree's own metadata is left beside it, for those that ask for it.
    """
    _pip(
        f"{name}: cannot install {', '.join([*TOOLS, *requirements])}",
        ["install", "--no-compile", "--target", str(packages), "--", *TOOLS, *requirements],
    )
    for module in modules_of(tree):
        shutil.rmtree(packages / module, ignore_errors=True)
        (packages / f"{module}.py").unlink(missing_ok=True)
    _copy_metadata(tree, packages)
    _make_interpreter(packages)


def install_tools(name: str, requirements: Sequence[str], python: str, packages: Path) -> None:
    """Wheels for an interpreter of another version ("3.9") into `packages`. Raises `RepoError`."""
    packages.mkdir(exist_ok=True)
    if not requirements:
        return
    version = ("--python-version", python, "--only-binary=:all:")
    _pip(
        f"{name}: cannot install {', '.join(requirements)} for Python {python}",
        ["install", "--no-compile", *version, "--target", str(packages), "--", *requirements],
    )


def modules_of(tree: Path) -> set[str]:
    """Names of the packages and modules that a tree provides."""
    roots = [tree / "src"] if (tree / "src").is_dir() else [tree]
    return {
        entry.stem
        for root in roots
        for entry in root.iterdir()
        if (entry / "__init__.py").is_file() or (entry.suffix == ".py" and root.name == "src")
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


def _pip(purpose: str, argv: Sequence[str]) -> None:
    command = ["-m", "pip", argv[0], "-q", "--disable-pip-version-check", "--no-input"]
    _call(purpose, [*command, *argv[1:]])


def _call(purpose: str, argv: Sequence[str]) -> None:
    """Run Python. Raises `RepoError`: the purpose and pip's own reason."""
    done = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]
        raise RepoError(f"{purpose}: {(errors or lines or ['no message'])[-1]}")
