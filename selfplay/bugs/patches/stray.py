"""Parts of a fix patch that no state can hold, cut out: agents leave binaries, byte code, links and
the like in their trees, and `git diff` lists them beside the fix."""

from __future__ import annotations

import re

_PART = re.compile(r"^(?=diff --git )", re.MULTILINE)
_ODD_MODE = re.compile(
    r"^(?:(?:new|old|deleted file|new file) mode|index \S+) (?:120000|160000)$", re.MULTILINE
)
_BINARY = re.compile(r"^(?:GIT binary patch|Binary files .* differ)$", re.MULTILINE)
_DIRTY = re.compile(r"^[-+]Subproject commit [0-9a-f]{40}", re.MULTILINE)
"""A submodule with changes of its own has no line that tells its mode."""
_OF_GIT = re.compile(r'^diff --git "?a/(?:[^\n]*/)?\.git(?:attributes|modules)"? ')


def usable_parts(patch: str) -> str:
    """The patch without binary files, links, submodules and git's own lists of attributes.

    A patch of nothing else, and one without git's headers, stays as it is.
    """
    head, *parts = _PART.split(patch)
    kept = [part for part in parts if not _is_stray(part)]
    return head + "".join(kept) if kept else patch


def _is_stray(part: str) -> bool:
    header, _, hunks = part.partition("\n@@ ")  # what the hunks hold is text
    if "\nindex " not in header and _DIRTY.match(hunks.partition("\n")[2]):
        return True
    return any(pattern.search(header) for pattern in (_ODD_MODE, _BINARY, _OF_GIT))
