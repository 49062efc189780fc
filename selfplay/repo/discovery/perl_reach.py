"""Which functions a Perl test may reach, told from names alone: nothing is measured.

A function counts as reached when its name stands in the test's statement, in the rest of the test
file, or in another function that is reached, among the files that the test file loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from selfplay.repo.languages import perl_source
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.languages.perl_functions import loaded_files, reachable
from selfplay.repo.languages.perl_tests import find_statements

_WORD = re.compile(r"[A-Za-z_]\w*")
_LISTS = re.compile(
    r"^\s*(?:use\s+(?!overload|constant)|(?:our\s+)?@EXPORT\w*\s*=)[^;]*;", re.MULTILINE
)
"""Lines that name functions without calling them."""


class PerlReach:
    """The Perl sources of a tree, read once."""

    def __init__(self, tree: Path) -> None:
        self._sources = {
            path.relative_to(tree).as_posix(): path.read_bytes().decode("utf-8", "surrogateescape")
            for suffix in perl_source.SUFFIXES
            for path in sorted(tree.rglob(f"*{suffix}"))
            if path.is_file() and not path.is_symlink()
        }
        self._loads = {path: loaded_files(s, self._sources) for path, s in self._sources.items()}
        self._words: dict[str, dict[str, set[str]]] = {}
        self._rest: dict[str, set[str]] = {}
        for path, source in self._sources.items():
            if path.endswith(".t"):
                continue
            lines = source.split("\n")
            self._words[path] = {}
            for f in reversed(list_functions(source, path)):
                body = lines[f.start_line - 1 : f.end_line]
                self._words[path][f"{path}::{f.qualname}"] = _words("\n".join(body))
                del lines[f.start_line - 1 : f.end_line]
            self._rest[path] = _words(_LISTS.sub("", "\n".join(lines)))

    def functions(self, file: str, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """{test name: "path::function"} of one test file; names without the file.

        Every function of the loaded files where the names lead to none, every function of the tree
        where nothing is loaded.
        """
        paths = reachable(file, self._loads) & self._words.keys()
        bodies = {f: words for path in paths for f, words in self._words[path].items()}
        if not bodies:
            everything = {f for functions in self._words.values() for f in functions}
            return dict.fromkeys(names, frozenset(everything))
        source = self._sources.get(file, "")
        statements = find_statements(source, names)
        rest = source
        for start, end in sorted({s.span for s in statements.values() if s}, reverse=True):
            rest = rest[:start] + rest[end:]
        shared = _words(_LISTS.sub("", rest)).union(*(self._rest[path] for path in paths))
        found = {}
        for name, statement in statements.items():
            text = source[slice(*statement.span)] if statement else source
            found[name] = _closure(shared | _words(text), bodies) or frozenset(bodies)
        return found


def _words(text: str) -> set[str]:
    return set(_WORD.findall(re.sub(r"(?:^|\s)#.*", "", text)))


def _closure(words: set[str], bodies: Mapping[str, set[str]]) -> frozenset[str]:
    """Functions that are named in `words` or, in turn, in the bodies of those found."""
    found: set[str] = set()
    waiting = words
    while waiting:
        new = {f for f in bodies if f not in found and f.rsplit("::", 1)[-1] in waiting}
        found |= new
        waiting = set().union(*(bodies[f] for f in new))
    return frozenset(found)
