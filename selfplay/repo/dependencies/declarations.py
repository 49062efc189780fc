"""The files in which a Python project says what it needs, each read as text; nothing is executed.

PKG-INFO · pyproject.toml ([project], PEP 735 groups, and the tables of poetry, hatch, pdm, uv and
flit) · *.egg-info/requires.txt · setup.cfg · literals in setup.py · tox.ini · requirements files.
A file that cannot be read says nothing.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Mapping
from email.parser import HeaderParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

from packaging.utils import canonicalize_name

from selfplay.repo.dependencies.pyproject import (
    from_lock,
    from_pyproject,
    lists,
    pythons_in,
    texts,
)
from selfplay.repo.dependencies.requirement_files import (
    FOLDERS,
    REQUIREMENT_FILE,
    from_files,
    from_tox,
    read_ini,
    requirement_lines,
)
from selfplay.repo.dependencies.requirements import (
    Declaration,
    Declared,
    applies,
    parse,
    select,
)

log = logging.getLogger(__name__)
MAX_BYTES = 4 << 20
LOCKS = ("uv.lock", "poetry.lock", "pdm.lock")
EXTRA = re.compile(r"extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")


def read_declared(tree: Path, metadata: Mapping[str, bytes] = MappingProxyType({})) -> Declared:
    """Everything that a source tree declares, and first what its build backend said (`metadata`, by
    path); files are read, never run. What is left out is logged."""
    info = sorted(tree.glob("*.egg-info")) + sorted(tree.glob("src/*.egg-info"))
    told = [text for path, text in metadata.items() if path.endswith("/METADATA")]
    found = [
        *(from_metadata(text.decode("utf-8", "replace")) for text in told),
        from_metadata(_text(tree / "PKG-INFO")),
        from_pyproject(_text(tree / "pyproject.toml")),
    ]
    found += [from_requires_txt(_text(folder / "requires.txt")) for folder in info]
    found += [from_setup_cfg(_text(tree / "setup.cfg")), from_setup_py(_text(tree / "setup.py"))]
    files = {path: _text(tree / path) for path in _requirement_files(tree)}
    known = any(declaration.runtime or declaration.name for declaration in found)
    found += [from_tox(_text(tree / "tox.ini"), files), from_files(files, plain=not known)]
    locks = [from_lock(_text(tree / name)) for name in LOCKS]
    declared = select([*locks, *found])
    for line, reason in declared.skipped.items():
        log.info("%s: not installed: %s: %s", declared.name or tree.name, line, reason)
    return declared


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            return ""
        return path.read_bytes().decode("utf-8", "replace").removeprefix("\ufeff")
    except OSError:
        return ""


def _requirement_files(tree: Path) -> list[str]:
    folders = [tree / folder for folder in FOLDERS]
    files = (file for folder in folders if folder.is_dir() for file in folder.iterdir())
    names = (file.relative_to(tree).as_posix() for file in files if file.is_file())
    return sorted(name for name in names if REQUIREMENT_FILE.fullmatch(name))


def from_metadata(text: str) -> Declaration:
    """PKG-INFO or METADATA: what applies without extras, and what each extra adds."""
    headers = HeaderParser().parsestr(text)
    lines = [str(line) for line in headers.get_all("Requires-Dist", [])]
    extras = [str(extra) for extra in headers.get_all("Provides-Extra", [])]
    extras += [extra for line in lines for extra in EXTRA.findall(line)]
    runtime = tuple(line for line in lines if _holds(line))
    groups = {
        extra: tuple(_bare(line) for line in lines if line not in runtime and _holds(line, extra))
        for extra in dict.fromkeys(extras)
    }
    return Declaration(
        name=str(headers.get("Name", "")).strip(),
        python=str(headers.get("Requires-Python", "")).strip(),
        tried=pythons_in(str(line) for line in headers.get_all("Classifier", [])),
        runtime=runtime,
        groups=groups,
    )


def _holds(line: str, extra: str = "") -> bool:
    requirement = parse(line)
    return not isinstance(requirement, str) and applies(requirement, canonicalize_name(extra))


def _bare(line: str) -> str:
    """Without the marker that was just seen to hold."""
    return line.partition(";")[0].strip()


def from_requires_txt(text: str) -> Declaration:
    """egg-info: lines, then sections [extra], [:marker] and [extra:marker]."""
    groups: dict[str, list[str]] = {"": []}
    lines = groups[""]
    marker = ""
    for line in requirement_lines(text):
        if line.startswith("[") and line.endswith("]"):
            extra, _, marker = line[1:-1].partition(":")
            lines = groups.setdefault(extra, [])
        else:
            lines.append(f"{line}; {marker}" if marker else line)
    runtime = tuple(groups.pop(""))
    return Declaration(
        runtime=runtime, groups={name: tuple(found) for name, found in groups.items()}
    )


def from_setup_cfg(text: str) -> Declaration:
    """[options] and [options.extras_require]; what refers to other files is left out."""
    config = read_ini(text)

    def lines(section: str, key: str) -> tuple[str, ...]:
        value = config.get(section, key, fallback="")
        return tuple(ln for ln in requirement_lines(value) if not ln.startswith("file:"))

    section = "options.extras_require"
    extras = config.options(section) if config.has_section(section) else []
    groups = {name: lines(section, name) for name in extras}
    groups["tests"] = (*groups.get("tests", ()), *lines("options", "tests_require"))
    return Declaration(
        name=config.get("metadata", "name", fallback="").strip(),
        python=config.get("options", "python_requires", fallback="").strip(),
        tried=pythons_in(lines("metadata", "classifiers") or lines("metadata", "classifier")),
        runtime=lines("options", "install_requires"),
        groups=groups,
    )


def from_setup_py(text: str) -> Declaration:
    """Literals that `setup()` is called with, by way of a plain name or not. Never executed."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Declaration()
    known: dict[str, Any] = {}
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = _literal(node.value, known)
    given: dict[str, Any] = {}
    for call in ast.walk(module):
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("setup"):
            given |= {word.arg: _literal(word.value, known) for word in call.keywords if word.arg}
    groups = lists(given["extras_require"]) if isinstance(given.get("extras_require"), dict) else {}
    groups["tests"] = (*groups.get("tests", ()), *texts(given.get("tests_require")))
    name, python = given.get("name"), given.get("python_requires")
    return Declaration(
        name=name if isinstance(name, str) else "",
        python=python if isinstance(python, str) else "",
        tried=pythons_in(texts(given.get("classifiers"))),
        runtime=texts(given.get("install_requires")),
        groups=groups,
    )


def _literal(node: ast.expr, known: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    if isinstance(value, dict):
        return {k: _astexts(v) for k, v in value.items() if isinstance(k, str)}
    return _astexts(value)


def _astexts(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
