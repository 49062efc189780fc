"""What ran, where, and from which code."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfplay import __version__


def describe_try(number: int) -> dict[str, Any]:
    """What ran, where: version, commit of a checkout (None for an installed package), machine."""
    return {
        "try": number,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        **code_state(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "wall_s": 0.0,
    }


def code_state(root: Path) -> dict[str, Any]:
    """`commit` and `dirty` of the checkout at `root`; None where it is no checkout."""
    unknown: dict[str, Any] = {"commit": None, "dirty": None}
    if not (root / ".git").exists():
        return unknown

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return unknown
