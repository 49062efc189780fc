"""The compact injector on a real project: prompts, refused answers, and artifacts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from selfplay.bugs.patches.layers import apply_patch, read_file, touched_files
from selfplay.config import ScaffoldConfig
from selfplay.errors import UserError
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.compact.injector import CompactInjector, Hint
from selfplay.roles.rejected import Rejected
from selfplay.sampling import SampleRequest
from selfplay.scripted.compact import ByteTokenizer, ScriptedPolicy
from selfplay.types import InjectionTask, Limits, Strategy, Target

CLAMP = """# Put x between low and high.
1| def clamp(x, low, high):
2|     if x < low:
3|         return low
4|     if x > high:
5|         return high
6|     return x"""


def task(
    function: str = "clamp", strategy: Strategy = "direct", name: str = "t", tests: int = 5
) -> InjectionTask:
    return InjectionTask(
        task_id=name,
        repo="project",
        strategy=strategy,
        target=Target(path="pkg/core.py", function=function),
        limits=Limits(min_passing_tests=tests),
    )


def reason(injector: CompactInjector, answer: str, function: str = "clamp") -> str:
    before = injector.runner.num_runs
    with pytest.raises(Rejected) as caught:
        injector.artifact(injector.prompt(task(function)), answer)
    assert injector.runner.num_runs == before or caught.value.reason in (
        "no_failing_test",
        "all_tests_fail",
        "timed_out",
    )
    return caught.value.reason


def test_prompt_shows_the_function_and_asks_for_a_kind_of_bug(injector: CompactInjector) -> None:
    prompt = injector.prompt(task())
    assert prompt.hint is not None and 1 <= prompt.hint.line <= 6
    wanted = f"Plant a bug: {prompt.hint.kind} in line {prompt.hint.line}"
    assert prompt.text == f"{CLAMP}\n\n{wanted}"
    assert injector.tokenizer.decode(prompt.prompt_ids).endswith(prompt.text)


def test_prompts_are_a_function_of_the_task_and_vary_with_it(injector: CompactInjector) -> None:
    assert injector.prompt(task()).prompt_ids == injector.prompt(task()).prompt_ids
    texts = {injector.prompt(task(name=str(i))).text for i in range(40)}
    assert len(texts) >= 8


def test_the_first_wanted_kind_that_fits_is_asked_for(injector: CompactInjector) -> None:
    wanted = replace(task(), kinds=("exception", "loop", "return", "condition"))
    hints = [injector.prompt(replace(wanted, task_id=str(i))).hint for i in range(20)]
    assert {hint.kind for hint in hints if hint} == {"return"}
    assert {hint.line for hint in hints if hint} == {3, 5, 6}
    unknown = injector.prompt(replace(wanted, kinds=("exception",)))
    assert unknown.hint is not None and unknown.hint.kind != "exception"


def test_removal_hints_are_of_another_kind(injector: CompactInjector) -> None:
    texts = [injector.prompt(task(strategy="removal", name=str(i))).text for i in range(10)]
    assert all("Plant a bug: delete " in text for text in texts)
    given = injector.prompt(task(), Hint(kind="name", line=2))
    assert given.text.endswith("Plant a bug: name in line 2")


def test_history_shows_a_past_change(injector: CompactInjector) -> None:
    prompt = injector.prompt(task("total", "history"))
    change = "-         start += clamp(number, -100, 100)\n+         start = start + number"
    change = change.replace("-         s", "-         s")
    assert f"Past change:\n{change}\n\nPlant a bug: undo the change" in prompt.text


def test_seeds_that_do_not_exist(injector: CompactInjector) -> None:
    with pytest.raises(UserError, match="no such function"):
        injector.prompt(task("nothing"))
    with pytest.raises(UserError, match="no past change"):
        injector.prompt(task("clamp", "history"))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("", "no_change"),
        ("2|     if x < low:", "no_change"),
        ("2|     if x < low:  # below", "no_change"),
        ("2|     if (x < low):", "no_change"),
        ("Sure! Here is a bug.", "bad_format"),
        ("9| x", "bad_line"),
        ("2|     if x < :", "syntax_error"),
        ("2|   if x <= low:", "syntax_error"),
        ("2|     if x <= low:", "no_failing_test"),
        ("1| def clomp(x, low, high):", "all_tests_fail"),
    ],
)
def test_refused_answers(injector: CompactInjector, answer: str, code: str) -> None:
    assert reason(injector, answer) == code


def test_functions_that_no_test_reaches(injector: CompactInjector) -> None:
    assert injector.oracle.files("pkg/core.py", "unused") == ()
    assert reason(injector, "2|     return x", "unused") == "not_covered"


def test_a_run_that_does_not_end(injector: CompactInjector) -> None:
    quick = replace(task(), limits=Limits(script_timeout_s=3.0))
    with pytest.raises(Rejected) as caught:
        injector.artifact(injector.prompt(quick), "2|     while x < low:\n3|         pass")
    assert caught.value.reason == "timed_out"


def test_oracle_files(injector: CompactInjector, prepared: PreparedRepo) -> None:
    assert injector.oracle.files("pkg/core.py", "Bag.add") == ("tests/test_core.py",)
    assert "tests/test_core.py" in injector.oracle.files("pkg/core.py", "clamp")
    assert injector.oracle.files("pkg/core.py", "clamp", min_passing_tests=99) == ()
    tight = CompactInjector(
        prepared, ByteTokenizer(), injector.runner, ScaffoldConfig(max_oracle_s=0.0)
    )
    assert tight.oracle.files("pkg/core.py", "clamp") == ()


def test_files_that_pass_only_behind_others_do_not_judge(injector: CompactInjector) -> None:
    assert injector.oracle.files("pkg/core.py", "total") == ("tests/test_after.py",)
    artifact = injector.artifact(
        injector.prompt(task("total")), "3|         start = start - number"
    )
    assert artifact.test_files == ("tests/test_core.py",)


def test_artifact(injector: CompactInjector, prepared: PreparedRepo) -> None:
    prompt = injector.prompt(task("Bag.add"))
    artifact = injector.artifact(prompt, "3|     self.added -= 1")
    tree = prepared.environment.tree
    assert artifact.test_files == ("tests/test_core.py",)
    assert touched_files(artifact.bug_patch) == ("pkg/core.py",)
    assert touched_files(artifact.weakening_patch) == ("tests/test_core.py",)
    buggy = apply_patch(tree, {}, artifact.bug_patch)
    original = prepared.source("pkg/core.py")
    assert (
        read_file(tree, buggy, "pkg/core.py")
        == original.replace("self.added += 1", "self.added -= 1").encode()
    )
    weak = apply_patch(tree, buggy, artifact.weakening_patch)
    tests = (read_file(tree, weak, "tests/test_core.py") or b"").decode()
    assert "test_add" not in tests and "test_size" in tests and "test_clamp" in tests
    assert artifact.meta["strategy"] == "direct" and artifact.meta["function"] == "Bag.add"
    json.dumps(dict(artifact.meta))


def test_scripted_policy_plays_the_injector(injector: CompactInjector) -> None:
    policy = ScriptedPolicy()
    artifacts = 0
    for number in range(4):
        prompt = injector.prompt(task("total", name=str(number)))
        request = SampleRequest(prompt_ids=prompt.prompt_ids, num_samples=2, seed=number)
        for completion in policy.sample([request])[0]:
            try:
                injector.artifact(prompt, completion.text)
                artifacts += 1
            except Rejected as rejected:
                assert rejected.reason in ("no_failing_test", "all_tests_fail", "timed_out")
    assert artifacts >= 2


def test_a_long_prompt_is_cut_to_its_budget(
    injector: CompactInjector, prepared: PreparedRepo
) -> None:
    small = CompactInjector(
        prepared, ByteTokenizer(), injector.runner, ScaffoldConfig(max_prompt_tokens=300)
    )
    assert len(small.prompt(task("Bag.add")).prompt_ids) <= 300
