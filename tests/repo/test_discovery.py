"""Suites that are not all green: what is good is kept, the rest is listed with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfplay.errors import RepoError
from selfplay.repo.discovery import pytest_run as suite
from selfplay.repo.discovery.discover import discover
from selfplay.sandbox.base import Sandbox
from tests.repo.conftest import MakeEnvironment

pytestmark = pytest.mark.slow

MIXED = """
import os, sys, time, unittest
import pytest
from calc import add, late

def test_good():
    assert add(1, 2) == 3

def test_red():
    assert add(1, 2) == 4, "two words"

def test_flaky():
    assert os.environ["PYTHONHASHSEED"] != "1"

@pytest.mark.skip
def test_skipped():
    pass

@pytest.mark.xfail
def test_expected():
    assert False

@pytest.fixture
def broken():
    raise OSError("no")

def test_error(broken):
    pass

def test_teardown(request):
    request.addfinalizer(lambda: 1 / 0)

def test_crashes():
    os._exit(3)

def test_interrupts():
    raise KeyboardInterrupt

def test_hangs():
    time.sleep(600)

@pytest.mark.parametrize("x", ["a b", "ü/::[é]"])
def test_odd_names(x):
    assert late(x) == x * 2

class TestClass(unittest.TestCase):
    def test_method(self):
        assert add(0, 0) == 0

    def test_subtests(self):
        for i in range(2):
            with self.subTest(i=i):
                self.assertEqual(add(i, 0), 0)
"""
CALC = """
def add(a, b):
    return a + b


def late(x):
    def inner():
        return x + x
    return inner()
"""


def test_red_and_flaky_tests_are_left_out(
    make_environment: MakeEnvironment,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite, "TEST_TIMEOUT_S", 5)
    environment = make_environment(
        {
            "calc.py": CALC,
            "test_mixed.py": MIXED,
            "test_broken.py": "import no_such_module\n",
            "setup.cfg": "[tool:pytest]\naddopts = --no-such-option\n",
        }
    )
    profile = discover(environment, sandbox, tmp_path / "pyc")
    prefix = "test_mixed.py::"
    odd = [test for test in profile.tests if "odd_names" in test]
    assert set(profile.tests) == {prefix + "test_good", prefix + "TestClass::test_method", *odd}
    assert len(odd) == 2
    assert set(profile.tests_reaching("calc.py", "late")) == set(odd)
    assert "test_mixed.py::test_good" in profile.tests_reaching("calc.py", "add")
    assert list(profile.test_files) == ["test_mixed.py"]
    reasons = {test.removeprefix(prefix): why for test, why in profile.excluded.items()}
    assert reasons.pop("test_red").startswith("failing: ")
    assert reasons.pop("test_flaky") == "flaky: passed, then failed"
    assert reasons.pop("test_skipped") == reasons.pop("test_expected") == "skipped"
    assert "no_such_module" in reasons.pop("test_broken.py")
    for name in ("test_error", "test_teardown", "TestClass::test_subtests"):
        assert reasons.pop(name).startswith("failing: "), name
    for name in ("test_crashes", "test_interrupts", "test_hangs"):
        assert reasons.pop(name).startswith("ends the whole run"), name
    assert not reasons
    assert not list((tmp_path / "pyc").rglob("calc*.pyc"))  # a sandbox must not hold the original


def test_file_names_that_only_unittest_would_take(
    make_environment: MakeEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    environment = make_environment(
        {
            "src/calc.py": CALC,
            "testcalc.py": "import sys, unittest\nsys.path.insert(0, 'src')\nfrom calc import add\n"
            "class T(unittest.TestCase):\n    def test_add(self):\n        assert add(1, 1) == 2\n",
        }
    )
    profile = discover(environment, sandbox, tmp_path)
    assert profile.tests_reaching("src/calc.py", "add") == ("testcalc.py::T::test_add",)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"calc.py": CALC}, "none was collected"),
        ({"test_a.py": "def test_a():\n    assert 0\n"}, "failing"),
        ({"conftest.py": "1 / 0\n", "test_a.py": "def test_a(): pass\n"}, "ZeroDivisionError"),
    ],
    ids=["no tests", "all red", "broken conftest"],
)
def test_nothing_to_trust(
    files: dict[str, str],
    reason: str,
    make_environment: MakeEnvironment,
    sandbox: Sandbox,
    tmp_path: Path,
) -> None:
    with pytest.raises(RepoError, match=reason):
        discover(make_environment(files), sandbox, tmp_path)
