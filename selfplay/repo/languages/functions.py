"""Functions of a source file: the units that bugs are seeded in and solvers are shown."""

from __future__ import annotations

from selfplay.repo.languages.python_functions import FunctionInfo
from selfplay.repo.languages.registry import language_of

__all__ = ["FunctionInfo", "list_functions"]


def list_functions(source: str, path: str) -> list[FunctionInfo]:
    """Functions in source order, by the language that the file's suffix names.

    [] when the file cannot be read for certain.
    """
    return language_of(path).functions(source, path)
