"""The programs of the sandbox under their names there, and interpreters to try them on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from selfplay.bugs.test_runs.inside import INSIDE, PROGRAMS

NEWER = ("python3.12", "python3.13", "python3.14")


def as_inside(folder: Path) -> Path:
    """A folder with the programs, for PYTHONPATH."""
    for name, module in PROGRAMS.items():
        shutil.copy(INSIDE / f"{module}.py", folder / f"{name}.py")
    return folder


def interpreters() -> dict[str, str]:
    """{tracer: interpreter that has it}: this one's, and that of a newer Python where one is."""
    found = {"settrace": sys.executable}
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python"))
    if sys.version_info >= (3, 12):
        found["monitoring"] = sys.executable
        return found
    for name in (*NEWER, *map(str, pyenv)):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            found["monitoring"] = path
    return found
