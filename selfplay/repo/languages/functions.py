"""Functions of a source file: the units that bugs are seeded in and solvers are shown."""

from __future__ import annotations

from selfplay.repo.languages import perl_source
from selfplay.repo.languages.perl_functions import list_perl_functions
from selfplay.repo.languages.python_functions import FunctionInfo, list_python_functions

__all__ = ["SOURCE_SUFFIXES", "FunctionInfo", "list_functions"]
SOURCE_SUFFIXES = (".py", *perl_source.SUFFIXES)
"""Files in which functions are looked for."""


def list_functions(source: str, path: str) -> list[FunctionInfo]:
    """Functions in source order, by the language that the file's suffix names; else as Python.

    [] when the file cannot be read for certain.
    """
    if path.endswith(perl_source.SUFFIXES):
        return list_perl_functions(source, path)
    return list_python_functions(source, path)
