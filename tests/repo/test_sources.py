"""Fetching: stacked releases, git sources and work trees, and the past that they leave."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from selfplay.errors import RepoError, UserError
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.history import past_changes
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.sources.fetch import Fetched, fetch
from selfplay.repo.sources.git import git
from selfplay.repo.spec import GitSource, LocalSource, PypiSource, RepoSpec
from selfplay.sandbox.base import Environment

OLD = "def twice(x):\n    return x + x\n\n\ndef same(x):\n    return x\n"
NEW = "def twice(x):\n    return 2 * x\n\n\ndef same(x):\n    return x\n\n\ndef late():\n    pass\n"


def release(folder: Path, version: str, files: dict[str, str]) -> None:
    with tarfile.open(folder / f"calc-{version}.tar.gz", "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"calc-{version}/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))


def prepared(fetched: Fetched, spec: RepoSpec) -> PreparedRepo:
    """Enough of a prepared repository to ask for its past."""
    source = (fetched.tree / "calc.py").read_text(encoding="utf-8")
    return PreparedRepo(
        name=spec.name,
        spec=spec,
        environment=Environment(tree=fetched.tree, mounts={}, path="", digest=""),
        history=fetched.history,
        profile=RepoProfile(runner="pytest", test_files={}, tests={}),
        functions=tuple(list_functions(source, "calc.py")),
    )


def commit(work: Path, subject: str, files: dict[str, str]) -> str:
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text, encoding="utf-8")
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", subject, cwd=work)
    return git("rev-parse", "HEAD", cwd=work).strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work tree of two commits, with what a hostile one would add: a hook, export-ignore."""
    folder = tmp_path / "calc"
    folder.mkdir()
    git("init", "-q", "-b", "main", cwd=folder)
    commit(folder, "Doubling", {"calc.py": OLD, ".gitattributes": "test_calc.py export-ignore\n"})
    commit(folder, "Multiply", {"calc.py": NEW, "test_calc.py": "def test(): pass\n"})
    hook = folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'hooked'}\n", encoding="utf-8")
    hook.chmod(0o755)
    return folder


def test_releases_are_stacked_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, out = tmp_path / "index", tmp_path / "out"
    index.mkdir()
    out.mkdir()
    release(index, "0.9", {"calc.py": OLD, "gone.py": "x = 1\n"})
    release(index, "1.0", {"calc.py": NEW})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    source = PypiSource(project="calc", version="1.0", history=("0.9",))
    spec = RepoSpec(name="calc", source=source)
    fetched = fetch(spec, out)
    assert fetched.history is not None
    assert {p.name for p in fetched.tree.iterdir()} == {"calc.py"}
    subjects = git("log", "--reverse", "--format=%s", "HEAD", cwd=fetched.history).split("\n")
    assert subjects[:2] == ["calc 0.9", "calc 1.0"]
    assert git("ls-tree", "--name-only", "HEAD", cwd=fetched.history).split() == ["calc.py"]
    (change,) = past_changes(prepared(fetched, spec), "calc.py", "twice", 5)
    assert change.subject == "calc 1.0" and len(change.commit) == 40
    assert (change.before, change.after) == (
        "def twice(x):\n    return x + x\n",
        "def twice(x):\n    return 2 * x\n",
    )
    for name in ("same", "late", "nothing"):  # unchanged, new, unknown
        assert past_changes(prepared(fetched, spec), "calc.py", name, 5) == []


def test_a_work_tree_is_taken_at_head(work: Path, tmp_path: Path) -> None:
    """Uncommitted edits stay out, files that releases omit stay in, nothing of it is run."""
    (work / "calc.py").write_text("uncommitted\n", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    spec = RepoSpec(name="calc", source=LocalSource(path=str(work)))
    fetched = fetch(spec, out)
    assert (fetched.tree / "calc.py").read_text(encoding="utf-8") == NEW
    assert (fetched.tree / "test_calc.py").is_file() and not (fetched.tree / ".git").exists()
    assert not (tmp_path / "hooked").exists()
    (change,) = past_changes(prepared(fetched, spec), "calc.py", "twice", 5)
    assert change.subject == "Multiply"
    assert (work / "calc.py").read_text(encoding="utf-8") == "uncommitted\n"


def test_limit_and_order_of_past_changes(work: Path, tmp_path: Path) -> None:
    commit(work, "Shift", {"calc.py": NEW.replace("2 * x", "x << 1")})
    out = tmp_path / "out"
    out.mkdir()
    spec = RepoSpec(name="calc", source=LocalSource(path=str(work)))
    repo = prepared(fetch(spec, out), spec)
    changes = past_changes(repo, "calc.py", "twice", 5)
    assert [change.subject for change in changes] == ["Shift", "Multiply"]
    assert changes[0].before == changes[1].after
    assert past_changes(repo, "calc.py", "twice", 1) == changes[:1]


def test_git_at_an_older_commit(work: Path, tmp_path: Path) -> None:
    first = git("rev-parse", "HEAD~1", cwd=work).strip()
    out = tmp_path / "out"
    out.mkdir()
    spec = RepoSpec(name="calc", source=GitSource(url=work.as_uri(), commit=first))
    fetched = fetch(spec, out)
    assert (fetched.tree / "calc.py").read_text(encoding="utf-8") == OLD
    assert fetched.history is not None
    assert git("rev-parse", "HEAD", cwd=fetched.history).strip() == first
    assert past_changes(prepared(fetched, spec), "calc.py", "twice", 5) == []  # the future is not


def test_a_commit_that_is_not_there(work: Path, tmp_path: Path) -> None:
    source = GitSource(url=work.as_uri(), commit="ab" * 20)
    with pytest.raises(RepoError, match="has no commit abab"):
        fetch(RepoSpec(name="calc", source=source), tmp_path)


def test_a_work_tree_without_commits(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git("init", "-q", cwd=tmp_path / "empty")
    source = LocalSource(path=str(tmp_path / "empty"))
    with pytest.raises(UserError, match="commit first"):
        fetch(RepoSpec(name="empty", source=source), tmp_path)


def test_a_plain_directory_without_its_litter(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("p/__init__.py", "p/__pycache__/p.pyc", ".venv/pyvenv.cfg", ".venv/bin/x.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("", encoding="utf-8")
    (project / "secret").symlink_to("/etc/passwd")
    fetched = fetch(RepoSpec(name="p", source=LocalSource(path=str(project))), tmp_path)
    found = {p.relative_to(fetched.tree).as_posix() for p in fetched.tree.rglob("*")}
    assert found == {"p", "p/__init__.py"}
    assert fetched.history is None


def test_git_heeds_no_configuration_but_ours(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the tree's fsmonitor and filters nor the variables of a hook that we run inside."""
    marker = tmp_path / "ran"
    with (work / ".git" / "config").open("a", encoding="utf-8") as config:
        config.write(f"[core]\n\tfsmonitor = touch {marker}\n\thooksPath = hooks\n")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert git("status", "--porcelain", cwd=work) == ""
    assert not marker.exists()
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    subprocess.run(["git", "-C", work, "status"], capture_output=True)
    assert marker.exists()  # it would have been run


def test_servers_are_reached_as_the_users_git_does(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror in the user's configuration is asked; what it says of contents is not taken."""
    (work / "lines.txt").write_bytes(b"one\r\ntwo\n")
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", "lines", cwd=work)
    head = git("rev-parse", "HEAD", cwd=work).strip()
    more = tmp_path / "more"
    more.write_text(f'[url "file://{tmp_path}/"]\n\tinsteadOf = https://mirrored.invalid/\n')
    own = tmp_path / "gitconfig"
    lines = "[core]\n\tautocrlf = input\n\teol = crlf\n[http]\n\tsslVerify\n"
    own.write_text(f"[include]\n\tpath = {more}\n{lines}")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(own))
    source = GitSource(url="https://mirrored.invalid/calc", commit=head)
    (tmp_path / "fetched").mkdir()
    fetched = fetch(RepoSpec(name="calc", source=source), tmp_path / "fetched")
    assert (fetched.tree / "lines.txt").read_bytes() == b"one\r\ntwo\n"
    assert not list((tmp_path / "fetched").glob("gitconfig*"))
