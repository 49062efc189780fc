"""This interpreter's pytest as the packages of a sandbox: a repository's without a download."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PYTEST = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")


def pytest_parts(*more: str) -> Iterator[Path]:
    """What pytest is made of and asks for its version, and other packages, among our packages."""
    site = Path(sysconfig.get_path("purelib"))
    for name in (*PYTEST, *more):
        yield from (site / name, *site.glob(f"{name}-*.dist-info"))


def copy_pytest(packages: Path, *more: str) -> None:
    """All of that, and `bin/python`, in a new folder."""
    (packages / "bin").mkdir(parents=True)
    for path in pytest_parts(*more):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, packages / path.name)
    interpreter = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    (packages / "bin" / "python").symlink_to(interpreter)
