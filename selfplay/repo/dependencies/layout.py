"""Where in a tree the modules of its wheel come from.

Example: a wheel with `pkg/a.py` and `pkg/_version.py`, a tree with `lib/pkg/a.py`
-> root "lib", and `lib/pkg/_version.py` is missing.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

USUAL = ("src", "")
"""Preferred where several folders hold the same files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`roots`: folders that modules are imported from, relative to the tree, "" for itself;
    `aliases`: {package: folder of another name}; `missing`: {path in the tree: content} of what
    the wheel holds and the tree does not."""

    roots: tuple[str, ...]
    aliases: Mapping[str, str]
    missing: Mapping[str, bytes]


def find_layout(tree: Path, code: Mapping[str, bytes]) -> Layout:
    """Compare the files of a wheel (path -> content) with those of the tree."""
    places = _places(tree)
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for path, content in code.items():
        package = path.split("/", 1)[0]
        for found in places.get(PurePosixPath(path).name, ()):
            if found == path or found.endswith(f"/{path}"):
                votes[package][found[: -len(path)].rstrip("/")] += 1
                continue
            inner = path.partition("/")[2]  # names first: of some there are thousands
            named = inner and (found == inner or found.endswith(f"/{inner}"))
            if named and (tree / found).read_bytes() == content:
                votes[package][f"={found[: -len(inner)].rstrip('/')}"] += 1
    roots: list[str] = []
    aliases: dict[str, str] = {}
    missing: dict[str, bytes] = {}
    for package in dict.fromkeys(path.split("/", 1)[0] for path in code):
        chosen = _chosen(votes[package])
        if chosen is None:
            continue
        if chosen.startswith("="):
            aliases[package] = chosen[1:]
        elif chosen not in roots:
            roots.append(chosen)
        for path, content in code.items():
            if path.split("/", 1)[0] == package:
                place = _place(path, chosen)
                if not (tree / place).exists():
                    missing[place] = content
    return Layout(roots=tuple(roots), aliases=aliases, missing=missing)


def _place(path: str, chosen: str) -> str:
    if chosen.startswith("="):
        path, chosen = path.split("/", 1)[1], chosen[1:]
    return f"{chosen}/{path}" if chosen else path


def _chosen(votes: Counter[str]) -> str | None:
    """The folder that explains most files; a folder of the package's own name before an alias."""
    if not votes:
        return None

    def key(folder: str) -> tuple[bool, int, bool, int]:
        return folder.startswith("="), -votes[folder], folder not in USUAL, len(folder)

    return min(votes, key=key)


def _places(tree: Path) -> dict[str, list[str]]:
    """Paths of the tree's plain files by their names; links are not followed."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder, _, files in os.walk(tree):
        for name in files:
            file = Path(folder) / name
            if not file.is_symlink():
                found[name].append(file.relative_to(tree).as_posix())
    return found
