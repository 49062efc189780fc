"""Git work trees as people have them: branches, links, other owners, odd subjects."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from selfplay.errors import RepoError
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.history import PastChange, past_changes
from selfplay.repo.prepare import PreparedRepo, spec_digest
from selfplay.repo.sources.fetch import Fetched, fetch
from selfplay.repo.sources.git import git as our_git
from selfplay.repo.spec import GitSource, LocalSource, RepoSpec
from selfplay.sandbox.base import Environment
from selfplay.sandbox.host import SANDBOX_UID
from tests.repo.conftest import Git

VERSIONS = {
    "First": "def f(x):\n    return x\n\n\ndef g():\n    return 1\n",
    "Grow f": "def f(x):\n    return x + 1\n\n\ndef g():\n    return 1\n",
    "Comment": "# Two functions.\ndef f(x):\n    return x + 1\n\n\ndef g():\n    return 1\n",
    "Change both": "def f(x, y=0):\n    return x + y\n\n\ndef g():\n    return 2\n",
}


@pytest.fixture
def work(tmp_path: Path, git: Git) -> Path:
    """A git work tree with four commits, attributes that hide its tests, and uncommitted dirt."""
    folder = tmp_path / "work"
    (folder / "tests").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "tests" / "test_m.py").write_text("def test(): pass\n")
    (folder / ".gitattributes").write_text("tests export-ignore\n*.py export-subst\n")
    (folder / ".gitignore").write_text("ignored\n")
    for subject, text in VERSIONS.items():
        (folder / "m.py").write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", subject)
    (folder / "m.py").write_text("not committed\n")
    (folder / "untracked.py").write_text("")
    return folder


def fetched(path: Path, folder: Path) -> Fetched:
    folder.mkdir()
    return fetch(RepoSpec(name="r", source=LocalSource(path=str(path))), folder)


def prepared_of(found: Fetched) -> PreparedRepo:
    """As `prepare` returns it, with nothing installed."""
    return PreparedRepo(
        name="r",
        spec=RepoSpec(name="r", source=LocalSource(path=str(found.tree))),
        environment=Environment(tree=found.tree, mounts={}, path="", digest=""),
        history=found.history,
        profile=RepoProfile(runner="pytest", test_files={}, tests={}),
        functions=(),
    )


def test_a_work_tree_is_taken_at_its_commit(work: Path, tmp_path: Path, git: Git) -> None:
    found = fetched(work, tmp_path / "to")
    names = sorted(p.relative_to(found.tree).as_posix() for p in found.tree.rglob("*.*"))
    assert names == [".gitattributes", ".gitignore", "m.py", "tests/test_m.py"]
    assert (found.tree / "m.py").read_text() == VERSIONS["Change both"]
    assert found.history is not None
    assert git(found.history, "log", "--format=%s").splitlines() == list(VERSIONS)[::-1]
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["history.git", "tree"]


def test_past_changes(work: Path, tmp_path: Path) -> None:
    prepared = prepared_of(fetched(work, tmp_path / "to"))
    changes = past_changes(prepared, "m.py", "f", limit=9)
    assert [c.subject for c in changes] == ["Change both", "Grow f"]
    assert changes[1] == PastChange(
        commit=changes[1].commit,
        subject="Grow f",
        before="def f(x):\n    return x\n",
        after="def f(x):\n    return x + 1\n",
    )
    assert changes[0].after == "def f(x, y=0):\n    return x + y\n"
    assert [c.subject for c in past_changes(prepared, "m.py", "g", limit=9)] == ["Change both"]
    assert len(past_changes(prepared, "m.py", "f", limit=1)) == 1
    assert past_changes(prepared, "m.py", "nothing", limit=9) == []
    assert past_changes(prepared, "no.py", "f", limit=9) == []


def test_changes_on_a_merged_branch_are_told(work: Path, tmp_path: Path, git: Git) -> None:
    git(work, "checkout", "-q", "-f", "-b", "side", "HEAD~1")
    (work / "m.py").write_text(VERSIONS["Comment"] + "\n\ndef h():\n    return 0\n")
    git(work, "commit", "-qam", "Add h")
    (work / "m.py").write_text(VERSIONS["Comment"] + "\n\ndef h():\n    return 3\n")
    git(work, "commit", "-qam", "Change h")
    git(work, "checkout", "-q", "main")
    git(work, "merge", "-q", "-X", "theirs", "--no-edit", "side")
    prepared = prepared_of(fetched(work, tmp_path / "to"))
    (change,) = past_changes(prepared, "m.py", "h", limit=9)
    assert change.subject == "Change h" and change.before.endswith("return 0\n")
    assert {c.subject for c in past_changes(prepared, "m.py", "f", limit=9)} == {
        "Change both", "Grow f",
    }  # fmt: skip


def test_the_digest_follows_the_commit(work: Path, git: Git) -> None:
    spec = RepoSpec(name="r", source=LocalSource(path=str(work)))
    before = spec_digest(spec)
    (work / "m.py").write_text("more dirt\n")
    assert spec_digest(spec) == before
    git(work, "commit", "-qam", "More")
    assert spec_digest(spec) != before


def test_a_plain_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "plain"
    for name in ("a.py", "sub/b.py", ".venv/pyvenv.cfg", ".venv/lib/c.py", "__pycache__/a.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "link").symlink_to("a.py")
    (folder / "folder").symlink_to("sub")
    (folder / "secret").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    with caplog.at_level(logging.WARNING):
        found = fetched(folder, tmp_path / "to")
    names = sorted(p.relative_to(found.tree).as_posix() for p in found.tree.rglob("*"))
    assert names == ["a.py", "folder", "link", "sub", "sub/b.py"]
    assert found.history is None and past_changes(prepared_of(found), "a.py", "f", 3) == []
    assert "secret is a link out of its tree" in caplog.text


def test_links_of_a_git_source_that_leave_it(work: Path, tmp_path: Path, git: Git) -> None:
    (work / "out").symlink_to("/etc/passwd")
    git(work, "add", "out")
    git(work, "commit", "-qm", "link")
    assert not (fetched(work, tmp_path / "to").tree / "out").is_symlink()


def test_a_url_that_is_not_there(tmp_path: Path) -> None:
    source = GitSource(url=f"file://{tmp_path}/none", commit="ab" * 20)
    with pytest.raises(RepoError, match=r"git clone failed: fatal: .*none"):
        fetch(RepoSpec(name="r", source=source), tmp_path)


def test_a_work_tree_of_somebody_else(work: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:  # otherwise all that we can write is our own
        for entry in [work, *work.rglob("*")]:
            os.lchown(entry, SANDBOX_UID, SANDBOX_UID)
    assert (fetched(work, tmp_path / "to").tree / "m.py").is_file()


def test_no_git_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepoError, match="is git installed"):
        our_git("version")


def test_a_hostile_subject_is_no_option(work: Path, tmp_path: Path, git: Git) -> None:
    evil = tmp_path / "evil"
    (work / "m.py").write_text(VERSIONS["First"])
    git(work, "commit", "-qam", f"Back\x0c--output={evil}\x0b--output={evil}\u2028--output={evil}")
    prepared = prepared_of(fetched(work, tmp_path / "to"))
    changes = past_changes(prepared, "m.py", "g", limit=1)
    assert changes[0].subject.startswith("Back") and changes[0].after.endswith("return 1\n")
    assert not list(tmp_path.glob("evil*"))


def test_form_feeds_are_no_line_ends(work: Path, tmp_path: Path, git: Git) -> None:
    for number in (1, 2):
        (work / "m.py").write_text(f"x = 1\n\x0c\ndef f():\n    return {number}\n\x0c\ny = 2\n")
        git(work, "commit", "-qam", f"Number {number}")
    prepared = prepared_of(fetched(work, tmp_path / "to"))
    (newest, *_) = past_changes(prepared, "m.py", "f", limit=9)
    assert newest.before == "def f():\n    return 1\n"
    assert newest.after == "def f():\n    return 2\n"
