"""Commits of a repository's past: what each changed, and which make one change together.

A merge is the whole of its branch, read against its first parent. A fix that lies beside its tests
as a commit of its own is read with them: `base` may be older than the parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfplay.bug_sources.commit_files import Kind, kinds_of
from selfplay.errors import RepoError, UserError
from selfplay.repo.discovery.test_names import USUAL_NAMES, TestNames, test_names
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.sources.git import (
    alters_files,
    checked_out,
    git,
    git_bytes,
    open_repository,
)
from selfplay.types import FileChange

_PLAIN = ("100644", "100755", "100664")
MAX_APART = 3
"""Commits from a fix to its tests, at most."""
MAX_MESSAGES = 10
"""Messages of a branch that a problem is told with, the last ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitId:
    """A commit as a log lists it."""

    sha: str
    parents: tuple[str, ...]
    author: str

    @property
    def is_merge(self) -> bool:
        """Whether it joins branches."""
        return len(self.parents) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What lies between two commits, or between a commit and its (first) parent.

    before    path -> content in the base, None where there was no such file; of a file that was
              renamed, its old content under its new name. Contents are those of a checkout, under
              the attributes of the commit
    after     path -> content in the commit, None where it deleted the file
    kinds     path -> what the file is to a bug
    odd       paths that are links, submodules or the like: as they are after the commit
    names     what counts as a test in the project of today
    """

    sha: str
    base: str
    subject: str
    message: str
    before: Mapping[str, FileChange]
    after: Mapping[str, FileChange]
    kinds: Mapping[str, Kind]
    odd: tuple[str, ...]
    names: TestNames = USUAL_NAMES

    def of_kind(self, kind: Kind) -> list[str]:
        """The touched files of one kind."""
        return [path for path in self.after if self.kinds[path] == kind]


def list_commits(prepared: PreparedRepo, max_commits: int | None = None) -> list[CommitId]:
    """Commits with a parent, newest first, merges among them: `max_commits` beside the merges.

    Raises `UserError` without a history.
    """
    form = "--format=%H%x00%P%x00%ae"
    with open_repository(history_of(prepared)) as repository:
        log = str(repository.git.log("-z", form, "--min-parents=1", "HEAD", "--"))
    words = log.split("\0")[:-1]  # each ends with one
    found: list[CommitId] = []
    num_plain = 0
    for sha, parents, author in zip(*(words[n::3] for n in range(3)), strict=True):
        commit = CommitId(sha=sha, parents=tuple(parents.split()), author=author)
        num_plain += not commit.is_merge
        if max_commits is not None and num_plain > max_commits:
            break
        found.append(commit)
    return found


def branch_of(prepared: PreparedRepo, merge: CommitId) -> list[str]:
    """Ids of the commits that a merge brought in."""
    arguments = ("rev-list", merge.sha, f"^{merge.parents[0]}")
    return [sha for sha in git(*arguments, cwd=history_of(prepared)).split() if sha != merge.sha]


def with_neighbours(commits: Sequence[CommitId]) -> dict[str, tuple[str, ...]]:
    """{sha: its ancestors, nearest first, that may be one change with it}: in a row, by the same
    author, no merge among them."""
    known = {commit.sha: commit for commit in commits}
    found: dict[str, tuple[str, ...]] = {}
    for commit in commits:
        chain: list[str] = []
        here = commit
        while not here.is_merge and len(chain) < MAX_APART:
            parent = known.get(here.parents[0])
            if parent is None or parent.is_merge or parent.author != commit.author:
                break
            chain.append(parent.sha)
            here = parent
        found[commit.sha] = tuple(chain)
    return found


def read_commit(prepared: PreparedRepo, sha: str, base: str = "") -> Commit:
    """What lies between `base` (the first parent) and a commit.

    Raises `RepoError` when the history holds none of that id.
    """
    history = history_of(prepared)
    end, begin = f"{sha}^{{commit}}", f"{base or f'{sha}^1'}^{{commit}}"
    try:
        full, parent = git("rev-parse", "--verify", end, cwd=history).strip(), ""
        parent = git("rev-parse", "--verify", begin, cwd=history).strip()
    except RepoError as error:
        which = f"no commit {sha}" + (" with a parent" if not base else f" after {base}")
        raise RepoError(f"{prepared.name}: {which} ({error})") from None
    raw = git_bytes("diff-tree", "-r", "-z", "-M", "--raw", parent, full, cwd=history)
    before: dict[str, FileChange] = {}
    after: dict[str, FileChange] = {}
    odd: list[str] = []
    records = _records(raw)
    contents = _contents(history, full, records)
    for record in records:
        if any(mode not in (*_PLAIN, "000000") for mode in record.modes):
            odd.append(record.path)
            continue
        before[record.path], after[record.path] = (
            FileChange(content=None)
            if mode == "000000"
            else FileChange(content=content, executable=mode == _PLAIN[1])
            for mode, content in zip(record.modes, contents[record.path], strict=True)
        )
    names = test_names(prepared.environment.tree)
    changed = [path for path in after if before[path] != after[path]]
    messages = _messages(history, parent, full)
    return Commit(
        sha=full,
        base=parent,
        subject=messages[-1].split("\n")[0] if messages else "",
        message="\n\n".join(messages),
        before={path: before[path] for path in changed},
        after={path: after[path] for path in changed},
        kinds=kinds_of(changed, names),
        odd=tuple(odd),
        names=names,
    )


def history_of(prepared: PreparedRepo) -> Path:
    """The bare repository with its past. Raises `UserError` where it has none."""
    if prepared.history is None:
        raise UserError(
            f"repo={prepared.name}: has no git history; name a git work tree, a git source, or a "
            "PyPI source with `history:` (older releases)"
        )
    return prepared.history


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """One line of a raw diff: old and new mode and blob, and the (new) path."""

    modes: tuple[str, str]
    blobs: tuple[str, str]
    path: str


def _records(raw: bytes) -> list[_Record]:
    words = iter(raw.split(b"\0"))
    found: list[_Record] = []
    for head in words:
        if not head:
            continue
        old_mode, new_mode, old, new, status = head.decode("ascii").lstrip(":").split()
        path = next(words)
        if status[0] in "RC":
            path = next(words)
        found.append(
            _Record(
                modes=(old_mode, new_mode),
                blobs=(old, new),
                path=path.decode("utf-8", "surrogateescape"),
            )
        )
    return found


def _contents(
    history: Path, commit: str, records: Sequence[_Record]
) -> dict[str, tuple[bytes, bytes]]:
    """{path: content before and after}; b"" where there is none.

    Where attributes matter, both states are checked out under those of the commit: a commit that
    changes attributes alone changes no file.
    """
    blobs = _blobs(history, [blob for record in records for blob in record.blobs])
    alters = alters_files(history)

    def side(number: int) -> dict[str, bytes]:
        known = {record.path: record.blobs[number] for record in records}
        plain = [r.path for r in records if r.modes[number] in _PLAIN and not _is_git(r.path)]
        found = {path: blobs.get(blob, b"") for path, blob in known.items()}
        altered = alters and plain
        return found | (
            checked_out(history, commit, {p: known[p] for p in plain}) if altered else {}
        )

    before, after = side(0), side(1)
    return {path: (before[path], after[path]) for path in before}


def _is_git(path: str) -> bool:
    return path.rpartition("/")[2] == ".gitattributes"


def _blobs(history: Path, ids: Sequence[str]) -> dict[str, bytes]:
    """{id: content}; submodules and absent sides have none."""
    wanted = list(dict.fromkeys(ids))
    answer = git_bytes(
        "cat-file", "--batch", cwd=history, stdin="".join(f"{blob}\n" for blob in wanted).encode()
    )
    found: dict[str, bytes] = {}
    position = 0
    for blob in wanted:
        end = answer.index(b"\n", position)
        head = answer[position:end].split()
        position = end + 1
        if len(head) == 3:
            size = int(head[2])
            found[blob] = answer[position : position + size] if head[1] == b"blob" else b""
            position += size + 1
    return found


def _messages(history: Path, base: str, sha: str) -> list[str]:
    """The commit's message; of several commits, those of all, the commit's own last."""
    log = git_bytes(
        "log", "--reverse", "--topo-order", "--format=%B%x00", f"{base}..{sha}", "--", cwd=history
    )
    parts = (part.strip() for part in log.decode("utf-8", "replace").split("\0"))
    return [part for part in parts if part][-MAX_MESSAGES:]
