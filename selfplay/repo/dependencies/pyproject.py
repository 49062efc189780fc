"""What a pyproject.toml says that a project needs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from packaging.utils import canonicalize_name

from selfplay.repo.dependencies.requirements import Declaration

PLAIN_KEYS = {"version", "extras", "python"}
"""Keys of a poetry dependency that comes from the index and is not optional."""
PYTHON = re.compile(r"Programming Language :: Python :: ([23]\.\d+)")
Groups = dict[str, tuple[str, ...]]


def from_pyproject(text: str) -> Declaration:
    """[project] with its extras, dependency groups, and the older tables of the build tools."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return Declaration()
    project, tool = _table(document, "project"), _table(document, "tool")
    poetry, flit = _table(tool, "poetry"), _table(tool, "flit", "metadata")
    groups = _joined(
        lists(_table(project, "optional-dependencies")),
        dependency_groups(_table(document, "dependency-groups")),
        lists(_table(flit, "requires-extra")),
        lists(_table(tool, "pdm", "dev-dependencies")),
        {"dev": texts(_table(tool, "uv").get("dev-dependencies"))},
        {"dev": _names(_table(poetry, "dev-dependencies"))},
        *({k: _names(_table(v, "dependencies"))} for k, v in _table(poetry, "group").items()),
        *(lists(_hatch(k, _table(v))) for k, v in _table(tool, "hatch", "envs").items()),
    )
    return Declaration(
        name=str(project.get("name") or poetry.get("name") or ""),
        python=str(project.get("requires-python") or flit.get("requires-python") or ""),
        tried=pythons_in(
            texts(project.get("classifiers"))
            or texts(poetry.get("classifiers"))
            or texts(flit.get("classifiers"))
        ),
        runtime=(
            *texts(project.get("dependencies")),
            *_names(_table(poetry, "dependencies")),
            *texts(flit.get("requires")),
        ),
        groups=groups,
    )


def from_lock(text: str) -> Declaration:
    """uv.lock, poetry.lock or pdm.lock: the version of pytest with which the tests were written.

    Of the others what is declared counts: a lock is of one day and one set of platforms.
    """
    try:
        packages = tomllib.loads(text).get("package")
    except (tomllib.TOMLDecodeError, RecursionError):
        return Declaration()
    tables = map(_table, packages) if isinstance(packages, list) else ()
    found = [str(t.get("version", "")) for t in tables if t.get("name") == "pytest"]
    lines = tuple(f"pytest=={version}" for version in found if len(found) == 1)
    return Declaration(groups={"test": lines} if lines else {})


def pythons_in(classifiers: Iterable[str]) -> tuple[str, ...]:
    """Versions of Python 2 and 3 that classifiers name, such as "3.8"."""
    found = (PYTHON.fullmatch(line.strip()) for line in classifiers)
    return tuple(match[1] for match in found if match)


def _joined(*tables: Groups) -> Groups:
    """Groups of the same name, whatever its spelling, one after the other; none that is empty."""
    found: Groups = {}
    for name, lines in (item for table in tables for item in table.items()):
        key = canonicalize_name(name)
        if lines:
            found[key] = (*found.get(key, ()), *lines)
    return found


def _hatch(name: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("dependencies", "extra-dependencies")
    return {name: [line for key in keys for line in texts(environment.get(key))]}


def dependency_groups(table: Mapping[str, Any]) -> Groups:
    """PEP 735: `{include-group = "x"}` stands for the lines of group x; a circle ends there."""
    by_name: dict[str, Any] = {canonicalize_name(name): items for name, items in table.items()}

    def lines(name: str, above: tuple[str, ...]) -> Iterator[str]:
        items = by_name.get(name, [])
        for item in items if isinstance(items, list) and name not in above else []:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict) and isinstance(item.get("include-group"), str):
                yield from lines(canonicalize_name(item["include-group"]), (*above, name))

    return {name: tuple(dict.fromkeys(lines(name, ()))) for name in by_name}


def _table(value: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def lists(table: Mapping[str, Any]) -> Groups:
    return {name: texts(items) for name, items in table.items()}


def _names(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Poetry's tables: versions are in a notation of its own, so names alone are taken."""
    return tuple(
        name
        for name, value in table.items()
        if name.lower() != "python"
        and (isinstance(value, str) or (isinstance(value, dict) and set(value) <= PLAIN_KEYS))
    )
