"""Which names Python would import from a new file instead of from where they are installed."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

from selfplay.sandbox.base import Environment

_RUNNER_MODULES = frozenset(
    {"pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup"}
)


def shadows_module(path: str, environment: Environment) -> bool:
    """Whether a new file, or the new folder that it lies in, takes a module's name."""
    parts = PurePosixPath(path).parts
    if parts[0] in ("src", "lib") and len(parts) > 1:
        parts = parts[1:]
    name = parts[0].split(".", 1)[0]
    if len(parts) == 1 and not parts[0].endswith((".py", ".pyi")):
        return False
    if (environment.tree / parts[0]).is_dir():
        return False
    return name in sys.stdlib_module_names or name in _RUNNER_MODULES | _installed(environment)


def _installed(environment: Environment) -> set[str]:
    """Top-level names in the mounted package folders."""
    names: set[str] = set()
    for source in environment.mounts:
        folder = Path(source)
        if folder.name.endswith("packages") and folder.is_dir():
            names |= {entry.name.split(".", 1)[0] for entry in folder.iterdir()}
    return names
