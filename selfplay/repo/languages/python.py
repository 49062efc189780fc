"""Python: parsed by the compiler's own parser."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from selfplay.repo.languages.python_functions import FunctionInfo, list_python_functions
from selfplay.repo.languages.python_modules import shadows_module
from selfplay.repo.languages.python_source import code_dump, parse, same_code, without_bodies
from selfplay.sandbox.base import Environment

_STEERING = frozenset(
    {
        *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini"),
        *("setup.cfg", "pyproject.toml", "sitecustomize.py", "usercustomize.py", "pyvenv.cfg"),
        "noxfile.py",
    }
)
_LOADED = (".pth", ".pyc", ".pyo", ".so", ".pyd")
_FOLDERS = re.compile(r"(^|/)(__pycache__|[^/]*\.(egg-info|dist-info)|\.pytest_cache)(/|$)")
_BUILD_FILES = frozenset({"conftest.py", "setup.py", "noxfile.py", "tasks.py"})


class Python:
    """Modules and stubs; bugs are seeded in modules alone."""

    name = "Python"
    suffixes = (".py", ".pyi")

    def is_source(self, path: str) -> bool:
        """Modules that are no tests by their names and do not build the project."""
        name = PurePosixPath(path).name.lower()
        return path.endswith(".py") and name not in _BUILD_FILES and not name.endswith("_test.py")

    def functions(self, source: str, path: str) -> list[FunctionInfo]:
        """Top-level functions and methods; [] when the file does not parse."""
        return list_python_functions(source, path)

    def is_valid(self, source: str) -> bool:
        """Whether it parses."""
        return parse(source) is not None

    def same_code(self, left: str, right: str) -> bool:
        """Whether the syntax trees are equal but for docstrings; False where one does not parse."""
        return same_code(left, right)

    def normal_form(self, source: str) -> str:
        """The syntax tree without docstrings; the text where it does not parse."""
        module = parse(source)
        return source if module is None else code_dump(module)

    def without_bodies(self, source: str) -> str | None:
        """Functions and methods raise NotImplementedError; documentation stays."""
        return without_bodies(source)

    def steers(self, path: str) -> bool:
        """pytest's settings, start-up hooks of the interpreter, byte code and compiled modules."""
        name = PurePosixPath(path).name
        return name in _STEERING or name.endswith(_LOADED) or bool(_FOLDERS.search(path))

    def shadows(self, path: str, environment: Environment) -> bool:
        """Modules of the standard library, of pytest, and installed ones."""
        return shadows_module(path, environment)
