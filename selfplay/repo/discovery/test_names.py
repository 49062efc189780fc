"""Which files are tests, by their names: the usual ones, and the project's own configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

from selfplay.repo.discovery.pytest_config import (
    PYTHON_FILES,
    inner_configs,
    modules_in,
    root_config,
)

_FOLDER = re.compile(r"(^|/)(tests?|testing|specs?|__tests__)(/|$)|^x?t(/|$)", re.IGNORECASE)
_FILE = re.compile(
    r"^(test_.*|.*_tests?|tests?)\.(py|pyi|rb|js|ts|go|rs|c|cc|cpp|java|sh|lua|pl|php|ex|exs)$"
    r"|^.*\.(test|spec)\.(js|ts|jsx|tsx|mjs|cjs)$|^conftest\.py$|^.*\.(t|bats)$",
    re.IGNORECASE,
)
_ANY_NAME = "qzx.py"
"""A pattern that this name matches tells nothing."""
_SOURCE_FOLDERS = ("", ".", "src", "lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestNames:
    """What a project adds to the usual names: patterns of files, and folders of tests alone.

    patterns    (folder, pattern as in `python_files`); it holds below that folder
    """

    __test__ = False
    patterns: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()

    def __call__(self, path: str) -> bool:
        """Whether a path looks like a test or a test's helper."""
        pure = PurePosixPath(path)
        folder = pure.parent.as_posix()
        if _FOLDER.search("" if folder == "." else folder) or _FILE.match(pure.name):
            return True
        if any(pure.is_relative_to(place) for place in self.folders):
            return True
        return self.is_module(path)

    def is_module(self, path: str) -> bool:
        """Whether a path fits one of the project's own patterns of test files."""
        pure = PurePosixPath(path)
        return any(pure.is_relative_to(at) and _fits(path, like) for at, like in self.patterns)


USUAL_NAMES = TestNames()


@cache
def test_names(tree: Path) -> TestNames:
    """The names that a tree's own configurations of pytest give to tests."""
    patterns: list[tuple[str, str]] = []
    folders: list[str] = []
    for config in (root_config(tree), *inner_configs(tree)):
        named = [p for p in config.python_files if not fnmatchcase(_ANY_NAME, p)]
        patterns += [(config.folder, pattern) for pattern in named if pattern not in PYTHON_FILES]
        for testpath in config.testpaths:
            folder = PurePosixPath(config.folder, testpath).as_posix()
            if testpath not in _SOURCE_FOLDERS and _holds_tests_alone(
                tree, folder, named, len(named) < len(config.python_files)
            ):
                folders.append(folder)
    return TestNames(patterns=tuple(patterns), folders=tuple(folders))


test_names.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


def _holds_tests_alone(tree: Path, folder: str, patterns: Iterable[str], any_name: bool) -> bool:
    """Whether a folder of `testpaths` is one of tests, not of sources that hold tests.

    At least half of its files are named as tests are, those in further folders of tests left out: a
    package may hold as many tests as modules. Where any name will do, there is no such folder.
    """
    place = tree / folder
    if not re.fullmatch(r"[\w./-]+", folder) or not place.is_dir():
        return False
    files = [file.relative_to(place).as_posix() for file in modules_in(place)]
    files = [file for file in files if not file.endswith(("__init__.py", "conftest.py"))]
    if any_name:
        return bool(files) and not any(USUAL_NAMES(file) for file in files)
    files = [file for file in files if not _FOLDER.search(str(PurePosixPath(file).parent))]
    tests = [file for file in files if any(_fits(file, pattern) for pattern in patterns)]
    return bool(files) and 2 * len(tests) >= len(files)


def _fits(path: str, pattern: str) -> bool:
    """As pytest matches: a pattern without a slash is for the name alone."""
    if "/" in pattern:
        return fnmatchcase(f"/{path}", f"*/{pattern}")
    return fnmatchcase(PurePosixPath(path).name, pattern)
