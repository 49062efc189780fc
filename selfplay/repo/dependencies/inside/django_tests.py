"""Runs INSIDE a sandbox, a pytest plugin: what Django's own runner does before the tests, for
projects that are tested by it: those with a `manage.py`, and Django itself (`tests/runtests.py`).

Settings are chosen, applications set up and test databases made before the first conftest is read.
Where no database can be made the tests that need none still run."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

RUNNER = "selfplay_django_runner"
"""Module name under which `django_runner.py` lies beside this one."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: Any, parser: Any, args: list[str]) -> None:
    tree, told = Path.cwd(), importlib.import_module(RUNNER)
    runner = told.runner_of(tree)
    if runner is None or early_config.pluginmanager.has_plugin("django"):  # pytest-django's
        return
    sys.path.insert(0, str(tree / runner.folder))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", runner.settings)
    if runner.own:
        files = early_config.known_args_namespace.file_or_dir
        with warnings.catch_warnings():  # it makes errors of them, for good
            labels = told.labels_of(files)
            importlib.import_module("runtests").setup_run_tests(0, None, None, labels)
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
