"""Lines that the failing tests run: recorded in a real sandbox, ranked, named in the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.grading.public_tests import public_tests
from selfplay.bugs.sealing import seal
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import pytest_script, runner_script
from selfplay.bugs.test_runs.spectrum import Spectrum, SpectrumRecorder, read_lines
from selfplay.compact.edits import Excerpt, Listing
from selfplay.compact.localization import suspect_lines
from selfplay.config import ScaffoldConfig
from selfplay.errors import SandboxError
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.compact.solver import CompactSolver
from selfplay.sandbox.base import Job, RunResult
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import FileChange, Layer, SolveTask
from tests.counting import Counting

CORE = "pkg/core.py"
TESTS = "tests/test_core.py"
HIGH = "tests/test_core.py::test_clamp[9-2]"
OTHERS = tuple(f"tests/test_core.py::test_clamp[{p}]" for p in ("-1-0", "0-0", "1-1"))


def record(
    runner: TestRunner, script: str, layer: Mapping[str, FileChange] | None = None
) -> Spectrum:
    """Of one failing and three passing tests, by a recorder that keeps nothing from before."""
    return SpectrumRecorder(runner).record(
        "a bug", script, dict(layer or {}), failing=(HIGH,), passing=OTHERS, timeout_s=30
    )


def line_of(prepared: PreparedRepo, text: str) -> int:
    """1-based number of the first line of the sources that holds a text."""
    lines = prepared.source(CORE).split("\n")
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.fixture(scope="module")
def recorded(prepared: PreparedRepo, runner: TestRunner) -> Spectrum:
    return record(runner, pytest_script([TESTS]))


def test_score_by_hand() -> None:
    found = Spectrum(lines={"a.py": {3: (2, 6), 4: (4, 0), 5: (0, 9)}}, num_failing=4)
    assert found.suspicion("a.py", 3) == pytest.approx(2 / (4 * 8) ** 0.5)
    assert found.suspicion("a.py", 4) == 1.0
    assert found.suspicion("a.py", 5) == found.suspicion("a.py", 6) == 0.0
    assert found.suspicion("b.py", 3) == 0.0
    assert found.peak("a.py", 3, 5) == (1.0, 4), "the first line is the head of the function"
    assert found.peak("a.py", 4, 5) == found.peak("b.py", 1, 9) == (0.0, 0)
    equal = Spectrum(lines={"a.py": {5: (1, 0), 4: (1, 0)}}, num_failing=1)
    assert equal.peak("a.py", 3, 5) == (1.0, 4), "of equal lines the first"


def test_tests_are_counted_line_by_line(recorded: Spectrum, prepared: PreparedRepo) -> None:
    lines = recorded.lines[CORE]
    assert lines[line_of(prepared, "if x < low")] == (1, 3)
    assert lines[line_of(prepared, "if x > high")] == (1, 2)
    assert lines[line_of(prepared, "return high")] == (1, 0)
    assert lines[line_of(prepared, "return low")] == (0, 1)
    assert line_of(prepared, "def clamp") not in lines, "the head runs at import"
    assert line_of(prepared, "self.added += 1") not in lines, "no judged test runs it"
    most = max(lines, key=lambda line: recorded.suspicion(CORE, line))
    assert most == line_of(prepared, "return high")


def test_a_run_that_was_asked_for_before_is_not_repeated(runner: TestRunner) -> None:
    counting = Counting(runner.sandbox)
    counted = SpectrumRecorder(TestRunner(counting, runner.environment))
    ask = {"failing": (HIGH,), "passing": OTHERS, "timeout_s": 30.0}
    first = counted.record("bug", pytest_script([TESTS]), {}, **ask)  # type: ignore[arg-type]
    assert counted.record("bug", pytest_script([TESTS]), {}, **ask) == first  # type: ignore[arg-type]
    assert len(counting.jobs) == 1


@pytest.mark.parametrize(
    "conftest",
    [
        "import os\n\ndef pytest_sessionfinish():\n    os._exit(0)\n",
        "from pathlib import Path\n\ndef pytest_unconfigure():\n"
        "    import atexit\n"
        '    forged = \'{"a": {"1": [-1, 2]}}\'\n'
        "    atexit.register(lambda: Path('/out/lines.json').write_text(forged))\n",
        "raise RuntimeError\n",
    ],
    ids=["ends the interpreter", "forges the document", "cannot be loaded"],
)
def test_without_a_document_there_is_no_spectrum(runner: TestRunner, conftest: str) -> None:
    layer: Layer = {"tests/conftest.py": FileChange(content=conftest.encode())}
    assert record(runner, pytest_script([TESTS]), layer) == Spectrum()


def test_other_scripts_and_frameworks_have_none(runner: TestRunner) -> None:
    for script in ("#!/bin/sh\npytest\n", runner_script("tap", ["t/a.t"])):
        assert record(runner, script) == Spectrum()


def test_a_fault_of_the_machine_costs_the_hint_alone(runner: TestRunner) -> None:
    class Broken:
        name = "broken"

        def run(self, job: Job) -> RunResult:
            raise SandboxError("no more processes")

        def close(self) -> None:
            """Nothing is held."""

    broken = TestRunner(Broken(), runner.environment)
    assert record(broken, pytest_script([TESTS])) == Spectrum()


ODD = [b"[]", b"1", b'{"a": 1}', b'{"a": {"x": [1, 2]}}', b'{"a": {"1": [1, null]}}']


@given(st.binary(max_size=60) | st.sampled_from(ODD))
def test_any_document_is_read(content: bytes) -> None:
    for lines in read_lines(content).values():
        assert all(min(counts) >= 0 for counts in lines.values())


def test_lines_are_named_by_suspicion_then_by_place() -> None:
    shown = [Excerpt(path="a.py", rows=(0, 2, 3, 4))]
    listing = Listing(shown, {"a.py": "def f():\n\n a\n b\n c\n"})
    found = Spectrum(lines={"a.py": {3: (1, 1), 4: (1, 0), 5: (1, 1), 2: (1, 0)}}, num_failing=1)
    assert suspect_lines(listing, found, 5) == [3, 2, 4]
    assert suspect_lines(listing, found, 1) == [3]
    assert suspect_lines(listing, Spectrum(), 5) == []


def told_solver(prepared: PreparedRepo, runner: TestRunner, **keys: object) -> CompactSolver:
    scaffold = ScaffoldConfig(max_prompt_tokens=3000, **keys)  # type: ignore[arg-type]
    return CompactSolver(prepared, ByteTokenizer(), scaffold, SpectrumRecorder(runner))


def test_the_prompt_names_the_line_to_repair(
    prepared: PreparedRepo, runner: TestRunner, clamp: SolveTask, solver: CompactSolver
) -> None:
    prompt = told_solver(prepared, runner).prompt(clamp)
    asked = prompt.text.split("\n")[-1]
    wrong = next(n for n, line in enumerate(prompt.listing.lines, 1) if "x >= high" in line.text)
    assert asked.startswith("Fix the bug in line ") and str(wrong) in asked
    assert solver.prompt(clamp).text.endswith("Fix the bug"), "without a recorder"
    off = told_solver(prepared, runner, max_suspect_lines=0).prompt(clamp)
    assert off.text == solver.prompt(clamp).text


def test_private_tests_have_no_part_in_it(
    prepared: PreparedRepo, runner: TestRunner, wide: SolveTask
) -> None:
    half = told_solver(prepared, runner, public_share=0.01).prompt(wide)
    shown = public_tests(wide, 0.01)
    assert half.view.spectrum.num_failing == len(shown) < len(wide.fail_to_pass)
    most = max(f for lines in half.view.spectrum.lines.values() for f, _ in lines.values())
    assert most <= len(shown)


def test_the_run_is_of_the_tree_that_the_solver_sees(
    prepared: PreparedRepo, runner: TestRunner, clamp: SolveTask
) -> None:
    """A line that the bug moved is counted where it stands now."""
    sealed = seal(prepared.environment, clamp.artifact).layer
    prompt = told_solver(prepared, runner).prompt(replace(clamp, bug_id="another"))
    buggy = (sealed[CORE].content or b"").decode().split("\n")
    for path, lines in prompt.view.spectrum.lines.items():
        assert path != CORE or all(buggy[line - 1].strip() for line in lines)
