"""A solver runs the reference executable of its task: from its sandbox, and without having it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from selfplay.bug_sources.reference_programs import packed, read_cases
from selfplay.commands.compose import make_rollout_context, prepare_repos, sandbox_pool
from selfplay.config import AgentConfig, ReposConfig, SandboxConfig, ScaffoldConfig
from selfplay.corpus.suite import read_suite
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.solving import solve
from selfplay.roles.agentic.solver import AgenticSolver, show
from selfplay.types import SolveTask
from tests.one_command import OneCommand

ROOT = Path(__file__).resolve().parent.parent
LEARN = """
import json, subprocess, sys
answers = {}
for argv, stdin in json.loads(sys.argv[1]):
    words = ["python", "/in/reference.py", *argv]
    done = subprocess.run(words, input=stdin, text=True, capture_output=True)
    answers[json.dumps([argv, stdin])] = [done.stdout, done.returncode]
with open("program", "w") as file:
    file.write("#!/usr/bin/env python\\nimport json, sys\\nANSWERS = " + repr(answers) + '''
said, code = ANSWERS[json.dumps([sys.argv[1:], sys.stdin.read()])]
sys.stdout.write(said)
sys.exit(code)
''')
"""


def made(folder: Path) -> Path:
    """The suite of tasks in a folder."""
    out = folder.parent / f"{folder.name}-suite"
    argv = [sys.executable, "-m", "selfplay", "suite", "make", f"programs={folder}", f"out={out}"]
    done = subprocess.run(
        [*argv, "sandbox=bubblewrap"], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks: the vendored sample, whose reference is a zip that Python runs, and a binary."""
    out = tmp_path_factory.mktemp("programs") / "tasks"
    script = str(ROOT / "scripts" / "program_task.py")
    subprocess.run([sys.executable, script, str(out)], check=True, timeout=200)
    (out / "cat" / "docs").mkdir(parents=True)
    (out / "cat" / "docs" / "usage.md").write_text("Prints files.\n")
    shutil.copy(shutil.which("cat") or "/bin/cat", out / "cat" / "reference")
    case = {"argv": [], "stdin": "a\n", "stdout": "a\n", "exit_code": 0}
    (out / "cat" / "tests.jsonl").write_text(json.dumps(case) + "\n")
    return out


@pytest.fixture(scope="module")
def given(tasks: Path) -> dict[str, SolveTask]:
    suite = [t.solve_task for t in read_suite(made(tasks) / "suite.jsonl")]
    return {task.repo: task for task in suite}


@pytest.fixture(scope="module")
def context(given: dict[str, SolveTask], tasks: Path) -> Iterator[RolloutContext]:
    with opened_in("bubblewrap", given, tasks) as context:
        yield context


@contextmanager
def opened_in(sandbox: str, given: dict[str, SolveTask], tasks: Path) -> Iterator[RolloutContext]:
    """Both tasks in a sandbox of this kind."""
    folders = [f"{tasks}-suite/programs/{name}" for name in given]
    with sandbox_pool(SandboxConfig(name=sandbox, num_workers=1)) as pool:
        prepared = prepare_repos(folders, ReposConfig(), pool).values()
        repos = {repo.name: repo for repo in prepared}
        config = ScaffoldConfig(kind="agentic")
        yield make_rollout_context(
            OneCommand(""), repos, pool, config, Sampling(max_new_tokens=9999)
        )


def solver(context: RolloutContext, task: SolveTask, max_runs: int = 1000) -> AgenticSolver:
    repo = context.repo_contexts[task.repo]
    config = AgentConfig(max_reference_runs=max_runs)
    return AgenticSolver(prepared=repo.prepared, sandbox=repo.runner.sandbox, config=config)


def said(context: RolloutContext, task: SolveTask, command: str, max_runs: int = 1000) -> str:
    """What a command in a solver's sandbox prints."""
    with solver(context, task, max_runs).begin(task).open() as session:
        return session.run(command, 120.0).output.decode(errors="replace")


def test_asked_about_commands_that_are_not_shown_it_answers(
    context: RolloutContext, given: dict[str, SolveTask], tasks: Path
) -> None:
    """An agent that asks about all twelve commands resolves what the examples alone do not."""
    cases = [[list(case.argv), case.stdin] for case in read_cases(tasks / "textkit")]
    command = f"cat > /tmp/learn.py <<'END'{LEARN}END\npython /tmp/learn.py '{json.dumps(cases)}'"
    policy = OneCommand(f"{command}; chmod +x program")
    repos = {name: repo.prepared for name, repo in context.repo_contexts.items()}
    config = ScaffoldConfig(kind="agentic")
    opened = make_rollout_context(policy, repos, context.pool, config, context.sampling)
    ((attempt,),) = solve(opened, [given["textkit"]], 1)
    assert attempt.outcome.resolved, attempt.rollout.info


def test_output_errors_and_exit_codes_come_back_and_runs_are_counted(
    context: RolloutContext, given: dict[str, SolveTask]
) -> None:
    ask = "python /in/reference.py"
    text = said(
        context,
        given["textkit"],
        f"printf 'a\\nB' | {ask} slug; {ask} nothing; echo $?; {ask} distance x 2>&1 | tail -1;"
        f"for i in 1 2; do {ask} help >/dev/null; echo $?; done",
        max_runs=4,
    )
    assert text.splitlines()[:3] == ["a-b", "slug [LIMIT] | snake | count | distance A B", "2"]
    assert "TypeError" in text, "standard error"
    assert text.splitlines()[-3:] == [
        *("2", "reference: it was run 4 times, which is all that is allowed", "125"),
    ]


def test_what_is_no_question_costs_nobody_the_sandbox(
    context: RolloutContext, given: dict[str, SolveTask]
) -> None:
    raw = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX);"
        "s.connect('\\0selfplay-reference'); s.sendall(sys.argv[1].encode());"
        "print(s.recv(100) if sys.argv[1] else '')"
    )
    texts = ("[[\n", '{"argv": 3}\n', '{"argv": [], "stdin": 5}\n', "", "no line")
    asked = "; ".join(f"timeout 20 python -c \"{raw}\" '{text}'" for text in texts)
    text = said(context, given["cat"], f"{asked}; echo x | python /in/reference.py")
    assert text.count("cannot be read") == 3 and text.endswith("x\n")


def test_a_binary_can_be_run_and_not_be_read(
    context: RolloutContext, given: dict[str, SolveTask]
) -> None:
    """Even one that prints every file that it is told to; nothing of it lies beside the agent."""
    task = given["cat"]
    content = packed(context.repo_contexts[task.repo].prepared.environment.tree)
    assert content is not None and content[:4] == b"\x7fELF"
    ask = "python /in/reference.py"
    text = said(
        context,
        task,
        f"{ask} docs/usage.md; {ask} /proc/self/exe program; "
        f"p=$({ask} /proc/self/cmdline | tr '\\0' '\\n' | head -1); {ask} $p; ls /in $p",
    )
    assert text.startswith("Prints files.\n")
    assert text.count("Permission denied") == 2 and "ELF" not in text
    assert "program: No such file" in text, "nor the packed form in the tree"
    assert "session_server.py" in text and "ls: cannot access '/reference-" in text


@pytest.mark.docker
def test_in_containers_it_answers_and_is_not_read(given: dict[str, SolveTask], tasks: Path) -> None:
    """Questions go another way there: the reference's own sandbox is a container, too."""
    with opened_in("docker", given, tasks) as context:
        test_a_binary_can_be_run_and_not_be_read(context, given)
        ask = "python /in/reference.py"
        text = said(context, given["textkit"], f"printf 'a\\nB' | {ask} slug; {ask} no; echo $?")
        assert text.startswith("a-b\n") and text.endswith("2\n")


def test_it_is_told_only_where_it_can_be_run(
    context: RolloutContext, given: dict[str, SolveTask]
) -> None:
    task = given["textkit"]
    told = show(solver(context, task).begin(task).view)
    assert "/in/reference.py ARGUMENTS" in told
    silent = show(solver(context, task, 0).begin(task).view)
    assert "/in/reference.py" not in silent
    assert "No such file" in said(context, task, "python /in/reference.py help", 0)
