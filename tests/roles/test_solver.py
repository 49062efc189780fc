"""The compact solver on a real project: what it sees, what it may not see, and its patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from selfplay.bugs.grading.public_tests import overfits, public_tests
from selfplay.bugs.patches.layers import apply_patch, read_file, reverse_patch
from selfplay.compact.failures import Failure
from selfplay.compact.places import innermost, traceback_rows
from selfplay.config import ScaffoldConfig
from selfplay.repo.languages.functions import FunctionInfo
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.compact.injector import CompactInjector
from selfplay.roles.compact.solver import CompactSolver, SolverView
from selfplay.roles.rejected import Rejected
from selfplay.scripted.compact import ByteTokenizer, candidate_answers
from selfplay.types import GradeReport, SolveTask

MakeTask = Callable[[str, str], SolveTask]


def test_prompt_shows_tests_failures_and_the_suspicious_function_first(
    solver: CompactSolver, bag: SolveTask
) -> None:
    prompt = solver.prompt(bag)
    assert prompt.text.startswith("# Add an item.\n1| def add(self, item):\n")
    assert "3|     self.added -= 1\n" in prompt.text
    assert "Failing tests:\ndef test_add(self):\n    bag = Bag" in prompt.text
    assert "\nE assert -2 == 2\n" in prompt.text
    assert prompt.text.endswith("\n\nFix the bug")
    assert prompt == solver.prompt(bag) or prompt.text == solver.prompt(bag).text


def test_lines_after_the_one_that_failed_are_left_out(
    solver: CompactSolver, task_of: MakeTask
) -> None:
    task = task_of("Bag.add", "2|     self.items.insert(0, item)")
    text = solver.prompt(task).text
    assert "assert bag.items ==" in text and "assert bag.added" not in text


def test_a_message_names_the_listed_line_that_raised(
    solver: CompactSolver, task_of: MakeTask
) -> None:
    task = task_of("Bag.add", "2|     self.items.append(itme)")
    prompt = solver.prompt(task)
    assert "\nE NameError: name 'itme' is not defined (line 2)\n" in prompt.text
    assert prompt.listing.lines[1].text.strip() == "self.items.append(itme)"


def test_where_a_traceback_ends() -> None:
    functions = {
        f"a.py::{name}": FunctionInfo(path="a.py", qualname=name, start_line=first, end_line=last)
        for name, first, last in (("outer", 1, 9), ("inner", 20, 29))
    }
    places = (("tests/t.py", 3), ("a.py", 4), ("a.py", 22), ("lib.py", 5))
    failure = Failure(name="t", locations=places, messages=())
    assert innermost(failure, functions) == "a.py::inner"
    assert traceback_rows([failure], functions) == {"a.py::outer": 3, "a.py::inner": 21}
    assert innermost(replace(failure, locations=places[:1]), functions) is None


def test_functions_are_numbered_on_and_bounded(
    solver: CompactSolver, prepared: PreparedRepo, bag: SolveTask
) -> None:
    assert len(solver.prompt(bag).listing.excerpts) == 2
    one = CompactSolver(
        prepared, ByteTokenizer(), ScaffoldConfig(max_prompt_tokens=3000, max_functions=1)
    )
    assert len(one.prompt(bag).listing.excerpts) == 1
    tight = CompactSolver(prepared, ByteTokenizer(), ScaffoldConfig(max_prompt_tokens=700))
    assert len(tight.prompt(bag).prompt_ids) <= 700


def test_helpers_of_the_tests_are_not_shown(prepared: PreparedRepo, bag: SolveTask) -> None:
    """A patch of them would count as no fix."""
    profile = prepared.profile
    helper = "tests/test_core.py::TestBag.test_size"
    tests = {
        name: replace(info, functions=frozenset({helper}) if "test_add" in name else frozenset())
        for name, info in profile.tests.items()
    }
    misled = replace(prepared, profile=replace(profile, tests=tests))
    solver = CompactSolver(misled, ByteTokenizer(), ScaffoldConfig(max_prompt_tokens=3000))
    assert {e.path for e in solver.prompt(bag).listing.excerpts} <= {"pkg/core.py"}


def view_of(solver: CompactSolver, task: SolveTask, source: str | None = None) -> SolverView:
    """The view of a task, rebuilt from nothing but what a solver may know."""
    tree = solver.prepared.environment.tree
    sealed = solver.prompt(task).sealed
    tests = (tree / "tests/test_core.py").read_text(encoding="utf-8")
    buggy = (read_file(tree, sealed, "pkg/core.py") or b"").decode()
    files = {"pkg/core.py": source or buggy}
    return SolverView(
        read=files.get,
        read_test={"tests/test_core.py": tests}.get,
        oracle_patch=reverse_patch(task.artifact.weakening_patch),
        fail_to_pass=task.fail_to_pass,
        pass_to_pass=task.pass_to_pass,
        failure_output=task.failure_output,
        problem_statement="",
    )


def test_the_prompt_is_a_function_of_what_a_solver_may_know(
    solver: CompactSolver, clamp: SolveTask
) -> None:
    """`show` has no access to the artifact; and what it makes is what the prompt holds."""
    assert solver.show(view_of(solver, clamp))[0] == solver.prompt(clamp).text


def test_an_equal_sealed_tree_gives_an_equal_prompt_whatever_was_changed(
    solver: CompactSolver, clamp: SolveTask, prepared: PreparedRepo
) -> None:
    """Two bugs in one file that leave the same sealed function look the same; a patch that also
    touches a function elsewhere does not pull it into view."""
    tree = prepared.environment.tree
    sealed = solver.prompt(clamp).sealed
    buggy = (read_file(tree, sealed, "pkg/core.py") or b"").decode()
    elsewhere = buggy.replace("return x + 1", "return x + 2")
    assert elsewhere != buggy
    assert (
        solver.show(view_of(solver, clamp, elsewhere))[0]
        == solver.show(view_of(solver, clamp, buggy))[0]
    )


def test_the_original_line_is_not_shown(solver: CompactSolver, clamp: SolveTask) -> None:
    text = solver.prompt(clamp).text
    assert "if x > high" not in text and "if x >= high" in text


def test_an_issue_text_is_shown(solver: CompactSolver, bag: SolveTask) -> None:
    told = replace(bag, problem_statement="Bags count wrong.")
    assert "\n\nBags count wrong.\n\nFailing tests:" in solver.prompt(told).text


def test_fix_patch_leads_back_to_the_original(
    solver: CompactSolver, bag: SolveTask, prepared: PreparedRepo
) -> None:
    prompt = solver.prompt(bag)
    patch = solver.fix_patch(prompt, "3|     self.added += 1")
    assert "-        self.added -= 1\n+        self.added += 1\n" in patch
    tree = prepared.environment.tree
    fixed = apply_patch(tree, prompt.sealed, patch)
    assert read_file(tree, fixed, "pkg/core.py") == prepared.source("pkg/core.py").encode()
    weak = read_file(tree, fixed, "tests/test_core.py") or b""
    assert b"test_add" not in weak


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("", "no_change"),
        ("3|     self.added -= 1  # fixed", "no_change"),
        ("The bug is in line 4.", "bad_format"),
        ("99-", "bad_line"),
        ("3|     self.added += ", "syntax_error"),
    ],
)
def test_refused_answers(solver: CompactSolver, bag: SolveTask, answer: str, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        solver.fix_patch(solver.prompt(bag), answer)
    assert caught.value.reason == code


def test_nothing_to_show(solver: CompactSolver, bag: SolveTask) -> None:
    """A task like this ended the whole evaluation."""
    prompt = solver.prompt(replace(bag, fail_to_pass=("tests/test_x.py::test_unknown",)))
    assert prompt.listing.lines == []
    with pytest.raises(Rejected):
        solver.fix_patch(prompt, "1| x = 1")


def test_scripted_policy_can_find_the_repair_by_itself(
    solver: CompactSolver, bag: SolveTask
) -> None:
    assert "3|     self.added += 1" in candidate_answers(solver.prompt(bag).text)


def test_private_tests_are_not_shown(
    injector: CompactInjector, prepared: PreparedRepo, wide: SolveTask
) -> None:
    """Show a part, grade on all."""
    shown = public_tests(wide, 0.01)
    hidden = set(wide.fail_to_pass) - set(shown)
    assert len(shown) >= 1 and hidden, wide.fail_to_pass
    config = ScaffoldConfig(max_prompt_tokens=3000, public_share=0.01)
    half = CompactSolver(prepared, ByteTokenizer(), config).prompt(wide).text
    names = {test.split("::")[-1].split("[")[0] for test in hidden}
    assert not any(name in half for name in names)
    assert any(test.split("::")[-1].split("[")[0] in half for test in shown)
    assert public_tests(wide, 1.0) == wide.fail_to_pass


def test_overfitting_is_seen(wide: SolveTask) -> None:
    shown = public_tests(wide, 0.01)
    table = {t: "passed" if t in shown else "failed" for t in wide.fail_to_pass}
    report = GradeReport(resolved=False, reward=-1, fail_to_pass=table, pass_to_pass={})
    assert overfits(report, shown)
    assert not overfits(report, wide.fail_to_pass)
    right = replace(report, fail_to_pass=dict.fromkeys(table, "passed"))
    assert not overfits(right, shown)
