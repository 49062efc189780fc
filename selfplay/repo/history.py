"""Past changes of a function, for the history strategy."""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from selfplay.errors import RepoError
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.prepare import PreparedRepo
from selfplay.repo.sources.git import git

MAX_COMMITS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PastChange:
    """A commit that changed a function: its text before and after."""

    commit: str
    subject: str
    before: str
    after: str

    def changed_lines(self) -> list[str]:
        """`- old` and `+ new` lines; unchanged and blank ones left out. Before `a\\nb`, after
        `a\\nc` gives [`- b`, `+ c`]."""
        before, after = (textwrap.dedent(text).splitlines() for text in (self.before, self.after))
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        lines: list[str] = []
        for tag, i1, i2, j1, j2 in matcher.get_opcodes():
            if tag != "equal":
                lines += [f"- {line}".rstrip() for line in before[i1:i2] if line.strip()]
                lines += [f"+ {line}".rstrip() for line in after[j1:j2] if line.strip()]
        return lines


def past_changes(prepared: PreparedRepo, path: str, function: str, limit: int) -> list[PastChange]:
    """The newest changes of a function, at most `limit`; [] without a history."""
    if prepared.history is None:
        return []
    changes = _changes_of_file(prepared.history, path)
    return [change for name, change in changes if name == function][:limit]


@lru_cache(maxsize=512)
def _changes_of_file(history: Path, path: str) -> tuple[tuple[str, PastChange], ...]:
    """(function, change) of every commit that touched the file, newest first."""
    log = git(
        "log", f"-{MAX_COMMITS}", "--no-merges", "--format=%H%x09%s", "HEAD", "--", path,
        cwd=history,
    )  # fmt: skip
    found: list[tuple[str, PastChange]] = []
    for line in filter(None, log.split("\n")):  # a subject may hold any other line end
        commit, _, subject = line.partition("\t")
        before = _functions_at(history, f"{commit}^", path)
        for name, text in _functions_at(history, commit, path).items():
            old = before.get(name)
            if old is not None and old != text:
                change = PastChange(commit=commit, subject=subject, before=old, after=text)
                found.append((name, change))
    return tuple(found)


def _functions_at(history: Path, commit: str, path: str) -> dict[str, str]:
    try:
        source = git("show", "--end-of-options", f"{commit}:{path}", cwd=history)
    except RepoError:
        return {}
    lines = source.split("\n")  # as Python counts them: a form feed ends no line
    return {
        f.qualname: "\n".join([*lines[f.start_line - 1 : f.end_line], ""])
        for f in list_functions(source, path)
    }
