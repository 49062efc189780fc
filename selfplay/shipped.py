"""Where the folders are that travel with the package: `conf/` and `repos/`."""

from __future__ import annotations

import os
from pathlib import Path

from selfplay.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def find_shipped(name: str) -> Path:
    """`name` at the top of a checkout, or within an installed package; $SELFPLAY_NAME goes before.

    Raises `UserError` where it is in none of them.
    """
    variable = f"SELFPLAY_{name.upper()}"
    chosen = os.environ.get(variable)
    checkout, installed = _PACKAGE.parent / name, _PACKAGE / "data" / name
    place = Path(chosen) if chosen else installed if installed.is_dir() else checkout
    if not place.is_dir():
        raise UserError(f"no folder at {place}; set {variable} to a {name}/")
    return place
