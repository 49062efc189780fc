"""Where repositories, models and interpreters are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from selfplay.errors import UserError


def cache_root() -> Path:
    """Where repositories, models and interpreters are kept; readable by the sandbox's uid."""
    chosen = os.environ.get("SELFPLAY_CACHE")
    if chosen:
        root = Path(chosen).absolute()
    elif os.geteuid() == 0:
        root = Path("/var/cache/selfplay")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        root = Path(base).absolute() / "selfplay"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the cache directory {root} ({error.strerror}): "
            "name a writable one in SELFPLAY_CACHE"
        ) from error
    return root
