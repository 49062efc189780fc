"""This interpreter's pytest as the packages of a sandbox: a repository's without a download."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")


def copy_pytest(packages: Path, *more: str) -> None:
    """pytest with all that it imports, other packages too, and `bin/python`, in a new folder."""
    site = Path(sysconfig.get_path("purelib"))
    for name in (*PYTEST, *more):
        shutil.copytree(site / name, packages / name)
    shutil.copy(site / "py.py", packages)
    for info in site.glob("pluggy-*.dist-info"):  # it asks for its own version
        shutil.copytree(info, packages / info.name)
    (packages / "bin").mkdir()
    interpreter = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    (packages / "bin" / "python").symlink_to(interpreter)
