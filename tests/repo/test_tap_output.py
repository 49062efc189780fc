"""The TAP parser: what the real `prove` prints, and what may never become a pass."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.repo.discovery import tap_output
from selfplay.repo.discovery.tap import tap_script
from selfplay.repo.discovery.tap_output import parse

GOOD = "use Test::More; ok 1, 'one'; ok 1, 'two'; done_testing;"
REPORT = "\nTest Summary Report\n-------------------\n"


def prove(folder: Path, files: Mapping[str, str]) -> tuple[str, int]:
    """Output and exit status of the shipped script on these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    done = subprocess.run(
        ["sh", "-c", tap_script(files)], cwd=folder, capture_output=True, text=True
    )
    return done.stdout + done.stderr, done.returncode


def table(folder: Path, text: str) -> dict[str, str]:
    """What one file's tests come to, beside a good file that must not suffer."""
    output, code = prove(folder, {"t/good.t": GOOD, "t/x.t": text})
    found = parse(output)
    assert ("failed" in found.values()) <= (code != 0)
    if found:
        assert found["t/good.t::one"] == found["t/good.t::two"] == "passed"
    return {test: status for test, status in found.items() if test.startswith("t/x.t")}


def test_names_directives_and_subtests(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        """use Test::More;
        ok 1, 'same'; ok 1, 'same'; ok 1; is 1, 2, 'a # b'; ok 1, 'é - 1..2 [x]::y';
        TODO: { local $TODO = 'later'; ok 0, 'todo red'; ok 1, 'todo green' }
        SKIP: { skip 'why', 1; ok 1, 'skipped' }
        subtest 'outer' => sub { ok 1, 'inner'; done_testing };
        subtest 'red' => sub { ok 0, 'inner'; done_testing };
        diag 'ok 1 - said'; done_testing;""",
    )
    assert found == {
        "t/x.t::same": "passed",
        "t/x.t::same#2": "passed",
        "t/x.t::(unnamed)": "passed",
        "t/x.t::a # b": "failed",
        "t/x.t::é - 1..2 [x]::y": "passed",
        "t/x.t::outer": "passed",
        "t/x.t::red": "failed",
    }


@pytest.mark.parametrize(
    "text",
    [
        "use Test::More tests => 3; ok 1, 'a'; ok 1, 'b';",
        "use Test::More tests => 1; ok 1, 'a'; ok 1, 'b';",
        "use Test::More; ok 1, 'a';",
        "use Test::More; ok 1, 'a'; die 'x'; done_testing;",
        "use Test::More; ok 1, 'a'; done_testing; exit 3;",
        "use Test::More; ok 1, 'a'; done_testing; kill 9, $$;",
        "use Test::More; ok 1, 'a'; print qq(ok 2 - b\\n); ok 1, 'c'; done_testing;",
        "use Test::More; ok 1, 'a'; ok 0, 'b'; done_testing; exit 7",
        "print qq(ok 1 - a\\n1..1\\nok 2 - b\\n1..2\\n);",
        "print qq(ok 1 - a\\nok 1 - a\\n1..2\\n);",
        "print qq(1..2\\nok 2 - b\\nok 1 - a\\n);",
        "syntax error (",
    ],
)
def test_a_dubious_file_has_no_passes(tmp_path: Path, text: str) -> None:
    found = table(tmp_path, text)
    assert found["t/x.t"] == "failed" and set(found.values()) == {"failed"}


def test_a_fake_heading_voids_everything(tmp_path: Path) -> None:
    fake = "print qq(ok 1 - a\\n1..1\\nok\\nt/other.t .. \\nok 1 - b\\n1..1\\nok\\n);"
    output, code = prove(tmp_path, {"t/good.t": GOOD, "t/x.t": fake})
    assert code != 0 and set(parse(output).values()) == {"failed"}
    harmless = "use Test::More; ok 1, 'a'; print qq(t/good.t .. \\n); done_testing;"
    output, _ = prove(tmp_path, {"t/good.t": GOOD, "t/x.t": harmless})
    assert set(parse(output).values()) == {"failed"}


def test_bail_out_and_no_end_give_nothing(tmp_path: Path) -> None:
    output, _ = prove(
        tmp_path,
        {"t/good.t": GOOD, "t/x.t": "use Test::More; ok 1, 'a'; BAIL_OUT('stop');"},
    )
    assert parse(output) == {}
    output, _ = prove(tmp_path, {"t/good.t": GOOD})
    assert set(parse(output).values()) == {"passed"}
    lines = output.splitlines(keepends=True)
    for end in range(len(lines)):
        assert parse("".join(lines[:end])) == {}


def test_skipped_files_and_shell_scripts(tmp_path: Path) -> None:
    assert table(tmp_path, "use Test::More skip_all => 'no';") == {}
    shell = "#!/bin/sh\necho 1..2\necho 'ok - one'\necho 'not ok - two'\nexit 1\n"
    assert table(tmp_path, shell) == {"t/x.t::one": "passed", "t/x.t::two": "failed"}


LINES = st.sampled_from(
    [
        "ok 1 - one", "ok 2 - two", "not ok 2 - two", "ok", "1..1", "1..2", "t/a.t .. ",
        "t/b.t .. ",
        "t/a.t .. skipped: x", "ok 1 # SKIP x", "not ok 1 - one # TODO x", "# ok 3",
        "    ok 1 - in", "Dubious, test returned 1 (wstat 256, 0x100)", "All tests successful.",
        "Test Summary Report", "t/a.t (Wstat: 0 Tests: 1 Failed: 1)", "Result: PASS",
        "  Parse errors: x", "Files=1, Tests=1,  0 wallclock", "Bail out!", "Result: FAIL", "",
    ]
)  # fmt: skip


@given(st.lists(LINES | st.text(max_size=8), max_size=24))
def test_any_text_is_read_and_passes_need_a_line(lines: list[str]) -> None:
    found = parse("\n".join(lines))
    for test, status in found.items():
        if status == "passed":
            name = test.partition("::")[2].partition("#")[0]
            said = [line for line in lines if line.startswith("ok ") and name in line]
            assert said or name == "(unnamed)"
            assert lines[-1].startswith("Result: ") or not lines[-1].strip()


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_one_changed_line_makes_no_new_pass(passes: list[bool], rng: random.Random) -> None:
    tests = [f"{'' if good else 'not '}ok {i} - t{i}" for i, good in enumerate(passes, 1)]
    failed = passes.count(False)
    report = f"{REPORT}t/a.t (Wstat: {failed << 8} (exited {failed}) Tests: {len(tests)} "
    closing = [f"{report}Failed: {failed})"] if failed else ["ok", "All tests successful."]
    end = [
        f"Files=1, Tests={len(tests)},  0 wallclock secs",
        f"Result: {'FAIL' if failed else 'PASS'}",
    ]
    lines = "\n".join(["t/a.t .. ", *tests, f"1..{len(tests)}", *closing, *end]).split("\n")
    truth = parse("\n".join(lines))
    assert [truth[f"t/a.t::t{i}"] == "passed" for i, _ in enumerate(passes, 1)] == passes
    good = {test for test, status in truth.items() if status == "passed"}
    at = rng.randrange(len(lines))
    for other in (lines[:at] + lines[at + 1 :], [*lines[:at], lines[at], *lines[at:]]):
        found = parse("\n".join(other))
        assert {test for test, status in found.items() if status == "passed"} <= good


def test_it_is_a_program_of_its_own(tmp_path: Path) -> None:
    output, _ = prove(tmp_path, {"t/good.t": GOOD})
    program = [sys.executable, "-I", str(Path(tap_output.__file__))]
    done = subprocess.run(program, input=output, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == parse(output)
