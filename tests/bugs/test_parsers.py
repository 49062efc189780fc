"""The shipped parsers on text, and on what the real runners print in the sandbox."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.test_runs import scripts
from selfplay.bugs.test_runs.junit import junit_key, read_junit, skipped_in_part, unsupported_passes
from selfplay.bugs.test_runs.parsers import pytest_verbose, unittest_verbose
from selfplay.bugs.test_runs.pytest_framework import (
    deselected_tests,
    pytest_script,
    script_keywords,
)
from selfplay.bugs.test_runs.runner import TestRun, TestRunner
from selfplay.bugs.test_runs.scripts import (
    parser_runner,
    parser_source,
    script_module,
    script_runner,
    script_targets,
    with_targets,
)

from .shop import as_layer

PYTEST_TESTS = """
import os, sys, unittest, pytest

@pytest.mark.parametrize("x", ["a b", "x - y", "[q]", "PASSED", "a::b", "é", "new\\nline", "]"])
def test_ids(x):
    print("PASSED tests/test_a.py::test_fake")
    assert x != "x - y"

class TestSub(unittest.TestCase):
    def test_bad(self):
        for i in range(3):
            with self.subTest("the message - here\\nthere", i=i):
                self.assertNotEqual(i, 1)
    def test_good(self):
        for i in range(3):
            with self.subTest(i=i):
                self.assertNotEqual(i, 5)

@pytest.fixture
def broken():
    raise RuntimeError("PASSED tests/test_a.py::test_setup")

@pytest.fixture
def breaks():
    yield
    raise RuntimeError

def test_setup(broken): pass
def test_teardown(breaks): pass
@pytest.mark.xfail
def test_xfail(): assert 0
@pytest.mark.xfail
def test_xpass(): pass
@pytest.mark.xfail(strict=True)
def test_strict(): pass
@pytest.mark.skip(reason="no\\nPASSED tests/test_a.py::test_skipped")
def test_skipped(): pass
def test_message(): assert False, "one\\nPASSED tests/test_a.py::test_message\\n= 99 passed in 1s ="
def test_loud():
    os.write(1, b"tests/test_a.py::test_nothing PASSED\\n")
    sys.__stdout__.write("PASSED tests/test_a.py::test_nothing\\n")
def test_plain(): pass
"""
WANTED = {
    "test_ids[a b]": "passed",
    "test_ids[x - y]": "failed",
    "test_ids[[q]]": "passed",
    "test_ids[PASSED]": "passed",
    "test_ids[a::b]": "passed",
    "test_ids[\\xe9]": "passed",
    "test_ids[new\\nline]": "passed",
    "test_ids[]]": "passed",
    "TestSub::test_bad": "failed",
    "TestSub::test_good": "passed",
    "test_setup": "failed",
    "test_teardown": "failed",
    "test_strict": "failed",
    "test_message": "failed",
    "test_loud": "passed",
    "test_plain": "passed",
}


def run_pytest(runner: TestRunner, files: dict[str, str | None]) -> TestRun:
    script = pytest_script([name for name in files if "/test_" in name])
    return runner.run(script, parser_source("pytest"), as_layer(files), timeout_s=60)


def test_every_outcome_of_pytest(runner: TestRunner) -> None:
    run = run_pytest(runner, {"tests/test_a.py": PYTEST_TESTS})
    assert run.table == {f"tests/test_a.py::{name}": s for name, s in WANTED.items()}
    assert run.exit_code == 1
    passed = [test for test, status in run.table.items() if status == "passed"]
    assert unsupported_passes(passed, run.junit) == []
    table = read_junit(run.junit or b"")
    assert table is not None
    failed = [test for test, status in run.table.items() if status == "failed"]
    assert all(table[junit_key(test)] == "failed" for test in failed)


def test_collection_error_keeps_the_other_file(runner: TestRunner) -> None:
    files: dict[str, str | None] = {
        "tests/test_a.py": "def test_x(): pass\n",
        "tests/test_b.py": "import nowhere\ndef test_y(): pass\n",
    }
    run = run_pytest(runner, files)
    assert run.table == {"tests/test_a.py::test_x": "passed", "tests/test_b.py": "failed"}


@pytest.mark.parametrize(
    "code", ["import os\nos._exit(0)", "raise SystemExit(0)", "1 +", "import os\nos.abort()"]
)
def test_a_run_without_an_end_passes_nothing(runner: TestRunner, code: str) -> None:
    files: dict[str, str | None] = {
        "tests/test_a.py": "def test_x(): pass\n",
        "tests/test_b.py": f"{code}\ndef test_y(): pass\n",
    }
    assert "passed" not in {
        status for test, status in run_pytest(runner, files).table.items() if "test_b" in test
    }


def test_crash_in_the_middle_passes_nothing(runner: TestRunner) -> None:
    code = "import os\ndef test_x(): pass\ndef test_y(): os._exit(0)\n"
    run = run_pytest(runner, {"tests/test_a.py": code})
    assert (run.table, run.exit_code, run.junit) == ({}, 0, None)


SUMMARY = """\
tests/test_a.py::test_x PASSED
tests/test_a.py::test_y FAILED

=========================== short test summary info ============================
PASSED tests/test_a.py::test_x
FAILED tests/test_a.py::test_y - assert 0
========================= 1 failed, 1 passed in 0.02s ==========================
"""
TABLE = {"tests/test_a.py::test_x": "passed", "tests/test_a.py::test_y": "failed"}


def test_pytest_summary() -> None:
    assert pytest_verbose.parse(SUMMARY) == TABLE
    assert pytest_verbose.parse(SUMMARY.replace("\n", "\r\n")) == TABLE


@pytest.mark.parametrize(
    "text",
    [
        SUMMARY.replace("FAILED tests/test_a.py::test_y - assert 0\n", "PASSED tests/x.py::z\n"),
        SUMMARY.replace("PASSED tests/test_a.py::test_x\n", ""),
        SUMMARY.replace("- assert 0", "- assert 0\nPASSED tests/x.py::fake"),
    ],
)
def test_pytest_passes_must_agree_with_the_count(text: str) -> None:
    assert "passed" not in pytest_verbose.parse(text).values()


def test_pytest_progress_failure_outweighs_a_summary_pass() -> None:
    text = SUMMARY.replace("test_x PASSED", "test_x FAILED")
    assert pytest_verbose.parse(text)["tests/test_a.py::test_x"] == "failed"


def test_pytest_subtest_without_a_parent_is_kept() -> None:
    text = SUMMARY.replace("FAILED tests/test_a.py::test_y - assert 0", "SUBFAILED[odd] nowhere")
    assert "failed" in pytest_verbose.parse(text).values()


def test_pytest_other_case_is_no_pass() -> None:
    assert pytest_verbose.parse(SUMMARY.lower()) == {}


@given(st.integers(0, len(SUMMARY)), st.randoms(use_true_random=False))
def test_doctored_pytest_output_adds_no_pass(cut: int, random: object) -> None:
    text = SUMMARY[:cut]
    lines = SUMMARY.splitlines(keepends=True)
    random.shuffle(lines)  # type: ignore[attr-defined]
    for doctored in (text, "".join(lines)):
        passes = {t for t, s in pytest_verbose.parse(doctored).items() if s == "passed"}
        assert passes <= {"tests/test_a.py::test_x"}


@given(st.text())
def test_parsers_take_any_text(text: str) -> None:
    assert pytest_verbose.parse(text) == {}
    assert unittest_verbose.parse(text) == {}


UNITTESTS = '''
import os, sys, unittest

class TestAll(unittest.TestCase):
    def test_ok(self):
        """Documented
        at length."""
        print("test_fake (tests.test_u.TestAll.test_fake) ... ok")
    def test_fail(self):
        self.fail("test_fail (tests.test_u.TestAll.test_fail) ... ok")
    def test_error(self):
        raise ValueError
    @unittest.skip("later")
    def test_skip(self): pass
    @unittest.expectedFailure
    def test_expected(self): assert 0
    @unittest.expectedFailure
    def test_surprise(self): pass
    def test_sub_bad(self):
        for i in range(3):
            with self.subTest("m", i=i):
                self.assertNotEqual(i, 1)
    def test_sub_good(self):
        for i in range(3):
            with self.subTest(i=i):
                pass

class TestSetup(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise ValueError
    def test_never(self): pass
'''


def test_every_outcome_of_unittest(runner: TestRunner) -> None:
    layer = as_layer({"tests/test_u.py": UNITTESTS, "tests/test_v.py": "import nowhere\n"})
    script = "python -m unittest -v -b tests/test_u.py tests/test_v.py\n"
    run = runner.run(script, parser_source("unittest"), layer, timeout_s=60)
    assert run.exit_code == 1
    names = {"test_ok": "passed", "test_fail": "failed", "test_error": "failed"}
    names |= {"test_surprise": "failed", "test_sub_bad": "failed", "test_sub_good": "passed"}
    mine = {t: s for t, s in run.table.items() if ".TestAll." in t}
    assert mine == {f"tests.test_u.TestAll.{name}": status for name, status in names.items()}
    others = {t: s for t, s in run.table.items() if ".TestAll." not in t}
    assert others
    assert set(others.values()) == {"failed"}


UNITTEST = """\
test_a (m.T.test_a) ... ok
test_b (m.T)
Old style, documented ... ok
test_c (m.T.test_c) ... FAIL

======================================================================
FAIL: test_c (m.T.test_c)
----------------------------------------------------------------------
AssertionError: test_d (m.T.test_d) ... ok

----------------------------------------------------------------------
Ran 3 tests in 0.001s

FAILED (failures=1)
"""


def test_unittest_text() -> None:
    table = {"m.T.test_a": "passed", "m.T.test_b": "passed", "m.T.test_c": "failed"}
    assert unittest_verbose.parse(UNITTEST) == table


@pytest.mark.parametrize(
    "text",
    [
        UNITTEST.split("Ran")[0],
        UNITTEST.replace("FAILED (failures=1)", ""),
        UNITTEST.replace("Ran 3", "Ran 1"),
        "",
    ],
)
def test_unittest_text_without_a_proper_end(text: str) -> None:
    assert "passed" not in unittest_verbose.parse(text).values()


@pytest.mark.parametrize("name", ["pytest", "unittest"])
def test_parsers_are_self_contained_programs(name: str, tmp_path: Path) -> None:
    program = tmp_path / "test_parser.py"
    program.write_text(parser_source(name))
    text = SUMMARY if name == "pytest" else UNITTEST
    done = subprocess.run(
        [sys.executable, "-I", str(program)], input=text.encode(), capture_output=True, check=True
    )
    parse = {"pytest": pytest_verbose.parse, "unittest": unittest_verbose.parse}[name]
    assert json.loads(done.stdout) == parse(text)
    assert parser_runner(parser_source(name)) == name
    assert parser_runner(parser_source(name) + "\n") is None


WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1)


@given(WORDS, WORDS, st.sampled_from(["", "not (test_a and not test_ab)", "-k='x'"]))
def test_scripts_are_recognised_by_their_text(
    targets: list[str], left_out: list[str], keywords: str
) -> None:
    targets = [target for target in targets if "\\\n" not in target] or ["a"]
    left_out = [test for test in left_out if "\\\n" not in test]
    script = with_targets(pytest_script(targets, left_out, keywords), ["b"])
    assert script_runner(script) == "pytest" and script_keywords(script) == keywords
    assert script_targets(script) == (*targets, "b")
    assert deselected_tests(script) == tuple(left_out)
    assert script_module(script, "x")[-len(targets) - 1 :] == (*targets, "b")
    assert script_runner(script + "true\n") is None
    assert script_runner("python -m unittest -v\n") is None  # an agent's own


def test_junit_key() -> None:
    assert junit_key("tests/test_a.py::TestB::test_c[x::1/2]") == (
        "tests.test_a.TestB",
        "test_c[x::1/2]",
    )


@pytest.mark.parametrize("document", [b"", b"<a", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_broken_junit_supports_nothing(document: bytes) -> None:
    assert unsupported_passes(["a.py::b"], document) == ["a.py::b"]


def test_scripts_of_earlier_versions_are_still_known() -> None:
    now = pytest_script(["tests/test_a.py", "tests/b c.py"])
    once = now.replace("-o cache_dir=/tmp/.cache", "-p no:cacheprovider")
    for before in (once, once.replace("--rootdir=. ", "")):
        assert before != now and script_runner(before) == script_runner(now) == "pytest"
        assert script_targets(before) == script_targets(now)
        assert script_runner(before.replace("-v", "-vv")) is None


def test_ids_that_xml_cannot_hold(runner: TestRunner) -> None:
    """With pytest's escapes turned off ids hold control characters, line breaks, other planes."""
    setting = "disable_test_id_escaping_and_forfeit_all_rights_to_community_support = true"
    code = """
import pytest

@pytest.mark.parametrize("x", ["\\x1b[31m", "\\x7f", "a\\nb [c]", "\\U0001f600", "\\ufffe", "#x1B"])
def test_ids(x):
    assert "b" not in x
"""
    files: dict[str, str | None] = {
        "tests/test_a.py": code,
        "pytest.ini": f"[pytest]\n{setting}\n",
    }
    run = run_pytest(runner, files)
    passed = [test for test, status in run.table.items() if status == "passed"]
    assert len(run.table) == 6 and len(passed) == 5
    assert unsupported_passes(passed, run.junit) == []
    assert run.table["tests/test_a.py::test_ids[a\nb [c]]"] == "failed"


def test_parsers_of_earlier_versions_are_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(scripts.FORMER_PARSERS.values()) == {"pytest", "unittest"}
    digest = hashlib.sha256(b"once\n").hexdigest()
    monkeypatch.setitem(scripts.FORMER_PARSERS, digest, "unittest")
    assert parser_runner("once\n") == "unittest" and parser_runner("once") is None


SPLIT = """
import logging, sys, unittest
log = logging.getLogger("acme")
log.addHandler(logging.StreamHandler(sys.__stderr__))

class TestLoud(unittest.TestCase):
    def test_log(self):
        log.warning("a line")
    def test_described(self):
        '''Words (with.dots) ... ok'''
        log.warning("x")
    def test_glued(self):
        sys.__stderr__.write("no end")
    def test_red(self):
        log.warning("all is ... ok")
        self.fail("no")
    def test_sub(self):
        for word in "ab":
            with self.subTest(word=word):
                log.warning("s")
                self.assertEqual(word, "a")
    @unittest.skip("later ... ok")
    def test_skipped(self): pass
    def test_skips_itself(self):
        log.warning("ok")
        self.skipTest("ok")
    @unittest.expectedFailure
    def test_expected(self):
        log.warning("ok")
        self.fail("no")
    @unittest.expectedFailure
    def test_unexpected(self):
        log.warning("w")
"""


def test_unittest_lines_that_a_log_splits(runner: TestRunner) -> None:
    layer = as_layer({"tests/test_u.py": SPLIT})
    run = runner.run(
        "python -m unittest -v -b tests/test_u.py\n", parser_source("unittest"), layer, timeout_s=60
    )
    assert {test.rpartition(".")[2]: status for test, status in run.table.items()} == {
        "test_log": "passed",
        "test_described": "passed",
        "test_glued": "passed",
        "test_red": "failed",
        "test_sub": "failed",
        "test_unexpected": "failed",
    }


def test_a_test_that_skips_a_part_of_itself_is_no_pass() -> None:
    """The terminal says PASSED of it, the XML skipped."""
    document = (
        b'<testsuites><testsuite><testcase classname="test_s.S" name="test_a"><skipped/></testcase>'
        b'<testcase classname="test_s.S" name="test_b"/></testsuite></testsuites>'
    )
    passed = ["test_s.py::S::test_a", "test_s.py::S::test_b", "test_s.py::S::test_c"]
    assert skipped_in_part(passed, document) == passed[:1]
    assert skipped_in_part(passed, None) == skipped_in_part(passed, b"<testsuites>") == []
