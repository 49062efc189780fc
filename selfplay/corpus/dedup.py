"""When two bugs are the same: change up to layout, buggy tree up to layout, failing tests.

What makes a corpus varied is measured on code, not on text (arXiv 2512.18552): comments,
docstrings, blanks and line breaks never make a bug new.
"""

from __future__ import annotations

import io
import json
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from selfplay.bugs.patches.diffs import FileDiff, parse_patch
from selfplay.bugs.patches.layers import apply_patch, read_file
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.languages.registry import language_of
from selfplay.types import SolveTask, Target

_LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a bug is compared by; equal only within one repository.

    change      removed and added lines with their places in the original, up to layout
    tree        the files after the bug, as syntax trees; "" when the original tree is not at hand
    functions   "path::qualname" of every function that the bug touches
    failure     touched functions and failing tests together: bugs that look alike to a solver
    """

    change: str
    tree: str
    functions: tuple[str, ...]
    failure: str


def fingerprint(task: SolveTask, target: Target, tree: Path | None = None) -> Fingerprint:
    """Fingerprint of a validated bug; `tree` is the original source tree.

    Without it the touched functions are the target's and `tree` is "". Raises `PatchError`.
    """
    files = parse_patch(task.artifact.bug_patch)
    changes = [[file.old or file.new, *_edits(file)] for file in files]
    functions: tuple[str, ...] = (f"{target.path}::{target.function}",)
    state = ""
    if tree is not None:
        functions = tuple(dict.fromkeys(f for file in files for f in _touched(tree, file)))
        state = _buggy_state(tree, task)
    return Fingerprint(
        change=_digest(changes),
        tree=state,
        functions=functions,
        failure=_digest([sorted(functions), sorted(task.fail_to_pass)]),
    )


def normal_line(line: str) -> str:
    """A line up to layout: its tokens without comments, else the text without blanks.

    Example: `x = f( 1,2 )  # why` gives `x = f ( 1 , 2 )`.
    """
    found: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(line.strip() + "\n").readline):
            if token.type == tokenize.ERRORTOKEN:
                return "".join(line.split())
            if token.type not in _LAYOUT:
                found.append(token.string)
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):  # the last: \r, then no ASCII
        return " ".join(found) if found else "".join(line.split())
    return " ".join(found)


def _edits(file: FileDiff) -> Iterator[tuple[str, int, str]]:
    """("-" or "+", line of the original, text up to layout); an added line has the line before."""
    for hunk in file.hunks:
        position = hunk.source_start - (1 if hunk.source_length else 0)
        for line in hunk:
            if line.is_context or line.is_removed:
                position += 1
            if line.is_added or line.is_removed:
                text = normal_line(line.value)
                if text:
                    yield ("+" if line.is_added else "-", position, text)


def _touched(tree: Path, file: FileDiff) -> list[str]:
    """Functions of the original around the changed lines; the file where there is none."""
    path = file.old or file.new or ""
    source = read_file(tree, {}, path) if file.old else None
    functions = list_functions(source.decode("utf-8", "replace"), path) if source else []
    touched = []
    for _, position, _ in _edits(file):
        around = [f for f in functions if f.start_line <= position <= f.end_line]
        touched.append(f"{path}::{around[-1].qualname}" if around else path)
    return list(dict.fromkeys(touched)) or [path]


def _buggy_state(tree: Path, task: SolveTask) -> str:
    state: dict[str, str | None] = {}
    for path, change in apply_patch(tree, {}, task.artifact.bug_patch).items():
        text = None if change.content is None else change.content.decode("utf-8", "replace")
        state[path] = None if text is None else language_of(path).normal_form(text)
    return _digest(sorted(state.items()))


def _digest(document: Any) -> str:
    return sha256(json.dumps(document).encode("ascii")).hexdigest()[:32]
