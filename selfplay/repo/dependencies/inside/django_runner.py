"""How Django's own runner would be started in a tree, read off its text.

Used on the host by discovery, and INSIDE a sandbox by `django_tests.py`, beside which it lies
there: nothing but the standard library is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""")
_OWN = "tests/runtests.py"


@dataclass(frozen=True)
class Runner:
    """Settings module, the folder from which it is imported, and whether it is Django's own."""

    settings: str
    folder: str
    own: bool = False


def runner_of(tree: Path) -> Runner | None:
    """How Django's runner would be started in a tree; None where nothing says so."""
    if "def setup_run_tests(" in _text(tree / _OWN):
        return Runner(settings="test_sqlite", folder="tests", own=True)
    for file in [tree / "manage.py", *sorted(tree.glob("*/manage.py"))]:
        found = _SETTINGS.search(_text(file))
        if found:
            folder = file.parent.relative_to(tree).as_posix()
            return Runner(settings=found[1], folder=folder)
    return None


def labels_of(files: Iterable[str]) -> list[str]:
    """Django's own name for each application of its tests that a run names; [] for all of them."""
    labels = set()
    for file in files:
        parts = PurePosixPath(file.partition("::")[0]).parts
        if len(parts) < 2 or parts[0] != "tests":
            return []
        nested = parts[1] == "gis_tests" and len(parts) > 3
        labels.add(".".join(parts[1:3]) if nested else parts[1])
    return sorted(labels)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
