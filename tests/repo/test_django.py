"""Projects that Django's own runner tests, with the real Django: settings, applications and test
databases are there before pytest reads the first conftest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.repo.dependencies.inside.django_runner import Runner, labels_of, runner_of
from selfplay.repo.prepare import prepare
from selfplay.repo.spec import LocalSource, RepoSpec
from selfplay.sandbox.base import Sandbox

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = {}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3"}}}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""
MANAGE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of.settings")\n'
MODELS = """
from django.db import models

class Book(models.Model):
    title = models.CharField(max_length=20)

    def loud(self):
        return self.title.upper()
"""
TESTS = """
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from {app}.models import Book

class EmptyTests(TransactionTestCase):
    available_apps = ["{app}"]

    def test_empty(self):
        self.assertEqual(Book.objects.count(), 0)

class BookTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.book = Book.objects.create(title="tea")

    def test_loud(self):
        self.assertEqual(Book.objects.get().loud(), "TEA")

class PlainTests(SimpleTestCase):
    def test_plain(self):
        self.assertEqual(Book(title="a").loud(), "A")
"""
NAMES = ("EmptyTests::test_empty", "BookTests::test_loud", "PlainTests::test_plain")
RUNTESTS = """
from django.apps import apps
from django.conf import settings
import django

def setup_run_tests(verbosity, start_at, start_after, test_labels=None):
    settings.INSTALLED_APPS = []
    django.setup()
    settings.INSTALLED_APPS.extend(test_labels or ["lookup"])
    apps.set_installed_apps(settings.INSTALLED_APPS)
"""
SITE = {
    "manage.py": MANAGE,
    "site_of/__init__.py": "",
    "site_of/settings.py": SETTINGS.format(["books"]),
    "books/__init__.py": "",
    "books/models.py": MODELS,
    "books/tests.py": TESTS.format(app="books"),
}
OWN = {
    "tests/runtests.py": RUNTESTS,
    "tests/test_sqlite.py": SETTINGS.format([]),
    "tests/lookup/__init__.py": "",
    "tests/lookup/models.py": MODELS,
    "tests/lookup/tests.py": TESTS.format(app="lookup"),
}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in {**files, "requirements.txt": "django>=5.2,<5.3\n"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "file"),
    [(SITE, "books/tests.py"), (OWN, "tests/lookup/tests.py")],
    ids=["manage.py", "Django's own"],
)
def test_a_project_of_django(
    files: Mapping[str, str], file: str, sandbox: Sandbox, place: Path, tmp_path: Path
) -> None:
    source = LocalSource(path=str(write(tmp_path, files)))
    prepared = prepare(RepoSpec(name="shop", source=source), sandbox, cache_dir=place)
    tests = {f"{file}::{name}" for name in NAMES}
    assert set(prepared.profile.tests) == tests and not prepared.profile.excluded
    models = file.replace("tests.py", "models.py")
    if not models.startswith("tests/"):
        assert [function.qualname for function in prepared.functions] == ["Book.loud"]
        reached = prepared.profile.tests_reaching(models, "Book.loud")
        assert set(reached) == {f"{file}::{NAMES[1]}", f"{file}::{NAMES[2]}"}
    runner = TestRunner(sandbox, prepared.environment)  # as a bug is validated and graded
    run = runner.run(pytest_script([file]), parser_source("pytest"), {}, timeout_s=60.0)
    assert run.table == dict.fromkeys(tests, "passed")


def test_which_runner(tmp_path: Path) -> None:
    assert runner_of(write(tmp_path / "site", SITE)) == Runner("site_of.settings", ".")
    assert runner_of(write(tmp_path / "own", OWN)) == Runner("test_sqlite", "tests", own=True)
    inner = {f"src/{name}": text for name, text in SITE.items()}
    assert runner_of(write(tmp_path / "inner", inner)) == Runner("site_of.settings", "src")
    assert runner_of(write(tmp_path / "other", {"manage.py": "import os\n"})) is None


def test_labels_are_applications() -> None:
    files = ["tests/lookup/tests.py::A::test_b", "tests/forms_tests", "tests/gis_tests/a/test_x.py"]
    assert labels_of(files) == ["forms_tests", "gis_tests.a", "lookup"]
    assert labels_of(["tests"]) == labels_of([]) == labels_of(["django/test"]) == []
