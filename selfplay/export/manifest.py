"""`export.json` of an export: what it holds, whose it is, and the hash of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay import __version__
from selfplay.files import write_atomic

MANIFEST = "export.json"


def write_manifest(
    out: Path, format: str, parts: Sequence[str], environments: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write it last. `parts`: files and folders of the export; `environments`: {repository: its
    `environment`, with source and license}.

    Nothing in it depends on the clock: the same export twice is the same bytes.
    """
    found = [path for part in parts for path in (out / part, *(out / part).rglob("*"))]
    files = sorted(path for path in found if path.is_file() and not path.is_symlink())
    document = {
        "format": format,
        "selfplay": __version__,
        "repos": {name: _origin(environments[name]) for name in sorted(environments)},
        "files": {
            p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
        },
    }
    write_atomic(out / MANIFEST, json.dumps(document, indent=1).encode() + b"\n")


def _origin(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "license": environment.get("license") or "unknown",
        "source": environment.get("source"),
        "commit": environment.get("commit"),
    }
