"""Which paths are tests, and which could change a verdict without mending anything.

A fix may change source files. Test files and their helpers, configuration that steers the test
runner, start-up hooks of the interpreter and modules that would shadow the runner or the standard
library are put back before grading (docs/validation.md).
"""

from __future__ import annotations

from collections.abc import Collection

from selfplay.repo.discovery.test_names import USUAL_NAMES, TestNames
from selfplay.repo.languages.registry import LANGUAGES, language_of
from selfplay.sandbox.base import Environment

_DOCUMENTS = (".md", ".rst", ".txt", ".adoc")


def is_test_path(
    path: str, test_files: Collection[str] = (), names: TestNames = USUAL_NAMES
) -> bool:
    """Whether a path is an oracle test file or looks like a test or a test's helper.

    names    what the project's own configuration says of names (`test_names`)
    """
    return path in test_files or names(path)


def is_hook_path(path: str) -> bool:
    """Whether a file of this name steers a test runner or an interpreter's start."""
    return any(language.steers(path) for language in LANGUAGES)


def is_source_path(
    path: str, test_files: Collection[str] = (), names: TestNames = USUAL_NAMES
) -> bool:
    """Whether a change of this file counts as a change of source code."""
    if is_test_path(path, test_files, names) or is_hook_path(path):
        return False
    return not path.lower().endswith(_DOCUMENTS)


def is_shadowing(path: str, environment: Environment) -> bool:
    """Whether a *new* file at this path would be loaded instead of an installed module."""
    return language_of(path).shadows(path, environment)
