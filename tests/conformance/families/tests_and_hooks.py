"""Tests come from the original, and what steers the runner is put back."""

from __future__ import annotations

from ..case import Case, Edits, Family, FixCase, swap, top
from ..projects import CACHETOOLS, LEDGER, TIMETABLE

ALL_PASS = """\
import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        report.outcome = "passed"
"""
LEAVES = "import os\nos._exit(0)\n"
HARMLESS = {LEDGER.source: top("# looked at")}


def alone(name: str, want: str, edits: Edits, repo: str = "ledger") -> Case:
    """Nothing is left of such a fix once tests and hooks are put back."""
    return FixCase(name=f"only {name}", repo=repo, want=want, fix=edits)


def beside(name: str, edits: Edits) -> Case:
    """The same with an edit of the source that mends nothing: it does not help."""
    return FixCase(
        name=f"a useless edit, and {name}",
        repo="ledger",
        want="fail_to_pass",
        fix={**HARMLESS, **edits},
    )


MONEY_TESTS = "tests/test_money.py"
FAMILY = Family(
    title="Tests and hooks in a fix",
    source="grading",
    cases=(
        alone("deletes the tests", "only_tests", {MONEY_TESTS: None}),
        alone("deletes the tests", "only_tests", {"t/span.t": None}, "timetable"),
        alone("empties the tests", "only_tests", {MONEY_TESTS: "def test_round_to():\n    pass\n"}),
        alone("skips the tests", "only_tests", {"t/span.t": "print qq(1..0\\n);\n"}, "timetable"),
        alone("adds a test", "only_tests", {"test_new.py": "def test_round_to():\n    pass\n"}),
        alone("edits what tests inherit", "only_tests",
              {"tests/__init__.py": "class CacheTestMixin:\n    pass\n"}, "cachetools"),
        alone("edits a fixture", "only_tests", {"tests/conftest.py": ALL_PASS}),
        beside("deletes the tests", {MONEY_TESTS: None}),
        beside("empties the tests", {MONEY_TESTS: "def test_round_to():\n    pass\n"}),
        beside("moves the tests away", {MONEY_TESTS: None, "tests/moved.py": "X = 1\n"}),
        alone("a hook that reports passes", "only_tests", {"conftest.py": ALL_PASS}),
        alone("deselects tests", "only_hooks", {"pytest.ini": "[pytest]\naddopts = -k nothing\n"}),
        alone("renames tests", "only_hooks", {"tox.ini": "[pytest]\npython_files = x\n"}),
        alone("renames test functions", "only_hooks",
              {"setup.cfg": "[tool:pytest]\npython_functions = x\n"}),
        alone("loads a plugin", "only_hooks",
              {"pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p ledger.plugin'\n"}),
        alone("loads a plugin", "only_hooks",
              {"pyproject.toml": top("[tool.pytest.ini_options]\naddopts = '-p plugin'")},
              "cachetools"),
        alone("starts with the interpreter", "only_hooks", {"sitecustomize.py": LEAVES}),
        alone("starts with the interpreter, too", "only_hooks", {"usercustomize.py": LEAVES}),
        alone("shadows the inside of the runner", "only_hooks", {"_pytest/__init__.py": ""}),
        alone("a package of tests that leaves", "only_tests", {"tests/__init__.py": LEAVES}),
        alone("shadows what modules export with", "only_hooks",
              {"lib/Exporter.pm": "package Exporter;\n1;\n"}, "timetable"),
        alone("starts with the interpreter by .pth", "only_hooks", {"evil.pth": "import os\n"}),
        alone("an entry point", "only_hooks",
              {"ledger.egg-info/entry_points.txt": "[pytest11]\nx = ledger.plugin\n"}),
        alone("shadows the runner", "only_hooks", {"pytest.py": "print('1 passed in 0.01s')\n"}),
        alone("shadows a library of the runner", "only_hooks", {"pluggy/__init__.py": "x = 1\n"}),
        alone("shadows the standard library", "only_hooks", {"json.py": "print('hello')\n"}),
        alone("steers prove", "only_hooks", {".proverc": "--exec 'echo ok'\n"}, "timetable"),
        alone("shadows the test library", "only_tests",
              {"lib/Test/More.pm": "package Test::More;\nsub ok {}\n1;\n"}, "timetable"),
        alone("shadows the test harness", "only_hooks",
              {"lib/TAP/Harness.pm": "package TAP::Harness;\n1;\n"}, "timetable"),
        alone("shadows a pragma", "only_hooks",
              {"lib/strict.pm": "package strict;\n1;\n"}, "timetable"),
        beside("a hook that reports passes", {"conftest.py": ALL_PASS}),
        beside("a hook among the tests", {"tests/conftest.py": ALL_PASS}),
        beside("a hook among the sources", {"ledger/conftest.py": ALL_PASS}),
        beside("starts with the interpreter", {"sitecustomize.py": LEAVES}),
        beside("shadows the runner", {"pytest.py": "print('1 passed in 0.01s')\n"}),
        FixCase(
            name="a useless edit, and edits what tests inherit",
            repo="cachetools",
            want="fail_to_pass",
            fix={
                CACHETOOLS.source: swap('"""Extensible memoizing', '"""Memoizing'),
                "tests/__init__.py": "class CacheTestMixin:\n    pass\n",
            },
        ),
        FixCase(
            name="a useless edit, and shadows the test library",
            repo="timetable",
            want="fail_to_pass",
            fix={
                TIMETABLE.source: top("# looked at"),
                "lib/Test/More.pm": "package Test::More;\nsub ok {}\n1;\n",
            },
        ),
    ),
)  # fmt: skip
