"""Where repositories, models and interpreters are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from selfplay.errors import UserError
from selfplay.files import at_home


def cache_place() -> Path:
    """Where repositories, models and interpreters are kept; nothing needs to be there yet. Raises
    `UserError` where nobody can tell."""
    chosen = os.environ.get("SELFPLAY_CACHE")
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/selfplay")
    base = os.environ.get("XDG_CACHE_HOME") or at_home("~/.cache")
    if base.startswith("~"):
        raise UserError(
            f"user {os.geteuid()} has no home directory here (HOME is not set): name a writable "
            "cache directory in SELFPLAY_CACHE"
        )
    return Path(base).absolute() / "selfplay"


def cache_root() -> Path:
    """`cache_place`, made where it is not there; readable by the sandbox's uid."""
    root = cache_place()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the cache directory {root} ({error.strerror}): "
            "name a writable one in SELFPLAY_CACHE"
        ) from error
    return root
