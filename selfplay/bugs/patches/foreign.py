"""Patches that are right but not as git writes them by default: what agents, editors, terminals and
settings of git make of them. Nothing is guessed of what a patch changes: `git apply` still
demands its exact context.

After complaints of people who evaluate with patches: ends cut off by a `strip()`
(SWE-bench#345, mini-swe-agent#305), CRLF from a terminal (SWE-agent#702, SWE-bench#652),
`diff.noprefix`, `color.ui=always` (overcommit#388), modes of a group's files, dirty submodules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_HEADING = re.compile(r"^(?:diff --git |--- |\+\+\+ |@@ ).*$", re.MULTILINE)
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_MODE = re.compile(r"((?:(?:new|deleted) file|old|new) mode |index \S+ )100([0-7])[0-7]{2}")
_MAX_CUT = 3
"""Lines of context behind a change; so many blank ones a `strip()` may have cut off."""


def as_git_writes(patch: str, is_file: Callable[[str], bool]) -> str:
    """The patch with the headers, line ends and last lines that `git diff` gives it.

    is_file    whether a path is a file of the state that is patched
    """
    if not _HEADING.search(patch):
        patch = _COLOUR.sub("", patch)
    headings = _HEADING.findall(patch)
    if headings and all(line.endswith("\r") for line in headings):
        patch = patch.replace("\r\n", "\n").removesuffix("\r")
    lines = list(_lines(patch))
    heads = [number for number, (_, is_head) in enumerate(lines) if is_head]
    texts = [text for text, _ in lines]
    bare = False
    for number in heads:
        if texts[number].startswith("diff --git "):
            bare = _is_bare(texts[number])
            texts[number] = _prefixed(texts[number], bare)
        elif texts[number].startswith("--- ") and number + 1 < len(texts):
            old, new = texts[number], texts[number + 1]
            if not _of_git(texts, heads, number):
                texts[number : number + 2] = _plain_names(old, new, is_file)
            elif bare:
                texts[number : number + 2] = _both(old, new)
        else:
            texts[number] = _MODE.sub(_usual_mode, texts[number])
    return "".join(f"{text}\n" for text in texts)


def _lines(patch: str) -> Iterator[tuple[str, bool]]:
    """(line, whether it lies between hunks) of a patch; blank context that was cut off is back."""
    old = new = 0
    for line in [*patch.removesuffix("\n").split("\n"), None]:
        ended = line is None or line.startswith("diff --git ")
        if ended and 0 < old == new <= _MAX_CUT:
            yield from [(" ", False)] * old
            old = new = 0
        if line is None:
            return
        found = _HUNK.match(line) if old <= 0 and new <= 0 else None
        if found:
            old, new = (int(count or 1) for count in found.groups())
            yield line, False
        elif old > 0 or new > 0:
            old -= line[:1] not in ("+", "\\")
            new -= line[:1] not in ("-", "\\")
            yield line, False
        else:
            yield line, True


def _of_git(texts: list[str], heads: list[int], number: int) -> bool:
    """Whether git's own header stands above the names, with nothing but header lines between."""
    known = set(heads)
    while number in known:
        if texts[number].startswith("diff --git "):
            return True
        number -= 1
    return False


def _is_bare(header: str) -> bool:
    """Whether both sides have the same name: with prefixes they have not."""
    names = header.removeprefix("diff --git ")
    half = len(names) // 2
    return len(names) % 2 == 1 and names[half] == " " and names[:half] == names[half + 1 :]


def _prefixed(header: str, bare: bool) -> str:
    names = header.removeprefix("diff --git ")
    half = len(names) // 2
    return f"diff --git {_with('a/', names[:half])} {_with('b/', names[:half])}" if bare else header


def _both(old: str, new: str) -> list[str]:
    return [f"--- {_with('a/', old[4:])}", f"+++ {_with('b/', new[4:])}"]


def _plain_names(old: str, new: str, is_file: Callable[[str], bool]) -> list[str]:
    """Names as `diff -u` writes them: with a date, without a prefix, the old one a copy's."""
    if not new.startswith("+++ "):
        return [old, new]
    left, right = (line[4:].partition("\t")[0].rstrip() for line in (old, new))
    name = left if right == "/dev/null" else right
    inner = name.partition("/")[2]
    if name == "/dev/null" or (inner and is_file(inner)) or not is_file(name):
        return [old, new]
    sides = (side if side == "/dev/null" else name for side in (left, right))
    return _both(*(f"--- {side}" for side in sides))


def _with(prefix: str, name: str) -> str:
    if name == "/dev/null":
        return name
    return f'"{prefix}{name[1:]}' if name.startswith('"') else f"{prefix}{name}"


def _usual_mode(found: re.Match[str]) -> str:
    """A file's mode as git keeps it: executable or not."""
    return f"{found[1]}100{'755' if int(found[2]) & 1 else '644'}"
