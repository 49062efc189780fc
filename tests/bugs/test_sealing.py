"""The solver's sandbox: one commit, nothing left over, no copy of the original."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import py_compile
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from selfplay.bug_sources.commit_trees import told_lines
from selfplay.bugs.leak_search import search
from selfplay.bugs.leaks import Secret, added_lines, find_leaks
from selfplay.bugs.sealing import seal, sealed_layer
from selfplay.commands.selfcheck import check_sealing, check_tasks, without_leaks
from selfplay.curriculum.evaluation import Tried, summary
from selfplay.errors import InfrastructureError
from selfplay.roles.agentic.workspace import audit_sandbox, open_solver
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.sandbox.session.session import Session
from selfplay.types import SolveTask

from .shop import FILES, SUM_BUG, MakeArtifact, as_layer


@pytest.fixture
def littered(environment: Environment) -> Iterator[Environment]:
    """A copy of the shop with everything that could give the original away."""
    tree = environment.tree.parent / "littered"
    shutil.copytree(environment.tree, tree, symlinks=True)
    for name in (
        "shop/__pycache__/prices.cpython-311.pyc",
        "shop/prices.py.orig",
        "shop/prices.py.rej",
        "build/lib/shop/prices.py",
        "bug_inject.diff",
        ".git/objects/pack/pack-1.pack",
        ".git/HEAD",
        ".pytest_cache/v/x",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(FILES["shop/prices.py"])
    (tree / "bin").mkdir()
    (tree / "bin/run.sh").write_text("true\n")
    (tree / "bin/run.sh").chmod(0o755)
    (tree / "link").symlink_to("README.md")
    make_readable(tree)
    yield dataclasses.replace(environment, tree=tree, digest=f"{environment.digest}-littered")
    shutil.rmtree(tree)


@pytest.fixture
def session(littered: Environment, sum_task: SolveTask, sandbox: Sandbox) -> Iterator[Session]:
    """What a solver of the sum gets."""
    opened = open_solver(sandbox, seal(littered, sum_task.artifact), {}, 60.0)
    yield opened
    opened.close()


def said(session: Session, command: str) -> str:
    return session.run(command, 60.0).output.decode()


def leaks(session: Session, environment: Environment, task: SolveTask) -> str:
    return "\n".join(find_leaks(session, environment, Secret.of(environment.tree, task.artifact)))


def test_sealed_sandbox(session: Session) -> None:
    files = set(said(session, "find . -path ./.git -prune -o ! -type d -print").split())
    assert {name.removeprefix("./") for name in files} == {*FILES, "bin/run.sh", "link"}
    assert said(session, "cat shop/prices.py") == SUM_BUG["shop/prices.py"]
    assert "test_some" not in said(session, "cat tests/test_prices.py")
    assert said(session, "stat -c %A bin/run.sh")[3] == "x"
    assert said(session, "git log --oneline --all").count("\n") == 1
    assert "fatal" in said(session, "git show HEAD~1")
    for command in ("git status --porcelain", "git remote", "git reflog", "git tag"):
        assert said(session, command) == ""
    assert "result += price" not in said(session, "git log -p --all")


def test_audit_of_a_sealed_sandbox_finds_nothing(
    littered: Environment, sum_task: SolveTask, sandbox: Sandbox
) -> None:
    assert audit_sandbox(sandbox, littered, sum_task.artifact) == []


def test_sealed_layer_deletes_left_overs(littered: Environment, sum_task: SolveTask) -> None:
    layer = sealed_layer(littered.tree, sum_task.artifact)
    gone = {path for path, change in layer.items() if change.content is None}
    assert "shop/prices.py.orig" in gone
    assert "shop/__pycache__/prices.cpython-311.pyc" in gone
    assert "build/lib/shop/prices.py" in gone
    assert {path for path in layer if path not in gone} == {
        "shop/prices.py",
        "tests/test_prices.py",
    }


def test_audit_finds_every_leak(
    session: Session, littered: Environment, sum_task: SolveTask
) -> None:
    session.write("copy.txt", FILES["shop/prices.py"].encode())
    session.write("x.orig", b"")
    session.write("bug_inject.diff", b"")
    session.write("notes.md", b"It was:\n\n    result += price  # here\n")
    found = leaks(session, littered, sum_task)
    for word in ("copy.txt: holds the original of shop/prices.py", "x.orig", "bug_inject.diff"):
        assert word in found
    assert "notes.md" not in found  # too short to be told from chance


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("git -c user.name=a -c user.email=a@b commit -q --allow-empty -m second", "2 commits"),
        ("git remote add origin https://example.org/x", "remote"),
        ("mkdir -p .git/logs && echo x > .git/logs/HEAD", "reflog"),
        ("git repack -adq", "packed"),
        ("echo secret | git hash-object -w --stdin", "unreachable"),
    ],
)
def test_audit_finds_history(
    session: Session, littered: Environment, sum_task: SolveTask, command: str, word: str
) -> None:
    session.run(command, 60.0)
    assert word in leaks(session, littered, sum_task)


def test_audit_finds_installed_copies(
    environment: Environment, sum_task: SolveTask, sandbox: Sandbox
) -> None:
    packages = environment.tree.parent / "site-packages"
    (packages / "shop/__pycache__").mkdir(parents=True)
    (packages / "shop/prices.py").write_text(FILES["shop/prices.py"])
    (packages / "shop/__pycache__/prices.cpython-311.pyc").write_text("")
    make_readable(packages)
    mounts = {**environment.mounts, str(packages): "/opt/site-packages"}
    more = dataclasses.replace(environment, mounts=mounts, digest=f"{environment.digest}-more")
    found = audit_sandbox(sandbox, more, sum_task.artifact)
    shutil.rmtree(packages)
    assert found == [
        "/opt/site-packages/shop/__pycache__/prices.cpython-311.pyc: byte code of the original",
        "/opt/site-packages/shop/prices.py: holds the original of shop/prices.py",
    ]


def test_byte_code_of_a_strangers_source_is_no_leak(
    environment: Environment, sum_task: SolveTask, sandbox: Sandbox
) -> None:
    """`cfnlint/schema/__init__.py` was taken for the package `schema`, and no run could start."""
    packages = environment.tree.parent / "site-packages"
    source = packages / "lint/shop/prices.py"
    source.parent.mkdir(parents=True)
    source.write_text("PRICES = {}\n")
    stamped, hashed = packages / "lint/shop/prices.pyc", packages / "lint/shop/prices.opt-1.pyc"
    py_compile.compile(str(source), str(stamped))
    by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
    py_compile.compile(str(source), str(hashed), invalidation_mode=by_hash)
    make_readable(packages)
    mounts = {**environment.mounts, str(packages): "/opt/site-packages"}
    alike = dataclasses.replace(environment, mounts=mounts, digest=f"{environment.digest}-alike")
    stale = dataclasses.replace(environment, mounts=mounts, digest=f"{environment.digest}-stale")
    assert audit_sandbox(sandbox, alike, sum_task.artifact) == []
    source.write_text("PRICES = []\n")
    os.utime(source, (1.0, 1.0))
    found = audit_sandbox(sandbox, stale, sum_task.artifact)
    shutil.rmtree(packages)
    assert [line.split(":")[0] for line in found] == [
        f"/opt/site-packages/lint/shop/{file.name}" for file in (hashed, stamped)
    ]


def test_sealed_environment_has_no_byte_code(environment: Environment, sum_task: SolveTask) -> None:
    assert seal(environment, sum_task.artifact).environment is environment
    cached = dataclasses.replace(
        environment,
        mounts={**environment.mounts, "/host/pycache": "/opt/pycache"},
        variables={**environment.variables, "PYTHONPYCACHEPREFIX": "/opt/pycache"},
    )
    sealed = seal(cached, sum_task.artifact).environment
    assert (sealed.mounts, sealed.variables) == (environment.mounts, environment.variables)
    assert sealed.digest != cached.digest


def test_audit_finds_a_single_removed_line(
    littered: Environment, make_artifact: MakeArtifact, sandbox: Sandbox
) -> None:
    """A comment with the original line was no leak as long as the file was another."""
    original = "return cents + cents * rate // 100"
    text = FILES["shop/prices.py"].replace(original, "return cents * rate // 100")
    artifact = make_artifact({"shop/prices.py": text}, ("tests/test_prices.py::test_with_tax",))
    session = open_solver(sandbox, seal(littered, artifact), {}, 60.0)
    session.write("notes.md", f"\nIt was:   # {original}\n".encode())
    found = find_leaks(session, littered, Secret.of(littered.tree, artifact))
    session.close()
    assert found == [f"notes.md:2: holds a line of the answer in shop/prices.py: {original}"]


def test_a_line_that_strangers_wrote_too_is_no_leak(
    environment: Environment, make_artifact: MakeArtifact, sandbox: Sandbox
) -> None:
    """The interpreter's own library held a line of a shipped bug, and no run could start."""
    line = "return cents + cents * rate // 100"
    text = FILES["shop/prices.py"].replace(line, "return cents * rate // 100")
    artifact = make_artifact({"shop/prices.py": text}, ("tests/test_prices.py::test_with_tax",))
    packages = environment.tree.parent / "site-packages"
    packages.mkdir()
    (packages / "money.py").write_text(f"def gross(cents, rate):\n    {line}\n")
    make_readable(packages)
    mounts = {**environment.mounts, str(packages): "/opt/site-packages"}
    strange = dataclasses.replace(environment, mounts=mounts, digest=f"{environment.digest}-str")
    copied = dataclasses.replace(environment, mounts=mounts, digest=f"{environment.digest}-copy")
    assert audit_sandbox(sandbox, strange, artifact) == []
    (packages / "money.py").rename(packages / "prices.py")
    found = audit_sandbox(sandbox, copied, artifact)
    shutil.rmtree(packages)
    assert found == [
        f"/opt/site-packages/prices.py:2: holds a line of the answer in shop/prices.py: {line}"
    ]


def test_every_package_has_an_init() -> None:
    line = b"return list(self.items())"
    request = {
        "skipped": [], "contents": {}, "changed": ["shop/__init__.py"],
        "lines": {base64.b64encode(line).decode(): "shop/__init__.py"},
    }  # fmt: skip
    with TemporaryDirectory() as root, TemporaryDirectory() as empty, contextlib.chdir(empty):
        for package in ("other", "shop"):
            path = Path(root, package, "__init__.py")
            path.parent.mkdir()
            path.write_bytes(line)
        told = search({**request, "roots": [root]})
        assert [where for where, _ in told] == [f"{root}/shop/__init__.py:1"]


def test_a_renamed_copy_is_told_by_several_lines() -> None:
    lines = {f"total_{n} = price_{n} * 100".encode(): "shop/prices.py" for n in range(4)}
    request = {
        "skipped": [], "roots": [], "contents": {}, "changed": ["shop/prices.py"],
        "lines": {base64.b64encode(line).decode(): name for line, name in lines.items()},
    }  # fmt: skip
    with TemporaryDirectory() as root, TemporaryDirectory() as empty:
        stranger = Path(root, "other.py")
        with contextlib.chdir(empty):
            stranger.write_bytes(b"\n".join(list(lines)[:2]))
            assert search({**request, "roots": [root]}) == []
            stranger.write_bytes(b"\n".join(list(lines)[:3]))
            assert len(search({**request, "roots": [root]})) == 1


def test_a_moved_line_is_no_leak(
    littered: Environment, make_artifact: MakeArtifact, sandbox: Sandbox
) -> None:
    text = FILES["shop/prices.py"].replace(
        "    return cents - cents * percent // 100",
        "    if 1:\n        return cents - cents * percent // 100 + 1",
    )
    artifact = make_artifact({"shop/prices.py": text}, ("tests/test_prices.py::test_discount[0]",))
    assert audit_sandbox(sandbox, littered, artifact) == []


def test_what_a_commit_says_of_itself_is_a_leak(
    littered: Environment, sum_task: SolveTask, sandbox: Sandbox
) -> None:
    """A change log in its fixed text tells what was mended, in words of its own."""
    new = {"CHANGES": "1.1: total() forgot all prices but one\n\n1.0: begin\n"}
    told = added_lines(as_layer({"CHANGES": "1.0: begin\n"}), as_layer(new), ["CHANGES"])
    assert audit_sandbox(sandbox, littered, sum_task.artifact, told) == []
    (littered.tree / "CHANGES").write_text(new["CHANGES"])
    make_readable(littered.tree)
    (leak,) = audit_sandbox(sandbox, littered, sum_task.artifact, told)
    assert leak.startswith("CHANGES:1: holds a line of the answer in CHANGES: 1.1: total() forgot")


def test_a_leak_stops_a_run_and_names_the_file(
    littered: Environment, sum_task: SolveTask, sandbox: Sandbox
) -> None:
    context: Any = SimpleNamespace(pool=SimpleNamespace(sandbox=sandbox))
    prepared: Any = SimpleNamespace(name="shop", environment=littered)
    check_sealing(context, prepared, sum_task)
    (littered.tree / "shop/old_prices.txt").write_text(FILES["shop/prices.py"])
    make_readable(littered.tree)
    with pytest.raises(InfrastructureError, match=r"shop/old_prices.txt: holds the original of"):
        check_sealing(context, prepared, sum_task)


def test_a_leak_costs_an_evaluation_its_repository_alone(
    environment: Environment,
    littered: Environment,
    sum_task: SolveTask,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A project may be installed beside the Python of the machine that evaluates it."""
    (littered.tree / "shop/old_prices.txt").write_text(FILES["shop/prices.py"])
    make_readable(littered.tree)
    places = {"open": littered, "shut": environment}
    repos: Any = {n: SimpleNamespace(name=n, environment=place) for n, place in places.items()}
    pool: Any = SimpleNamespace(sandbox=sandbox, map=lambda do, items: [do(x) for x in items])
    context: Any = SimpleNamespace(
        pool=pool, repo_contexts={n: SimpleNamespace(prepared=r) for n, r in repos.items()}
    )
    tasks = [dataclasses.replace(sum_task, repo=name) for name in ("open", "shut", "open")]
    kept, left_out = without_leaks(tasks, repos, pool)
    assert kept == [tasks[1]] and left_out["open"]["num_tasks"] == 2
    assert "shop/old_prices.txt" in str(left_out["open"]["reason"])
    assert "open: left out with its 2 bugs" in capsys.readouterr().err
    with pytest.raises(InfrastructureError, match="leak audit of open"):
        without_leaks([tasks[0]], repos, pool)
    with pytest.raises(InfrastructureError, match="leak audit of open"):
        check_tasks(context, tasks)
    result = summary([Tried(instance_id="a", repo="shut")], 1, {}, None, {})
    document = dataclasses.replace(result, left_out=left_out).to_json()
    assert document["left_out"]["open"]["num_tasks"] == 2 and document["num_tasks"] == 1


def test_words_of_a_commit_that_others_say_too_are_no_leak(tmp_path: Path) -> None:
    """An example in the docs is in other files as well; what the change log says is its own."""
    new = {"docs/use.md": "from shop import prices\n", "CHANGES": "total() forgot all but one\n"}
    kinds = {"docs/use.md": "aside", "CHANGES": "aside"}
    commit: Any = SimpleNamespace(
        before=as_layer({"docs/use.md": None, "CHANGES": "begin\n"}),
        after=as_layer(new),
        of_kind=lambda kind: [path for path in kinds if kinds[path] == kind],
    )
    (tmp_path / "example.py").write_text("from shop import prices\n")
    assert told_lines(commit, tmp_path) == {b"total() forgot all but one": "CHANGES"}
