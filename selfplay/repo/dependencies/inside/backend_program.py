"""Runs INSIDE a sandbox, in a project's tree: asks its build backend for a wheel (PEP 517).

Reads /in/build.json: {"backend": "module:object", "backend_path": [...], "installed": [...]}.
Writes /out/requires.json, what the backend needs beside that (and stops there when something is
missing), else the wheel into /out. Self-contained: it runs beside the backend alone.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Exit code 0 with a wheel, 3 where more must be installed first."""
    asked = json.loads(Path("/in/build.json").read_text(encoding="utf-8"))
    backend = load(asked["backend"], asked["backend_path"])
    needed: list[str] = getattr(backend, "get_requires_for_build_wheel", lambda config=None: [])(
        None
    )
    missing = [line for line in needed if line not in asked["installed"]]
    if missing:
        Path("/out/requires.json").write_text(json.dumps(missing), encoding="utf-8")
        return 3
    backend.build_wheel("/out", None, None)
    return 0


def load(name: str, folders: list[str]) -> Any:
    """The object that `build-backend` names; `backend-path` comes first on the way to it."""
    sys.path[:0] = [str(Path.cwd() / folder) for folder in folders]
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


if __name__ == "__main__":
    sys.exit(main())
