"""Attributes of git: trees hold what a checkout would, and patches against them apply elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from selfplay.bug_sources.commit_trees import commit_environment
from selfplay.bug_sources.commits import read_commit
from selfplay.bugs.patches.layers import apply_patch, make_patch, read_file, reverse_patch
from selfplay.errors import PatchError
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.sources.fetch import fetch
from selfplay.repo.spec import GitSource, RepoSpec
from selfplay.sandbox.base import Environment

OLD = "# $Id$\ndef f(x):\n    return x\n\n\ndef g(x):\n    return x + {}\n"
BLOBS = {  # path: whether its blob holds CRLF
    "crlf.py": False,
    "deep/down/crlf.py": False,
    "ident.py": False,
    "both.py": False,
    "auto.py": False,
    "auto_of_crlf.py": True,
    "blob.py": True,
    "lf.py": False,
    "wide.txt": False,
}
ATTRIBUTES = {
    ".gitattributes": "crlf.py text eol=crlf\nident.py ident\nboth.py ident text eol=crlf\n"
    "auto*.py text=auto\nblob.py -text\nwide.txt text working-tree-encoding=UTF-16LE\n",
    "deep/.gitattributes": "*.py eol=crlf filter=none\n",
}


def plain_git(*words: str, cwd: Path, stdin: bytes = b"") -> bytes:
    """Git as anybody has it on Linux."""
    person = {
        f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    variables = {**os.environ, **person, "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(["git", *words], cwd=cwd, env=variables, input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Two commits whose blobs are just what `BLOBS` says; the second mends each file."""
    folder = tmp_path / "work"
    folder.mkdir()
    plain_git("init", "-q", "-b", "main", cwd=folder)
    for number, attributes in ((1, ATTRIBUTES), (2, {**ATTRIBUTES, "lf.gitattributes": "x"})):
        files = {path: OLD.format(number) for path in BLOBS} | attributes
        for path, text in files.items():
            raw = text.replace("\n", "\r\n") if BLOBS.get(path) else text
            blob = plain_git("hash-object", "-w", "--stdin", cwd=folder, stdin=raw.encode())
            entry = f"100644,{blob.decode().strip()},{path}"
            plain_git("update-index", "--add", "--cacheinfo", entry, cwd=folder)
        plain_git("commit", "-qm", f"v{number}", cwd=folder)
    return folder


@pytest.fixture
def prepared(work: Path, tmp_path: Path) -> PreparedRepo:
    head = plain_git("rev-parse", "HEAD", cwd=work).decode().strip()
    spec = RepoSpec(name="a", source=GitSource(url=str(work), commit=head))
    (tmp_path / "prepared").mkdir()
    fetched = fetch(spec, tmp_path / "prepared")
    return PreparedRepo(
        name="a",
        spec=spec,
        environment=Environment(tree=fetched.tree, mounts={}, path="", digest=""),
        history=fetched.history,
        profile=RepoProfile(runner="pytest", test_files={}, tests={}),
        functions=(),
    )


def clone_of(work: Path, place: Path) -> Path:
    plain_git("clone", "-q", str(work), str(place), cwd=work)
    return place


def in_git(content: bytes) -> bytes:
    """With the keyword as git stores it."""
    before, found, after = content.partition(b"$Id: ")
    return before + b"$Id" + after[after.index(b"$") :] if found else content


def test_trees_are_checkouts(prepared: PreparedRepo, work: Path, tmp_path: Path) -> None:
    clone = clone_of(work, tmp_path / "clone")
    tree = prepared.environment.tree
    commit = read_commit(prepared, "HEAD")
    at_commit = commit_environment(prepared, commit).tree
    for path in BLOBS:
        theirs = (clone / path).read_bytes()
        assert (tree / path).read_bytes() == in_git(theirs), path
        assert (at_commit / path).read_bytes() == in_git(theirs), path
        assert commit.after[path].content == in_git(theirs), path
        assert (commit.before[path].content or b"").replace(b"1", b"2") == in_git(theirs), path
    assert b"$Id: " in (clone / "ident.py").read_bytes()
    assert b"\r\n" in (clone / "deep/down/crlf.py").read_bytes()
    assert (tree / "wide.txt").read_bytes().startswith(b"#\0")


def test_a_mined_patch_applies_in_anybodys_checkout(
    prepared: PreparedRepo, work: Path, tmp_path: Path
) -> None:
    commit = read_commit(prepared, "HEAD")
    tree = commit_environment(prepared, commit).tree
    bug = {path: commit.before[path] for path in BLOBS if path != "wide.txt"}
    patch = make_patch(tree, {}, bug)
    assert apply_patch(tree, {}, patch) == bug
    clone = clone_of(work, tmp_path / "clone")
    for text in (patch, reverse_patch(patch), patch):
        plain_git("apply", "-", cwd=clone, stdin=text.encode())
    for path, change in bug.items():
        assert in_git((clone / path).read_bytes()) == change.content, path


def test_a_diff_of_anybodys_checkout_is_a_fix(
    prepared: PreparedRepo, work: Path, tmp_path: Path
) -> None:
    """`git diff` prints the line ends that git stores."""
    commit = read_commit(prepared, "HEAD")
    tree = commit_environment(prepared, commit).tree
    bug = {path: commit.before[path] for path in BLOBS if path != "wide.txt"}
    clone = clone_of(work, tmp_path / "clone")
    plain_git("apply", "-", cwd=clone, stdin=make_patch(tree, {}, bug).encode())
    fix = plain_git("diff", "-R", cwd=clone).decode()
    assert "\n-    return x + 1\n" in fix
    assert apply_patch(tree, bug, fix) == {}


def test_line_ends_are_taken_from_a_file_only_where_all_are_alike(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"a = 1\r\nb = 2\r\nc = 3")
    (tmp_path / "b.py").write_bytes(b"a = 1\r\nb = 2\nc = 3\r\n")
    patch = (
        "diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n@@ -1,3 +1,4 @@\n a = 1\n-b = 2\n"
        "+b = 4\n+\n c = 3\n\\ No newline at end of file\n"
    )
    state = apply_patch(tmp_path, {}, patch.format("a.py"))
    assert read_file(tmp_path, state, "a.py") == b"a = 1\r\nb = 4\r\n\r\nc = 3"
    with pytest.raises(PatchError, match="does not apply"):
        apply_patch(tmp_path, {}, patch.format("b.py"))
