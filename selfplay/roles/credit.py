"""How near a fix patch that did not resolve its bug came to the gold patch.

    credit = place x (1 + 2 way) / 3       in [0, 1], 1 for the gold patch itself

    place   changed places that both patches share / that either has (Jaccard), where a place is a
            line of the buggy file; for lines that are only added, the line before them
    way     how far the added lines went from the buggy text towards the gold text:
            (s - s0) / (1 - s0), at least 0, with s and s0 the similarities of the new and of the
            buggy lines to the gold lines (Ratcliff/Obershelp, as SWE-RL has it for whole patches,
            arXiv 2502.18449)

Whole patches of one file resemble each other in their headings and context wherever they change
it, and a buggy line resembles the right one: plain similarity pays for small edits whatever they
are. Places and the way gone pay for what a patch adds to the bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from unidiff.patch import Hunk

from selfplay.bugs.patches.diffs import FileDiff, parse_patch
from selfplay.bugs.patches.stray import usable_parts
from selfplay.errors import PatchError

MAX_PAIRS = 20_000_000
"""Pairs of characters up to which two changes are compared by characters."""


def patch_similarity(predicted: str, gold: str) -> float:
    """How alike two patches are, in [0, 1]; `PatchError` for a malformed one.

    Mean over the files of either patch of the similarity of its hunks, 2 M / T with M matching
    characters of T in both. 0 for a file in which only one of them changes text: an empty new file
    or another mode is no change that is like another, else each would raise the mean. Very long
    changes are compared line by line.
    """
    ours, theirs = _changes(predicted), _changes(gold)
    paths = {p for p in {*ours, *theirs} if ours.get(p) or theirs.get(p) or p not in theirs}
    alike = (
        _similarity(ours[path], theirs[path])
        for path in paths
        if ours.get(path) and theirs.get(path)
    )
    return sum(alike) / max(1, len(paths))


def partial_credit(predicted: str, gold: str) -> float:
    """Credit of a patch against the gold patch; both apply to the same tree. 0 for an empty or
    malformed one."""
    try:
        ours, theirs = parse_patch(usable_parts(predicted)), parse_patch(gold)
    except PatchError:
        return 0.0
    changed, wanted = _places(ours), _places(theirs)
    shared = changed & wanted
    if not shared:
        return 0.0
    place = len(shared) / len(changed | wanted)
    target = _text(line for file in theirs for line in file.added)
    start = _similarity(_text(line for file in theirs for line in file.removed), target)
    came = _similarity(_text(line for file in ours for line in file.added), target)
    way = max(0.0, came - start) / (1.0 - start) if start < 1.0 else came
    return place * (1.0 + 2.0 * way) / 3.0


def _places(files: Iterable[FileDiff]) -> set[tuple[str | None, int]]:
    return {(f.old, number) for f in files for h in f.hunks for number in _lines(h)}


def _lines(hunk: Hunk) -> Iterator[int]:
    """Numbers of the old lines that a hunk removes, or behind which it only adds."""
    number = hunk.source_start - (hunk.source_length > 0)
    removing = False
    for line in hunk:
        if line.is_removed:
            number, removing = number + 1, True
            yield number
        elif line.is_context:
            number, removing = number + 1, False
        elif line.is_added and not removing:
            yield number


def _text(lines: Iterable[str]) -> str:
    return "\n".join(line.strip() for line in lines)


def _changes(patch: str) -> dict[str, str]:
    """{path: text of its hunks}. Raises `PatchError`."""
    return {
        file.paths[-1]: "".join(str(hunk) for hunk in file.hunks)
        for file in parse_patch(usable_parts(patch))
    }


def _similarity(left: str, right: str) -> float:
    if len(left) * len(right) > MAX_PAIRS:
        return difflib.SequenceMatcher(
            None, left.splitlines(), right.splitlines(), autojunk=False
        ).ratio()
    return difflib.SequenceMatcher(None, left, right, autojunk=False).ratio()
