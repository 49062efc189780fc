"""Real prepares of the vendored samples; further trees share their installed test tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from selfplay.repo.prepare import PreparedRepo, prepare, spec_digest
from selfplay.repo.spec import RepoSpec, find_repos_dir, load_spec
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.sandbox.select import open_sandbox

Git = Callable[..., str]
MakeEnvironment = Callable[[Mapping[str, str]], Environment]


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that the sandbox's uid can enter (pytest's own are private)."""
    folder = Path(tempfile.mkdtemp(prefix="selfplay-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    opened = open_sandbox("bubblewrap")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def ledger_spec() -> RepoSpec:
    return load_spec("sample-ledger", find_repos_dir())


@dataclass(frozen=True)
class Leftovers:
    """What two killed prepares left behind, before the one that `ledger` makes."""

    partial: Path
    target: Path


@pytest.fixture(scope="session")
def leftovers(place: Path, ledger_spec: RepoSpec) -> Leftovers:
    target = place / "repos" / f"{ledger_spec.name}-{spec_digest(ledger_spec)[:16]}"
    found = Leftovers(partial=target.with_name(f"{target.name}.tmp"), target=target)
    for folder in (found.partial, found.target):
        (folder / "tree").mkdir(parents=True)
        (folder / "tree" / "half.py").write_text("x = 1\n", encoding="utf-8")
    (target / "profile.json").write_text("{", encoding="utf-8")
    return found


@pytest.fixture(scope="session")
def ledger(
    place: Path, sandbox: Sandbox, ledger_spec: RepoSpec, leftovers: Leftovers
) -> PreparedRepo:
    return prepare(ledger_spec, sandbox, cache_dir=place)


TEXTKIT = """
import sys
from pathlib import Path
from selfplay.repo.prepare import prepare
from selfplay.repo.spec import find_repos_dir, load_spec
from selfplay.sandbox.select import open_sandbox
prepared = prepare(
    load_spec("sample-textkit", find_repos_dir()),
    open_sandbox("bubblewrap"),
    cache_dir=Path(sys.argv[1]),
)
sys.stdout.write(str(prepared.environment.tree))
"""


@pytest.fixture(scope="session")
def textkit_trees(place: Path) -> list[str]:
    """Where two processes that prepare the same repository at once say that it lies."""
    argv = [sys.executable, "-c", TEXTKIT, str(place)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return said


@pytest.fixture
def make_environment(ledger: PreparedRepo, place: Path) -> MakeEnvironment:
    """An environment of the given files, with the test tools that `ledger` installed."""

    def make(files: Mapping[str, str]) -> Environment:
        tree = Path(tempfile.mkdtemp(dir=place)) / "tree"
        for name, text in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text, encoding="utf-8")
        make_readable(tree.parent)
        return replace(ledger.environment, tree=tree, digest=str(tree))

    return make


@pytest.fixture
def git() -> Git:
    """git(folder, *argv): the machine's own git, as its user would call it."""

    def run(folder: Path, *argv: str) -> str:
        person = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *person, *argv], cwd=folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    return run
