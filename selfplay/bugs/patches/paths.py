"""Which paths are tests, and which could change a verdict without mending anything.

A fix may change source files. Test files and their helpers, configuration that steers the test
runner, start-up hooks of the interpreter and modules that would shadow the runner or the standard
library are put back before grading (docs/validation.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path, PurePosixPath

from selfplay.repo.discovery.test_names import USUAL_NAMES, TestNames
from selfplay.sandbox.base import Environment

HOOK_FILES = frozenset(
    {
        "conftest.py",
        "pytest.ini",
        ".pytest.ini",
        "pytest.toml",
        ".pytest.toml",
        "tox.ini",
        "setup.cfg",
        "pyproject.toml",
        "sitecustomize.py",
        "usercustomize.py",
        "pyvenv.cfg",
        "noxfile.py",
        "Makefile",
        ".proverc",
        ".prove",
        ".perlrc",
        "sitecustomize.pl",
    }
)
HOOK_SUFFIXES = (".pth", ".pyc", ".pyo", ".so", ".pyd")
HOOK_FOLDERS = re.compile(r"(^|/)(__pycache__|[^/]*\.(egg-info|dist-info)|\.pytest_cache)(/|$)")
_RUNNER_MODULES = frozenset(
    {"pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup"}
)
_PERL_RUNNER = frozenset({"Test", "Test2", "TAP", "App", "Exporter.pm", "Carp.pm"})
_DOCUMENTS = (".md", ".rst", ".txt", ".adoc")


def is_test_path(
    path: str, test_files: Collection[str] = (), names: TestNames = USUAL_NAMES
) -> bool:
    """Whether a path is an oracle test file or looks like a test or a test's helper.

    names    what the project's own configuration says of names (`test_names`)
    """
    return path in test_files or names(path)


def is_hook_path(path: str) -> bool:
    """Whether a file of this name steers the test runner or the interpreter's start."""
    name = PurePosixPath(path).name
    return name in HOOK_FILES or name.endswith(HOOK_SUFFIXES) or bool(HOOK_FOLDERS.search(path))


def is_source_path(
    path: str, test_files: Collection[str] = (), names: TestNames = USUAL_NAMES
) -> bool:
    """Whether a change of this file counts as a change of source code."""
    if is_test_path(path, test_files, names) or is_hook_path(path):
        return False
    return not path.lower().endswith(_DOCUMENTS)


def is_shadowing(path: str, environment: Environment) -> bool:
    """Whether a *new* file at this path would be imported instead of an installed module."""
    parts = PurePosixPath(path).parts
    if path.endswith((".pm", ".pl")):
        return _shadows_perl(parts)
    if parts[0] in ("src", "lib") and len(parts) > 1:
        parts = parts[1:]
    name = parts[0].split(".", 1)[0]
    if len(parts) == 1 and not parts[0].endswith((".py", ".pyi")):
        return False
    if (environment.tree / parts[0]).is_dir():
        return False
    return name in sys.stdlib_module_names or name in _RUNNER_MODULES | _installed(environment)


def _shadows_perl(parts: tuple[str, ...]) -> bool:
    """Whether a Perl file would be loaded instead of the test runner's or the language's own."""
    inside = PurePosixPath(*(parts[1:] if parts[0] in ("lib", "blib") and parts[1:] else parts))
    if inside.parts[0] in _PERL_RUNNER or (len(inside.parts) == 1 and inside.name[0].islower()):
        return True  # lower case: the language's own pragmas
    return any((folder / inside).exists() for folder in _perl_folders())


@cache
def _perl_folders() -> tuple[Path, ...]:
    """Where this machine keeps Perl's own modules; () without any."""
    usr = Path("/usr")
    patterns = ("share/perl*", "share/perl/*", "lib/*/perl*", "lib/*/perl/*", "lib/*/perl5/*")
    return tuple(folder for pattern in patterns for folder in usr.glob(pattern))


def _installed(environment: Environment) -> set[str]:
    """Top-level names in the mounted package folders."""
    names: set[str] = set()
    for source in environment.mounts:
        folder = Path(source)
        if folder.name.endswith("packages") and folder.is_dir():
            names |= {entry.name.split(".", 1)[0] for entry in folder.iterdir()}
    return names
