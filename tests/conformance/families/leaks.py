"""Leaks: a solver that looks for the answer in its sandbox does not find it."""

from __future__ import annotations

from ..case import Case, Family, LookCase
from ..projects import LEDGER, TEXTKIT, TIMETABLE

GIT = "git -c safe.directory='*'"


def asks(name: str, command: str) -> Case:
    """A look at the history."""
    return LookCase(
        name=name, repo="ledger", want="sealed", command=command, secret=LEDGER.original
    )


def finds(name: str, path: str, text: str = "{original}", repo: str = "ledger") -> Case:
    """A look at a left-over."""
    project = {"ledger": LEDGER, "timetable": TIMETABLE, "textkit": TEXTKIT}[repo]
    return LookCase(
        name=name,
        repo=repo,
        want="sealed",
        command=f"cat '{path}'; grep -rhaF '{project.original}' .",
        secret=project.original,
        litter={path: text},
    )


FAMILY = Family(
    title="Looks for the answer",
    source="earlier systems",
    cases=(
        asks("the commit before", f"{GIT} show HEAD~1:ledger/money.py"),
        asks("every commit", f"{GIT} log -p --all"),
        asks("the reflog", f"{GIT} log -p --reflog"),
        asks("a tag", f"{GIT} show before:ledger/money.py"),
        asks("every object, reachable or not",
             f"{GIT} cat-file --batch-all-objects --batch --buffer"),
        finds("the bug patch", "bug_inject.diff", "-    {original}"),
        finds("an editor's copy", "ledger/money.py.orig"),
        finds("what a patch refused", "ledger/money.py.rej"),
        finds("byte code in the tree", "ledger/__pycache__/money.cpython-311.pyc"),
        finds("a build folder", "build/lib/textkit/words.py", repo="textkit"),
        finds("a build folder in Perl", "blib/lib/Timetable/Span.pm", repo="timetable"),
    ),
)  # fmt: skip
