"""Texts whose examples are tests (`README.rst::README.rst`): each file is one doctest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.patches.layers import read_file
from selfplay.types import FileChange, Layer


def without_tests(tree: Path, tests: Iterable[str]) -> Layer:
    """The files of these tests, emptied."""
    paths = dict.fromkeys(test.partition("::")[0] for test in tests)
    return {path: FileChange(content=b"") for path in paths if read_file(tree, {}, path)}
