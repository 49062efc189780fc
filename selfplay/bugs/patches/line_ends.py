"""Patches whose line ends are git's, not the file's: where attributes say `eol=crlf`, a checkout
holds CRLF and `git diff` prints LF, and git itself applies such a patch to such a file."""

from __future__ import annotations

import re
from collections.abc import Collection

from selfplay.bugs.patches.diffs import touched_files

_PART = re.compile(r"^(?=diff --git )", re.MULTILINE)
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def has_crlf(content: bytes | None) -> bool:
    """Whether each line of a file ends with CRLF, and there is one."""
    lines = (content or b"").count(b"\n")
    return 0 < lines == (content or b"").count(b"\r\n")


def as_in_files(patch: str, crlf: Collection[str]) -> str:
    """The patch with CRLF in the parts that change a file of `crlf` and hold no CR themselves.

    Raises `PatchError` for what is no patch.
    """
    parts = [part for part in _PART.split(patch) if part]
    return "".join(
        _with_crlf(part) if any(path in crlf for path in touched_files(part)) else part
        for part in parts
    )


def _with_crlf(part: str) -> str:
    lines = part.split("\n")
    left = 0
    for number, line in enumerate(lines):
        found = _HUNK.match(line) if left <= 0 else None
        if found:
            left = sum(int(count or 1) for count in found.groups())
        elif left > 0 and not line.startswith("\\"):
            if line.endswith("\r"):
                return part
            left -= 1 if line[:1] in ("+", "-") else 2
            unended = lines[number + 1 : number + 2] and lines[number + 1].startswith("\\ ")
            lines[number] = line if unended else f"{line or ' '}\r"
    return "\n".join(lines)
