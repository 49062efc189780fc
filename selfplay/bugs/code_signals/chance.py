"""Sources of chance: what may give another value in the next run of the same code.

A bug that looks at the clock's microseconds fails the tests today and not tomorrow; with luck it
passes every check. So a bug patch may not add a source of chance, and code that touches one is run
often (`check_determinism`). Sources are counted by kind over all changed files before and after:
what moves, or takes the place of another of its kind, adds nothing.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.code_signals.findings import Source
from selfplay.bugs.code_signals.readers import reader_of
from selfplay.bugs.patches.layers import read_file
from selfplay.types import Layer


def chance_sources(source: str, path: str, *, raw: bool = False) -> list[Source]:
    """Sources of chance in one file, by its suffix; [] where nobody knows the language.

    raw    search the plain text, with comments and texts, where the language is read by words
    """
    return reader_of(path).chance(source, raw)


def added_source(
    before: Iterable[tuple[str, str]], after: Iterable[tuple[str, str]]
) -> Source | None:
    """The first source of a kind of which `after` has more than `before`; both are (path, text).

    Where one file cannot be read, all are searched as plain text, so that both sides are alike.
    """
    sides = list(before), list(after)
    raw = not all(reader_of(path).is_readable(text) for path, text in sides[0] + sides[1])
    old, new = (
        [source for path, text in side for source in chance_sources(text, path, raw=raw)]
        for side in sides
    )
    more = Counter(s.kind for s in new) - Counter(s.kind for s in old)
    known = Counter((s.kind, s.name) for s in old)
    for source in sorted(new, key=lambda s: (s.kind, s.line)):
        known[source.kind, source.name] -= 1
        if source.kind in more and known[source.kind, source.name] < 0:
            return source
    return None


def touches_chance(tree: Path, bug: Layer) -> str:
    """What a bug's changed lines reach that depends on chance, "" for nothing that is known."""
    for path, change in bug.items():
        if change.content is None:
            continue
        after = change.content.decode("utf-8", "surrogateescape")
        before = (read_file(tree, {}, path) or b"").decode("utf-8", "surrogateescape")
        changed = _changed_lines(before, after)
        for source in chance_sources(after, path):
            if source.line in changed:
                return f"{path}:{source.line}: {source.name}"
        for line, word in reader_of(path).reach(tree, path, after):
            if line in changed:
                return f"{path}:{line}: {word}"
    return ""


def _changed_lines(before: str, after: str) -> set[int]:
    """Lines of `after`, from 1, that are not in `before` at their place."""
    old, new = before.split("\n"), after.split("\n")
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return {
        number + 1
        for tag, _, _, start, end in matcher.get_opcodes()
        if tag != "equal"
        for number in range(start, end)
    }
