"""Functions of a Perl file, found by matching braces, and the modules that a file loads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from selfplay.repo.languages.perl_source import PerlSource, scan
from selfplay.repo.languages.python_functions import FunctionInfo

_SUB = re.compile(r"^[ \t]*sub[ \t]+([A-Za-z_]\w*)[^;{}]*\{", re.MULTILINE)
_LOADS = re.compile(r"\b(?:use|require|use_ok|require_ok|do)\b\s*\(?\s*([A-Za-z_]\w*(?:::\w+)*)?")
_NAME = re.compile(r"[A-Za-z_]\w*(?:(?:::|/)\w+)*(?:\.p[lm])?")
LIBRARIES = ("lib/", "", "t/lib/")
"""Folders in which modules are looked for, first match first."""


def list_perl_functions(source: str, path: str) -> list[FunctionInfo]:
    """`sub name { ... }` in source order; one inside another belongs to it.

    A name that occurs twice in a file is left out, and [] comes of a file that cannot be read for
    certain: a function that is missed is never played on, one cut wrongly would be.
    """
    found = scan(source)
    if found is None:
        return []
    functions: list[FunctionInfo] = []
    end = 0
    for match in _SUB.finditer(found.code):
        opening = match.end() - 1
        if match.start() < end:
            continue
        end = found.partner[opening] + 1
        functions.append(
            FunctionInfo(
                path=path,
                qualname=match[1],
                start_line=source.count("\n", 0, match.start(1)) + 1,
                end_line=source.count("\n", 0, end) + 1,
            )
        )
    names = Counter(function.qualname for function in functions)
    return [function for function in functions if names[function.qualname] == 1]


def loaded_files(source: str, known: Iterable[str]) -> set[str]:
    """Those of the `known` paths that a file names in `use`, `require` and the like."""
    found = scan(source)
    if found is None:
        return set(known)
    paths = set(known)
    loaded: set[str] = set()
    for match in _LOADS.finditer(found.code):
        line_end = found.code.find(";", match.end())
        names = [match[1]] if match[1] else []
        names += _quoted_names(found, match.end(), line_end if line_end >= 0 else match.end())
        for name in names:
            inside = name.replace("::", "/")
            candidates = (
                f"{folder}{inside}{suffix}" for folder in LIBRARIES for suffix in (".pm", "")
            )
            hit = next((path for path in candidates if path in paths), None)
            loaded |= {hit} if hit else set()
    return loaded


def used_modules(source: str) -> list[str]:
    """Names in the plain `use Name...` lines of a file, in order, each once; no pragmas."""
    found = scan(source)
    names = re.findall(r"^use\s+([A-Z]\w*(?:::\w+)*)[\s;]", found.code, re.M) if found else []
    return list(dict.fromkeys(name for name in names if not name.startswith("Test")))


def _quoted_names(found: PerlSource, start: int, end: int) -> list[str]:
    inside = (lit.text for lit in found.literals if start - 1 <= lit.start < end)
    return [name for text in inside for name in _NAME.findall(text)]


def reachable(start: str, loads: Mapping[str, set[str]]) -> set[str]:
    """Every file that `start` loads, directly or through another."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for path in loads.get(waiting.pop(), set()) - seen:
            seen.add(path)
            waiting.append(path)
    return seen
