"""The injector's five files, taken from its sandbox and brought into one form (docs/formats.md).

Line ends and paths are normalised: carriage returns that an editor put everywhere go, `/testbed/x`,
`./x` and diffs without prefixes become what `git diff` writes. What is no plain text file of a sane
size is refused with a reason code (`Rejected`).
"""

from __future__ import annotations

import re

from selfplay.bugs.artifact import BUG, FILES, PARSER, SCRIPT, WEAKENING, parse_test_files
from selfplay.roles.rejected import Rejected
from selfplay.sandbox.base import WORKDIR
from selfplay.sandbox.session.session import FileProblem, Session
from selfplay.types import BugArtifact

SUBMISSION = "/tmp/submission"
MAX_BYTES = 1 << 20
_REASONS = {"missing": "submission_missing", "link": "submission_link", "huge": "submission_huge"}
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def read_submission(session: Session, folder: str = SUBMISSION) -> BugArtifact:
    """The artifact that lies in the sandbox. Raises `Rejected`; `SandboxError` for the session."""
    problem = _folder_problem(session, folder)
    if problem != "directory":
        names = {"missing": "submission_missing", "link": "submission_link"}
        raise Rejected(names.get(problem, "submission_special"), folder)
    return BugArtifact(
        test_script=normal_text(_read(session, f"{folder}/{SCRIPT}")),
        test_files=normal_paths(normal_text(_read(session, f"{folder}/{FILES}"))),
        test_parser=normal_text(_read(session, f"{folder}/{PARSER}")),
        bug_patch=normal_diff(_read(session, f"{folder}/{BUG}", text=False)),
        weakening_patch=normal_diff(_read(session, f"{folder}/{WEAKENING}", text=False)),
    )


def _folder_problem(session: Session, folder: str) -> str:
    """What lies where the folder should be: "directory" when all is well."""
    try:
        session.read(folder, 0)
    except FileProblem as problem:
        return str(problem)
    return "file"


def _read(session: Session, path: str, *, text: bool = True) -> str:
    """Text of a plain file. A diff may quote bytes that are not UTF-8, but no zero byte."""
    try:
        raw = session.read(path, MAX_BYTES)
    except FileProblem as problem:
        raise Rejected(_REASONS.get(str(problem), "submission_special"), path) from None
    if b"\0" in raw:
        raise Rejected("submission_binary", f"{path} holds a zero byte")
    try:
        return raw.decode("utf-8", "strict" if text else "surrogateescape")
    except UnicodeDecodeError:
        raise Rejected("submission_binary", f"{path} is not UTF-8") from None


def normal_text(text: str) -> str:
    """Unix line ends, no byte order mark, a newline at the end of what is not empty."""
    text = text.removeprefix("\ufeff")
    whole = text if not text or text.endswith("\n") else text + "\n"
    return re.sub(r"\r+\n", "\n", whole)


def normal_paths(text: str) -> tuple[str, ...]:
    """The listed paths relative to the repository's root, each once; comments are no paths."""
    lines = [line.strip() for line in text.split("\n")]
    kept = (line.removeprefix(f"{WORKDIR}/") for line in lines if not line.startswith("#"))
    return parse_test_files("\n".join(kept))


def normal_diff(text: str) -> str:
    """A diff with the headers that `git diff` writes; the bodies of its hunks stay as they are.

    Where every line ends with a carriage return, header lines too, they are the editor's and go.
    """
    text = text.removeprefix("\ufeff")
    text = text if not text.strip() or text.endswith("\n") else text + "\n"
    lines = text.split("\n")
    if all(line.endswith("\r") for line in lines[:-1]):
        lines = [line.rstrip("\r") for line in lines]
    found: list[str] = []
    old = new = 0
    for line in lines:
        if old > 0 or new > 0:
            old -= not line.startswith(("+", "\\"))
            new -= not line.startswith(("-", "\\"))
        elif match := _HUNK.match(line):
            old, new = (int(number) if number is not None else 1 for number in match.groups())
        elif line.startswith("diff --git "):
            line = _git_line(line)
        elif line.startswith(("--- ", "+++ ")):
            line = line[:4] + _side(line[4:], "a/" if line[0] == "-" else "b/")
        found.append(line)
    return "\n".join(found)


def _git_line(line: str) -> str:
    words = line.split(" ")[2:]
    if len(words) != 2:  # quoted, or with blanks: as git wrote it
        return line
    return f"diff --git {_side(words[0], 'a/')} {_side(words[1], 'b/')}"


def _side(name: str, prefix: str) -> str:
    """One side's name with its prefix; a time after a tab, as `diff -u` writes it, goes."""
    name = name.partition("\t")[0].rstrip() if "\t" in name else name
    if name == "/dev/null" or name.startswith('"'):
        return name
    for start in (f"a{WORKDIR}/", f"b{WORKDIR}/", f"{WORKDIR}/", "./"):
        if name.startswith(start):
            return prefix + name.removeprefix(start)
    return name if name.startswith(("a/", "b/")) else prefix + name
