"""`selfplay mine`: announced, not there yet; it says so instead of pretending."""

from __future__ import annotations

from collections.abc import Sequence

from selfplay.config import RepoConfig, load_config
from selfplay.errors import UserError

HELP = """
keys: repo=NAME_OR_PATH
Not available in this version: mining bug-fix commits from a history is the next milestone.
"""


def run(overrides: Sequence[str]) -> int:
    """Refuse honestly."""
    config = load_config(RepoConfig, "mine", overrides)
    raise UserError(
        f"mine repo={config.repo}: mining of git histories is not available in this version; "
        "`selfplay inject` makes bugs today"
    )
