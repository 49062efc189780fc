"""The solver's tree: one commit, nothing left over, no copy of the original."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from selfplay.bugs.leaks import audit_leaks
from selfplay.bugs.sealing import (
    sealed_environment,
    sealed_layer,
    write_sealed_tree,
)
from selfplay.errors import UserError
from selfplay.sandbox.base import Environment
from selfplay.types import SolveTask

from .shop import FILES, SUM_BUG, MakeArtifact


@pytest.fixture
def littered(environment: Environment, tmp_path: Path) -> Environment:
    """A copy of the shop with everything that could give the original away."""
    tree = tmp_path / "original"
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
    return dataclasses.replace(environment, tree=tree)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_sealed_tree(littered: Environment, sum_task: SolveTask, tmp_path: Path) -> None:
    dest = tmp_path / "sealed"
    write_sealed_tree(littered, sum_task.artifact, dest)
    files = {p.relative_to(dest).as_posix() for p in dest.rglob("*") if not p.is_dir()}
    files = {name for name in files if not name.startswith(".git/")}
    assert files == {*FILES, "bin/run.sh", "link"}
    assert (dest / "shop/prices.py").read_text() == SUM_BUG["shop/prices.py"]
    assert "test_some" not in (dest / "tests/test_prices.py").read_text()
    assert (dest / "bin/run.sh").stat().st_mode & 0o100
    assert git(dest, "log", "--oneline", "--all").count("\n") == 1
    assert "fatal" in git(dest, "show", "HEAD~1")
    assert git(dest, "status", "--porcelain") == ""
    assert git(dest, "remote") == ""
    assert git(dest, "reflog") == ""
    assert git(dest, "tag") == ""
    assert "result += price" not in git(dest, "log", "-p", "--all")
    assert audit_leaks(littered, sum_task.artifact, dest) == []


def test_sealed_tree_is_reproducible(
    littered: Environment, sum_task: SolveTask, tmp_path: Path
) -> None:
    heads = []
    for name in ("one", "two"):
        write_sealed_tree(littered, sum_task.artifact, tmp_path / name)
        heads.append(git(tmp_path / name, "rev-parse", "HEAD"))
    assert heads[0] == heads[1]


def test_destination_must_be_empty(
    littered: Environment, sum_task: SolveTask, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    with pytest.raises(UserError, match="not empty"):
        write_sealed_tree(littered, sum_task.artifact, tmp_path / "full")


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


def test_audit_finds_every_leak(littered: Environment, sum_task: SolveTask, tmp_path: Path) -> None:
    artifact = sum_task.artifact
    dest = tmp_path / "sealed"
    write_sealed_tree(littered, artifact, dest)
    assert audit_leaks(littered, artifact, dest) == []
    (dest / "copy.txt").write_text(FILES["shop/prices.py"])
    (dest / "x.orig").write_text("")
    (dest / "bug_inject.diff").write_text("")
    found = "\n".join(audit_leaks(littered, artifact, dest))
    for word in ("copy.txt: holds the original of shop/prices.py", "x.orig", "bug_inject.diff"):
        assert word in found


@pytest.mark.parametrize("what", ["commit", "remote", "reflog", "pack", "object"])
def test_audit_finds_history(
    littered: Environment, sum_task: SolveTask, tmp_path: Path, what: str
) -> None:
    dest = tmp_path / "sealed"
    write_sealed_tree(littered, sum_task.artifact, dest)
    me = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    if what == "commit":
        git(dest, *me, "commit", "-q", "--allow-empty", "-m", "second")
    elif what == "remote":
        git(dest, "remote", "add", "origin", "https://example.org/x")
    elif what == "reflog":
        (dest / ".git/logs").mkdir()
    elif what == "pack":
        git(dest, "repack", "-adq")
    else:
        git(dest, "hash-object", "-w", str(littered.tree / "shop/prices.py"))
    assert audit_leaks(littered, sum_task.artifact, dest) != []


def test_audit_finds_installed_copies(
    littered: Environment, sum_task: SolveTask, tmp_path: Path
) -> None:
    packages = tmp_path / "site-packages"
    (packages / "shop/__pycache__").mkdir(parents=True)
    (packages / "shop/prices.py").write_text(FILES["shop/prices.py"])
    (packages / "shop/__pycache__/prices.cpython-311.pyc").write_text("")
    dest = tmp_path / "sealed"
    write_sealed_tree(littered, sum_task.artifact, dest)
    environment = dataclasses.replace(littered, mounts={str(packages): "/opt/site-packages"})
    found = audit_leaks(environment, sum_task.artifact, dest)
    assert found == [
        "/opt/site-packages/shop/__pycache__/prices.cpython-311.pyc: byte code of the original",
        "/opt/site-packages/shop/prices.py: holds the original of shop/prices.py",
    ]


def test_sealed_environment_has_no_byte_code(environment: Environment) -> None:
    assert sealed_environment(environment) is environment
    cached = dataclasses.replace(
        environment,
        mounts={**environment.mounts, "/host/pycache": "/opt/pycache"},
        variables={**environment.variables, "PYTHONPYCACHEPREFIX": "/opt/pycache"},
    )
    sealed = sealed_environment(cached)
    assert (sealed.mounts, sealed.variables) == (environment.mounts, environment.variables)
    assert sealed.digest != cached.digest


def test_audit_finds_a_single_removed_line(
    littered: Environment, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    """A comment with the original line was no leak as long as the file was another."""
    original = "return cents + cents * rate // 100"
    text = FILES["shop/prices.py"].replace(original, "return cents * rate // 100")
    artifact = make_artifact({"shop/prices.py": text}, ("tests/test_prices.py::test_with_tax",))
    dest = tmp_path / "sealed"
    write_sealed_tree(littered, artifact, dest)
    assert audit_leaks(littered, artifact, dest) == []
    (dest / "notes.md").write_text(f"It was:   # {original}\n")
    found = audit_leaks(littered, artifact, dest)
    assert found == [f"notes.md: holds a removed line of shop/prices.py: {original}"]


def test_a_moved_line_is_no_leak(
    littered: Environment, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    text = FILES["shop/prices.py"].replace(
        "    return cents - cents * percent // 100",
        "    if 1:\n        return cents - cents * percent // 100 + 1",
    )
    artifact = make_artifact({"shop/prices.py": text}, ("tests/test_prices.py::test_discount[0]",))
    write_sealed_tree(littered, artifact, tmp_path / "sealed")
    assert audit_leaks(littered, artifact, tmp_path / "sealed") == []
