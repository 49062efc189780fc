"""Modules to rebuild: taken away, validated, rebuilt by an agent, told how far it came."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.bug_sources.rebuild import NoTask, artifact_of, removals
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.diffs import touched_files
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.sealing import sealed_layer
from selfplay.commands.compose import make_rollout_context, prepare_repos, sandbox_pool
from selfplay.commands.suites import read_tasks
from selfplay.config import ReposConfig, SandboxConfig, ScaffoldConfig
from selfplay.curriculum.evaluation import evaluate
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.solving import solve, test_share
from selfplay.repo.languages.python_source import without_bodies
from selfplay.types import FileChange, GradeReport, Limits, SolveTask
from tests.one_command import OneCommand

ROOT = Path(__file__).resolve().parents[2]
REPO, MODULE = "sample-ledger", "ledger/money.py"
ORIGINAL = (ROOT / "repos/samples/ledger" / MODULE).read_text()


def selfplay(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "selfplay", *words, "sandbox=bubblewrap", "json=true"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rebuild") / "bugs"
    done = selfplay("inject", "source=rebuild", f"repo={REPO}", f"out={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["function"]: row for row in json.loads(done.stdout)}
    assert rows[MODULE]["verdict"] == "valid" and rows[MODULE]["fail_to_pass"] > 5
    return out


@pytest.fixture(scope="module")
def task(suite: Path) -> SolveTask:
    tasks = [t.solve_task for t in read_tasks(suite)]
    return next(t for t in tasks if t.artifact.meta["path"] == MODULE)


@pytest.fixture(scope="module")
def agents() -> Iterator[RolloutContext]:
    with sandbox_pool(SandboxConfig(name="bubblewrap", num_workers=1)) as pool:
        repos = prepare_repos([REPO], ReposConfig(), pool)
        config = ScaffoldConfig(kind="agentic")
        yield make_rollout_context(
            OneCommand("true"), repos, pool, config, Sampling(max_new_tokens=9999)
        )


def by(agents: RolloutContext, text: str) -> RolloutContext:
    """An agent that writes one text in place of the module."""
    builder = OneCommand(f"cat > {MODULE} <<'END OF FILE'\n{text}END OF FILE")
    repos = {name: repo.prepared for name, repo in agents.repo_contexts.items()}
    config = ScaffoldConfig(kind="agentic")
    opened = make_rollout_context(builder, repos, agents.pool, config, agents.sampling)
    return replace(opened, repo_contexts=agents.repo_contexts)


def test_bodies_go_and_all_else_stays() -> None:
    source = (
        'import os\n\nTOP = os.sep  # kept\n\n\nclass A:\n    """Of A."""\n\n'
        '    @property\n    def name(self):\n        """Its name."""\n        # why\n'
        "        return 1\n\n    def one(self): return 1\n\n    def none(self) -> None: ...\n\n\n"
        "async def f(x,\n            y=2):\n    def inner():\n        return x\n\n"
        "    return inner() + y\n\n\ndef last():\n    return (\n        1\n    )"
    )
    assert without_bodies(source) == (
        'import os\n\nTOP = os.sep  # kept\n\n\nclass A:\n    """Of A."""\n\n'
        '    @property\n    def name(self):\n        """Its name."""\n        # why\n'
        "        raise NotImplementedError\n\n    def one(self): return 1\n\n"
        "    def none(self) -> None: ...\n\n\n"
        "async def f(x,\n            y=2):\n    raise NotImplementedError\n\n\n"
        "def last():\n    raise NotImplementedError"
    )
    for nothing in ("", "x = 1\n", "def f(:\n", "def f():\n    raise NotImplementedError('x')\n"):
        assert without_bodies(nothing) is None
    crlf = "def f():\r\n    x = 1\r\n    return x\r\n"
    assert without_bodies(crlf) == "def f():\r\n    raise NotImplementedError\r\n"


def test_the_task_keeps_tests_documents_and_signatures(suite: Path, task: SolveTask) -> None:
    patch = task.artifact.bug_patch
    assert "+    raise NotImplementedError" in patch and '-    """' not in patch
    assert task.artifact.meta["strategy"] == "rebuild" and task.artifact.meta["level"] == "bodies"
    again = selfplay("inject", "source=rebuild", f"repo={REPO}", f"out={suite}")
    assert again.returncode == 0 and len(read_tasks(suite)) == 3, "nothing is found twice"
    assert len((suite / "tries.jsonl").read_text().splitlines()) == 3


def test_whole_files_go_and_come_back(agents: RolloutContext, tmp_path: Path) -> None:
    """Of a module that nothing else imports the file goes. Its tests all fail as a whole, so they
    are hidden with their file, and quick tests of other files show that the rest works."""
    out = tmp_path / "bugs"
    done = selfplay("inject", "source=rebuild", "level=file", f"repo={REPO}", f"out={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rebuild: 100%" in done.stderr, "how far it is"
    rows = {row["function"]: row for row in json.loads(done.stdout)}
    assert rows["ledger/report.py"]["verdict"] == "valid"
    assert {rows[path]["reason"] for path in ("ledger/book.py", MODULE)} == {"nothing_passes"}
    (task,) = (t.solve_task for t in read_tasks(out))
    artifact, context = task.artifact, agents.repo_contexts[REPO]
    assert "deleted file mode" in artifact.bug_patch
    assert "deleted file mode" in artifact.weakening_patch and len(artifact.test_files) == 3
    assert {test.partition("::")[0] for test in task.fail_to_pass} == {"tests/test_report.py"}
    tree = context.prepared.environment.tree
    sealed = sealed_layer(tree, artifact)
    assert sealed["ledger/report.py"].content is None
    source = FileChange(content=(tree / "ledger/report.py").read_bytes())
    gold = make_patch(tree, sealed, {**sealed, "ledger/report.py": source})
    assert grade(task, gold, context.runner).resolved
    assert grade(task, "", context.runner).reason == "empty_patch"
    other = {**sealed, "ledger/other.py": FileChange(content=b"x = 1\n")}
    assert not grade(task, make_patch(tree, sealed, other), context.runner).resolved
    removal = next(r for r in removals(context.prepared, "file", 0) if r.path == "ledger/report.py")
    with pytest.raises(NoTask, match="not_covered"):  # no file is quick enough
        artifact_of(removal, context.prepared, context.runner, Limits(script_timeout_s=1e-9))


def test_bodies_of_a_whole_package_go(tmp_path: Path) -> None:
    """Of each module but `text`: alone it mends nothing, since it needs `prices`."""
    files = {
        "shop/__init__.py": "",
        "shop/prices.py": "def total(items):\n    return sum(items)\n",
        "shop/stock.py": "def left(n, sold):\n    return n - sold\n",
        "shop/names.py": "SHOP = 'shop'\n",
        "alone.py": "def twice(x):\n    return x * 2\n",
        "tests/test_shop.py": "from shop.prices import total\nfrom shop.stock import left\n\n\n"
        "def test_total():\n    assert total([1, 2]) == 3\n\n\n"
        "def test_left():\n    assert left(3, 1) == 2\n",
        "shop/text.py": "from shop.prices import total\n\n\n"
        "def told(items):\n    return f'{total(items)} $'\n",
        "tests/test_text.py": "from shop.text import told\n\n\n"
        "def test_told():\n    assert told([1]) == '1 $'\n",
        "tests/test_alone.py": "from alone import twice\n\n\n"
        + "".join(f"def test_{i}():\n    assert twice({i}) == {2 * i}\n\n\n" for i in range(4)),
    }
    for path, text in files.items():
        (tmp_path / "shop-repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop-repo" / path).write_text(text)
    done = selfplay("inject", "source=rebuild", "level=package", f"repo={tmp_path / 'shop-repo'}",
                    f"out={tmp_path / 'bugs'}")  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = json.loads(done.stdout)  # alone.py is no package
    assert (row["function"], row["verdict"], row["fail_to_pass"]) == ("shop", "valid", 3)
    (task,) = (t.solve_task for t in read_tasks(tmp_path / "bugs"))
    assert touched_files(task.artifact.bug_patch) == ("shop/prices.py", "shop/stock.py")
    assert task.artifact.test_files == (
        *("tests/test_alone.py", "tests/test_shop.py", "tests/test_text.py"),
    )


def test_how_far_an_agent_came_is_told_and_not_paid(
    agents: RolloutContext, task: SolveTask
) -> None:
    """All of it: resolved, everything passes. All but one function: not resolved, a part passes,
    whatever test fails first. Nothing: 0."""
    emptied = without_bodies(ORIGINAL)
    assert emptied is not None
    head, _, _ = ORIGINAL.partition("def round_to")
    _, _, tail = emptied.partition("def round_to")
    shares = []
    for text in (ORIGINAL, f"{head}def round_to{tail}", emptied):
        ((attempt,),) = solve(by(agents, text), [task], 1)
        outcome = attempt.outcome
        assert not outcome.errored and outcome.resolved == (text is ORIGINAL)
        assert outcome.share is not None
        shares.append(outcome.share)
    assert shares[0] == 1.0 and 0.5 < shares[1] < 1.0 and shares[2] == 0.0
    result = evaluate(by(agents, f"{head}def round_to{tail}"), [task], 2)
    document = result.to_json()
    assert document["pass@1"]["mean"] == 0.0
    assert document["tasks"][0]["test_share"] == pytest.approx(shares[1])
    assert document["test_share"]["mean"] == pytest.approx(shares[1])


def test_share_by_hand() -> None:
    def report(reason: str, **table: str) -> GradeReport:
        return GradeReport(
            resolved=not reason, reward=-1, fail_to_pass=table, pass_to_pass={}, reason=reason
        )

    assert test_share(report("", a="passed", b="passed")) == 1.0
    assert test_share(report("fail_to_pass", a="passed", b="missing")) == 0.5
    assert test_share(report("pass_to_pass", a="passed", b="passed")) == 1.0
    assert test_share(report("canary", a="passed", b="failed")) == 0.0, "a void run says nothing"
    assert test_share(report("timed_out", a="passed")) == 0.0


def test_evaluate_tells_the_share_and_goes_on_with_it(suite: Path, tmp_path: Path) -> None:
    words = (f"suite={suite}", "policy=scripted", "num_samples=1", f"out={tmp_path / 'e.json'}")
    documents: list[dict[str, Any]] = []
    for _ in range(2):  # the second reads the attempts of the first
        done = selfplay("evaluate", *words)
        assert done.returncode == 0, done.stderr[-2000:]
        documents.append(json.loads(done.stdout))
    assert documents[0] == documents[1]
    assert documents[0]["test_share"]["mean"] < 1.0
    assert all("test_share" in row for row in documents[0]["tasks"])


def test_other_tasks_are_told_no_share_where_failures_are_decided_early(
    agents: RolloutContext, task: SolveTask
) -> None:
    """Only those that came to the end would have one: a mean of these says nothing."""
    plain = replace(task, artifact=replace(task.artifact, meta={}))
    ((attempt,),) = solve(by(agents, ORIGINAL), [plain], 1)
    assert attempt.outcome.resolved and attempt.outcome.share is None
    late = replace(by(agents, ORIGINAL), early_grading=False)
    ((attempt,),) = solve(late, [plain], 1)
    assert attempt.outcome.share == 1.0
    assert grade(plain, "", agents.repo_contexts[REPO].runner).reason == "empty_patch"
