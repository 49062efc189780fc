"""Runs INSIDE a sandbox, a pytest plugin: what Django's own runner does before the tests, for
projects that are tested by it: those with a `manage.py`, and Django itself (`tests/runtests.py`).

Settings are chosen, applications set up and test databases made before the first conftest is read.
Where no database can be made the tests that need none still run. `runner_of` reads text alone, so
that discovery may ask it, too."""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""")
_OWN = "tests/runtests.py"


@dataclass(frozen=True)
class Runner:
    """Settings module, the folder from which it is imported, and whether it is Django's own."""

    settings: str
    folder: str
    own: bool = False


def runner_of(tree: Path) -> Runner | None:
    """How Django's runner would be started in a tree; None where nothing says so."""
    if "def setup_run_tests(" in _text(tree / _OWN):
        return Runner(settings="test_sqlite", folder="tests", own=True)
    for file in [tree / "manage.py", *sorted(tree.glob("*/manage.py"))]:
        found = _SETTINGS.search(_text(file))
        if found:
            folder = file.parent.relative_to(tree).as_posix()
            return Runner(settings=found[1], folder=folder)
    return None


def labels_of(files: Iterable[str]) -> list[str]:
    """Django's own name for each application of its tests that a run names; [] for all of them."""
    labels = set()
    for file in files:
        parts = PurePosixPath(file.partition("::")[0]).parts
        if len(parts) < 2 or parts[0] != "tests":
            return []
        nested = parts[1] == "gis_tests" and len(parts) > 3
        labels.add(".".join(parts[1:3]) if nested else parts[1])
    return sorted(labels)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: Any, parser: Any, args: list[str]) -> None:
    tree = Path.cwd()
    runner = runner_of(tree)
    if runner is None or early_config.pluginmanager.has_plugin("django"):  # pytest-django's
        return
    sys.path.insert(0, str(tree / runner.folder))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", runner.settings)
    if runner.own:
        files = early_config.known_args_namespace.file_or_dir
        with warnings.catch_warnings():  # it makes errors of them, for good
            importlib.import_module("runtests").setup_run_tests(0, None, None, labels_of(files))
    else:
        importlib.import_module("django").setup()
    _make_databases()


def _make_databases() -> None:
    settings = importlib.import_module("django.conf").settings
    if not hasattr(settings, "TEST_RUNNER"):
        settings.TEST_RUNNER = "django.test.runner.DiscoverRunner"
    get_runner = importlib.import_module("django.test.utils").get_runner
    runner = get_runner(settings)(verbosity=0, interactive=False)
    runner.setup_test_environment()
    try:
        runner.setup_databases()
    except Exception as error:  # a server that is not there, or a bug in the tree
        sys.stderr.write(f"no test database: {type(error).__name__}: {error}\n")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Within a file, tests that empty the database come behind those that count on it, as in
    Django's own order."""
    if "django.test" not in sys.modules:
        return
    kinds = importlib.import_module("django.test")
    places = {item.nodeid.partition("::")[0]: None for item in items}
    order = {file: number for number, file in enumerate(places)}

    def key(item: Any) -> tuple[int, int]:
        cls = getattr(item, "cls", None) or object
        rank = 0 if issubclass(cls, kinds.TestCase) else 2
        if rank and issubclass(cls, kinds.SimpleTestCase):
            rank = 1
        return order[item.nodeid.partition("::")[0]], rank

    items.sort(key=key)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
