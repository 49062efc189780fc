"""The same behavioural suite for every backend: `sandbox` is each production backend in turn."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfplay.sandbox.base import Environment, Job, RunResult, Sandbox
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.select import open_sandbox

PATH = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"
BACKENDS = ["bubblewrap", "forked", pytest.param("docker", marks=pytest.mark.docker)]
Run = Callable[..., RunResult]


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that the sandbox's uid can enter (pytest's own are private)."""
    folder = Path(tempfile.mkdtemp(prefix="selfplay-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def environment(place: Path) -> Environment:
    tree = place / "tree"
    (tree / "package" / "sub").mkdir(parents=True)
    (tree / "package" / "module.py").write_text("VALUE = 'original'\n")
    (tree / "package" / "sub" / "deep.txt").write_text("deep\n")
    (tree / "plain.txt").write_text("plain\n")
    (tree / "with space; rm -rf").write_text("odd name\n")
    (tree / "link").symlink_to("plain.txt")
    make_readable(tree)
    return Environment(tree=tree, mounts=host_mounts(), path=PATH, digest="tests")


class Forked:
    """Runs every command by way of a forked interpreter: the walls around it are the subject."""

    name = "forked"

    def __init__(self) -> None:
        self.inner = BubblewrapSandbox(preload=True)

    def run(self, job: Job) -> RunResult:
        argv = ["prlimit", "--core=0", "--", *job.argv]
        setup = f"import os; os.execv('/usr/bin/prlimit', {argv!r})"
        return self.inner.run(replace(job, module=("timeit", "-n", "1", "-s", setup)))

    def close(self) -> None:
        assert self.inner.num_forked > 0
        self.inner.close()


@pytest.fixture(scope="session", params=BACKENDS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    opened = Forked() if request.param == "forked" else open_sandbox(request.param)
    yield opened
    opened.close()


@pytest.fixture
def run(sandbox: Sandbox, environment: Environment) -> Run:
    """run("sh", "-c", ..., layer=..., quota=...) in the backend at hand."""

    def start(*argv: str, **keywords: Any) -> RunResult:
        return sandbox.run(Job(environment=environment, argv=argv, **keywords))

    return start


@pytest.fixture(autouse=True)
def tree_stays(environment: Environment) -> Iterator[None]:
    """No run may write the original tree."""
    before = snapshot(environment.tree)
    yield
    assert snapshot(environment.tree) == before


def snapshot(tree: Path) -> dict[str, tuple[int, int, bytes]]:
    """Path -> (mode, modification time, content) of everything below."""
    found = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(tree))] = (status.st_mode, status.st_mtime_ns, content)
    return found
