"""`prove` as the harness runs it on files that print TAP: its script, and what its output says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from selfplay.repo.discovery.tap import SCRIPT, tap_script

_HEADING = re.compile(r"^\S+\.t \.{2,} ?$", re.MULTILINE)


def tap_targets(script: str) -> tuple[str, ...] | None:
    """The files that a script of ours runs, None for any other text."""
    if not script.startswith(SCRIPT):
        return None
    try:
        files = tuple(shlex.split(script[len(SCRIPT) :].replace(" \\\n", " ")))
    except ValueError:
        return None
    return files if files and tap_script(files) == script else None


def same_on(_: str, targets: Iterable[str]) -> str:
    """A script of ours on other targets."""
    return tap_script(targets)


def tap_excerpt(output: str, size: int) -> str | None:
    """An output without the passes; None for one without the headings of `prove`."""
    if not _HEADING.search(output):
        return None
    kept = "\n".join(line for line in output.splitlines() if not line.startswith("ok "))
    return kept if len(kept) <= size else f"{kept[:size]}\n..."


def tap_target(test: str) -> str:
    """The file of a TAP test id (`t/a.t::name`, or `t/a.t` alone); "" for any other id."""
    path = test.partition("::")[0]
    return path if path.endswith(".t") else ""
