"""Git repositories as they also are: odd authors, links in the place of folders, other hashes,
bare, shallow, with submodules. No test is run here; `test_mine_histories.py` does that."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from selfplay.bug_sources.commit_trees import commit_environment, place_name, split_name
from selfplay.bug_sources.commits import list_commits, read_commit
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.sources.fetch import fetch, local_commit
from selfplay.repo.spec import LocalSource, RepoSpec
from selfplay.sandbox.base import Environment

BUGGY = b"def f(x):\n    return x - 1\n"
MENDED = BUGGY.replace(b"-", b"+")
Files = dict[str, bytes]


class Work:
    """A git work tree; what its commits say and who made them is bytes."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.git("init", "-q", "-b", "main", *options)

    def git(self, *words: str, person: bytes = b"a@b", stdin: bytes = b"") -> str:
        made = {
            f"GIT_{who}_{what}".encode(): person
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        return subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env={**os.environb, **made},
            input=stdin,
            check=True,
            capture_output=True,
        ).stdout.decode()

    def commit(self, message: bytes, files: Files, *options: str, person: bytes = b"a@b") -> str:
        """Write files and commit all; the id."""
        for name, content in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        self.git("add", "-A", "-f")
        words = ("commit", "-q", "--allow-empty-message", "--cleanup=verbatim", "-F", "-")
        self.git(*options, *words, person=person, stdin=message)
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    work = Work(tmp_path / "work")
    work.commit(b"Begin", {"lib/m.py": BUGGY, "docs/told.md": b"old\n", "lib/told.md": b"of lib\n"})
    return work


def prepared(source: Path, folder: Path) -> PreparedRepo:
    """As `prepare` returns it, with nothing installed and no test known."""
    folder.mkdir()
    spec = RepoSpec(name="r", source=LocalSource(path=str(source)))
    found = fetch(spec, folder)
    return PreparedRepo(
        name="r",
        spec=spec,
        environment=Environment(tree=found.tree, mounts={}, path="", digest=""),
        history=found.history,
        profile=RepoProfile(runner="pytest", test_files={}, tests={}),
        functions=(),
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [(b"caf\xe9 \xff", "café ÿ"), (b"", ""), (b"\n\n", ""), (b"\r\nb\r\n", "b")],
)
def test_messages_and_names_that_are_no_text(
    work: Work, tmp_path: Path, message: bytes, told: str
) -> None:
    """Git takes a message that is not UTF-8 for Latin-1; a name stays as its bytes."""
    sha = work.commit(message, {"lib/m.py": MENDED}, person=b"J\xf6rg")
    found = prepared(work.folder, tmp_path / "to")
    (commit,) = list_commits(found)
    assert commit.sha == sha and len(commit.parents) == 1
    assert commit.author.encode("utf-8", "surrogateescape").startswith(b"J")
    assert read_commit(found, sha).message == told


@pytest.mark.parametrize("coding", ["latin-1", "no-such-coding"])
def test_commits_that_name_a_coding(work: Work, tmp_path: Path, coding: str) -> None:
    config = ("-c", f"i18n.commitEncoding={coding}")
    sha = work.commit(b"caf\xe9", {"lib/m.py": MENDED}, *config)
    found = prepared(work.folder, tmp_path / "to")
    assert [c.sha for c in list_commits(found)] == [sha]
    assert read_commit(found, sha).subject.startswith("caf")


def test_a_folder_that_became_a_link_writes_nothing_elsewhere(work: Work, tmp_path: Path) -> None:
    """Documents are put back as before a commit: not through a link that it put in their place."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "told.md").write_text("precious\n")
    (work.folder / "docs/told.md").unlink()
    (work.folder / "docs").rmdir()
    (work.folder / "docs").symlink_to(outside)
    work.git("add", "-A")
    first = work.commit(b"Mend f; documents elsewhere", {"lib/m.py": MENDED})
    (work.folder / "docs").unlink()
    (work.folder / "docs").symlink_to("lib")
    second = work.commit(b"Documents beside the code", {})
    found = prepared(work.folder, tmp_path / "to")
    commit = read_commit(found, first)
    assert "docs/told.md" in commit.before and commit.odd == ("docs",)
    tree = commit_environment(found, commit).tree
    assert (outside / "told.md").read_text() == "precious\n"
    assert (tree / "docs/told.md").read_text() == "old\n" and not (tree / "docs").is_symlink()
    commit = read_commit(found, second, f"{first}^1")
    tree = commit_environment(found, commit, ["docs/told.md"]).tree
    assert (tree / "lib/told.md").read_text() == "of lib\n"


def test_hashes_of_64_digits(tmp_path: Path) -> None:
    work = Work(tmp_path / "work", "--object-format=sha256")
    work.commit(b"Begin", {"lib/m.py": BUGGY})
    sha = work.commit(b"Mend f", {"lib/m.py": MENDED})
    found = prepared(work.folder, tmp_path / "to")
    (commit,) = list_commits(found)
    assert commit.sha == sha and len(sha) == 64
    read = read_commit(found, sha)
    assert read.after["lib/m.py"].content == MENDED and read.before["lib/m.py"].content == BUGGY
    assert split_name(f"r@{sha}") == ("r", sha) and split_name(place_name("r", sha))[1]


def test_bare_shallow_loose_and_linked_repositories(work: Work, tmp_path: Path) -> None:
    """Each has the commits that its owner sees, and HEAD's files."""
    sha = work.commit(b"Mend f", {"lib/m.py": MENDED})
    last = work.commit(b"Say so", {"README.md": b"f\n"})
    at = str(work.folder)
    ways = {
        "bare": ("clone", "-q", "--bare", at),
        "shallow": ("clone", "-q", "--depth", "2", f"file://{at}"),
        "shared": ("clone", "-q", "--shared", at),
        "linked": ("worktree", "add", "-q", "--detach"),
    }
    for name, words in ways.items():
        work.git(*words, str(tmp_path / name))
        assert local_commit(tmp_path / name) == last, name
        found = prepared(tmp_path / name, tmp_path / f"{name}-to")
        assert (found.environment.tree / "lib/m.py").read_bytes() == MENDED
        expected = [last] if name == "shallow" else [last, sha]
        assert [c.sha for c in list_commits(found)] == expected, name


def test_roots_merges_of_three_and_submodules(work: Work, tmp_path: Path) -> None:
    """A root is no change; a merge is read against its first parent; a submodule is odd."""
    for branch in ("one", "two"):
        work.git("checkout", "-q", "-b", branch, "main")
        work.commit(b"Add", {f"{branch}.txt": b"1\n"})
    work.git("checkout", "-q", "main")
    work.commit(b"Mend f", {"lib/m.py": MENDED})
    work.git("merge", "-q", "one", "two", "-m", "Merge of three")
    merge = work.git("rev-parse", "HEAD").strip()
    work.git("update-index", "--add", "--cacheinfo", f"160000,{merge},vendor")
    work.git("commit", "-qm", "A submodule")
    found = prepared(work.folder, tmp_path / "to")
    commits = list_commits(found)
    assert [len(c.parents) for c in commits] == [1, 3, 1, 1, 1]
    assert sorted(read_commit(found, merge).after) == ["one.txt", "two.txt"]
    assert read_commit(found, commits[0].sha).odd == ("vendor",)
    assert [c.sha for c in list_commits(found, max_commits=1)] == [c.sha for c in commits[:2]]
