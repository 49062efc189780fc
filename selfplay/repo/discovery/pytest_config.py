"""Which file configures pytest, and what it says of options and names: read as text, never run.

pytest takes the first of `FILES` in the folder where it starts that has a section for it. A
project may configure it in a subfolder instead, from which its own developers start it.
"""

from __future__ import annotations

import configparser
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

FILES = (
    *("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"),
    *("pyproject.toml", "tox.ini", "setup.cfg"),
)
"""In pytest's order."""
PYTHON_FILES = ("test_*.py", "*_test.py")
_SKIPPED = frozenset({"node_modules", "site-packages", "build", "dist", "venv", "__pycache__"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PytestConfig:
    """A configuration file (path relative to the tree, "" for none) and what it says. `keys`: of
    everything that it sets, in capitals."""

    file: str = ""
    addopts: tuple[str, ...] = ()
    python_files: tuple[str, ...] = PYTHON_FILES
    testpaths: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()

    @property
    def folder(self) -> str:
        """Where the file lies, "" for the root."""
        return PurePosixPath(self.file).parent.as_posix().removeprefix(".")


@cache
def root_config(tree: Path) -> PytestConfig:
    """What pytest finds when it is started in the root of a tree."""
    return _config_in(tree, "") or PytestConfig()


@cache
def inner_configs(tree: Path) -> tuple[PytestConfig, ...]:
    """Configurations in subfolders that hold test files, those with the most of them first."""
    found: list[tuple[int, PytestConfig]] = []
    for folder, folders, files in os.walk(tree):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        relative = Path(folder).relative_to(tree).as_posix().removeprefix(".")
        config = _config_in(tree, relative) if relative and set(FILES) & set(files) else None
        num_tests = _num_test_files(Path(folder), config) if config else 0
        if config and num_tests:
            found.append((-num_tests, config))
    return tuple(config for _, config in sorted(found, key=lambda item: (item[0], item[1].file)))


def modules_in(folder: Path) -> Iterator[Path]:
    """Every file below a folder that pytest could collect as a module."""
    return folder.rglob("*.py")


def _num_test_files(folder: Path, config: PytestConfig) -> int:
    return sum(
        any(path.match(pattern) for pattern in config.python_files) for path in modules_in(folder)
    )


def _config_in(tree: Path, folder: str) -> PytestConfig | None:
    for name in FILES:
        path = tree / folder / name
        if path.is_symlink() or not path.is_file():
            continue
        section = _section(path)
        if section is not None:
            return PytestConfig(
                file=PurePosixPath(folder, name).as_posix(),
                addopts=_words(section.get("addopts")),
                python_files=_words(section.get("python_files")) or PYTHON_FILES,
                testpaths=_words(section.get("testpaths")),
                keys=frozenset(key.upper() for key in section),
            )
    return None


def _section(path: Path) -> Mapping[str, Any] | None:
    """pytest's section of a file; {} for its own file that says nothing, None for no section."""
    own = path.name.removeprefix(".").startswith("pytest.")
    try:
        if path.suffix == ".toml":
            document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
            table = document if own else document.get("tool", {})
            section = table.get("pytest")
            if own:
                return section if isinstance(section, dict) else {}
            if not isinstance(section, dict):
                return None
            legacy = section.get("ini_options")
            if len(section) > 1 or legacy is None:
                return section
            return legacy if isinstance(legacy, dict) else {}
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, configparser.Error):
        return {} if own else None
    name = "tool:pytest" if path.name == "setup.cfg" else "pytest"
    if parser.has_section(name):
        return {key: value or "" for key, value in parser.items(name)}
    return {} if own else None


def _words(value: Any) -> tuple[str, ...]:
    """A setting as words: a list's entries, or a text split as a shell would."""
    if isinstance(value, list):
        return tuple(str(word) for word in value)
    try:
        return tuple(shlex.split(value, comments=True)) if isinstance(value, str) else ()
    except ValueError:
        return ()
