"""Names through which chance comes into Python code that has no source of it.

Names are followed within the file (a default argument, an attribute, a function that asks the
clock) and one import deep into the repository's own modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from selfplay.bugs.code_signals.python_chance import python_chance
from selfplay.repo.languages.python_source import KEPT, parse

ROUNDS = 2
"""How often a name is followed to the names that it is given to."""
_VAGUE = frozenset(
    {
        *("repr", "object", "globals", "locals", "vars", "dir", "open", "input", "popitem"),
        *("__hash__", "__repr__", "__iter__", "__dict__"),
    }
)
"""Words behind which an address, a file or a name put together at run time may lie."""


def python_reach(tree: Path, path: str, source: str) -> Iterator[tuple[int, str]]:
    """(line, name) of every name in a file through which chance comes in."""
    module = parse(source)
    if module is not None:
        everywhere = tainted_names(source) | _imported(tree, path, module) | _VAGUE
        yield from ((line, word) for line, word in _words(module) if word in everywhere)


@lru_cache(maxsize=KEPT)
def tainted_names(source: str) -> frozenset[str]:
    """Names of modules and classes, attributes, defaults and functions through which chance comes
    in. Local variables are no part of it: their names mean something else in the next function.
    """
    module = parse(source)
    if module is None:
        return frozenset()
    lines = {s.line for s in python_chance(source) if s.kind != "identity"}
    bindings = list(_bindings(module))
    names = {word for word, reached in bindings if reached[0] & lines}
    for _ in range(ROUNDS):
        names |= {word for word, reached in bindings if reached[1] & names}
    return frozenset(names - {"__init__", "__new__", "__call__", "self", "cls"})


def _bindings(module: ast.Module) -> Iterator[tuple[str, tuple[set[int], set[str]]]]:
    """(name, what its value reaches: lines and names) of attributes and defaults; of functions the
    lines alone."""
    for node in ast.walk(module):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            wanted = [t.attr for t in targets if isinstance(t, ast.Attribute)]
            if node in module.body:
                wanted += [t.id for t in targets if isinstance(t, ast.Name)]
            if wanted and node.value is not None:
                reached = _reached(node.value)
                yield from ((word, reached) for word in wanted)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            plain = [*arguments.posonlyargs, *arguments.args]
            pairs = [*zip(reversed(plain), reversed(arguments.defaults), strict=False)]
            both = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            pairs += [(argument, default) for argument, default in both if default]
            yield from ((argument.arg, _reached(default)) for argument, default in pairs)
            yield node.name, (set(range(node.lineno, (node.end_lineno or 0) + 1)), set())


def _reached(node: ast.AST) -> tuple[set[int], set[str]]:
    words = list(_words(node))
    return {line for line, _ in words}, {word for _, word in words}


def _words(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every name and attribute below a node."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.lineno, inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.lineno, inner.attr
        elif isinstance(inner, ast.FormattedValue) and inner.conversion == ord("r"):
            yield inner.lineno, "repr"


def _imported(tree: Path, path: str, module: ast.Module) -> set[str]:
    """Names that the file takes from the repository's own modules, where they are tainted."""
    names: set[str] = set()
    for node in ast.walk(module):
        if not isinstance(node, ast.ImportFrom):
            continue
        file = _module_file(tree, path, node)
        if file:
            tainted = tainted_names(file.read_bytes().decode("utf-8", "replace"))
            names |= {alias.asname or alias.name for alias in node.names if alias.name in tainted}
    return names


def _module_file(tree: Path, path: str, node: ast.ImportFrom) -> Path | None:
    parts = (node.module or "").split(".") if node.module else []
    folder = PurePosixPath(path).parent
    for _ in range(node.level - 1):
        folder = folder.parent
    bases = [tree / folder] if node.level else [tree, tree / "src", tree / "lib"]
    for base in bases:
        place = base.joinpath(*parts)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file() and not file.is_symlink():
                return file
    return None
