"""What no training data may hold: the projects of the shipped held-out suites."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.files import read_json_lines
from selfplay.repo.spec import projects_of, spec_from
from selfplay.shipped import find_shipped

_RELEASE = re.compile(r"[-_.@]v?\d[\w.+-]*$|@.*$")


@cache
def held_out_projects() -> frozenset[str]:
    """Names of the projects of `repos/suites/heldout*.jsonl`; of an installation without them
    none."""
    found: set[str] = set()
    for file in sorted((find_shipped("repos") / "suites").glob("heldout*.jsonl")):
        sources: dict[str, Mapping[str, Any]] = {}
        for _, line in read_json_lines(file):
            sources.setdefault(line["repo"].partition("@")[0], line["environment"])
        for name, environment in sources.items():
            found |= projects_of(spec_from(name, environment))
    return frozenset(found)


def refuse_held_out(key: str, names: Iterable[str], paths: Iterable[str] = ()) -> None:
    """Raises `UserError` where a repository, package or folder is one of them, whatever release or
    commit its name tells, or where a file lies in the package of one."""
    seen = {name: plain(Path(name).name) for name in names}
    seen |= {path: package_of(path) for path in paths}
    wrong = sorted(name for name, project in seen.items() if project in held_out_projects())
    if wrong:
        raise UserError(
            f"{key}: {', '.join(wrong[:5])}: held-out suites stand on "
            f"{seen[wrong[0]]}, so that nothing may learn from it; leave it out"
        )


def plain(name: str) -> str:
    """A project's name as `projects_of` spells it, without a release or commit."""
    name = re.sub(r"[._-]+", "-", _RELEASE.sub("", name)).lower()
    return name.removeprefix("python-").removesuffix("-git")


def package_of(path: str) -> str:
    """The package that a file of a repository lies in; "" for a file that lies in none."""
    parts = [part for part in Path(path).parts if part not in ("src", "lib")]
    return plain(parts[0]) if len(parts) > 1 else ""
