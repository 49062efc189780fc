"""Test files that print TAP: their tests taken out, or made to fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from selfplay.bugs.patches.layers import normal_layer, read_file
from selfplay.bugs.test_runs.tap_framework import tap_target
from selfplay.repo.languages.perl_source import scan
from selfplay.repo.languages.perl_tests import TestStatement, find_statements, num_test_calls
from selfplay.types import FileChange, Layer

_PLAN = re.compile(r"\btests\s*=>\s*(\d+)")
_POISON = "sub poisoned_test { Test::More::ok(0, $_[0]) }"


def without_tests(tree: Path, tests: Iterable[str]) -> Layer:
    """The original tree's test files without these tests.

    The statement behind each test goes, and a fixed plan shrinks with it. Where a statement cannot
    be told for certain, or nothing would be left, the whole file turns into one that is skipped,
    as it does for an id that is a file.
    """
    return _edited(tree, {}, tests, _without)


def with_failing_tests(tree: Path, layer: Layer, tests: Iterable[str]) -> Layer:
    """`layer` with these tests made to fail; their arguments are still computed."""
    return _edited(tree, layer, tests, _poisoned)


def poisonable(tree: Path, test: str) -> bool:
    """Whether a test can be made to fail by itself."""
    path, _, name = test.partition("::")
    raw = read_file(tree, {}, path) if path.endswith(".t") else None
    if raw is None or not name:
        return False
    return find_statements(raw.decode("utf-8", "surrogateescape"), [name])[name] is not None


def _edited(
    tree: Path, layer: Layer, tests: Iterable[str], edit: Callable[[str, list[str]], str]
) -> Layer:
    names: dict[str, list[str]] = {}
    for test in tests:
        path = tap_target(test)
        if path:
            names.setdefault(path, []).append(test.partition("::")[2])
    changes: dict[str, FileChange] = {}
    for path, wanted in names.items():
        raw = read_file(tree, layer, path)
        if raw is None:
            continue
        text = edit(raw.decode("utf-8", "surrogateescape"), wanted)
        mode = layer[path].executable if path in layer else _is_executable(tree / path)
        content = text.encode("utf-8", "surrogateescape")
        changes[path] = FileChange(content=content, executable=mode)
    return normal_layer(tree, {**layer, **changes})


def _is_executable(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o100)


def _without(source: str, names: list[str]) -> str:
    found = find_statements(source, names)
    spans = {statement.span for statement in found.values() if statement is not None}
    if None in found.values() or num_test_calls(source) <= len(spans):
        return _skipped(source)
    code = scan(source)
    plan = _plan_of_file(code.code) if code else None
    if plan and not all(statement and statement.plain for statement in found.values()):
        return _skipped(source)
    # In a block `;` stays: perl reads a `{}` that was emptied as a hash, and dies of it.
    inner = {one.span for one in found.values() if one and not one.plain}
    cuts = [(start, end, ";" if (start, end) in inner else "") for start, end in spans]
    if plan:
        cuts.append((*plan.span(1), str(int(plan[1]) - len(spans))))
    for start, end, text in sorted(cuts, reverse=True):
        source = _cut(source, start, end) if not text else source[:start] + text + source[end:]
    return source


def _plan_of_file(code: str) -> re.Match[str] | None:
    """The number of tests that the file plans; a plan inside braces is that of a subtest."""
    for plan in _PLAN.finditer(code):
        if code.count("{", 0, plan.start()) == code.count("}", 0, plan.start()):
            return plan
    return None


def _cut(source: str, start: int, end: int) -> str:
    """Source without a statement, and without its lines when nothing else stands there."""
    first = source.rfind("\n", 0, start) + 1
    last = source.find("\n", end)
    last = len(source) if last < 0 else last + 1
    if not source[first:start].strip() and not source[end:last].strip():
        return source[:first] + source[last:]
    return source[:start] + source[end:]


def _skipped(source: str) -> str:
    """A file of the same language that runs no test; unchanged where the language is unknown."""
    line = source.split("\n", 1)[0]
    head = f"{line}\n" if line.startswith("#!") else ""
    if not head or "perl" in head:
        return head + 'print "1..0 # SKIP nothing to test\\n";\n'
    if re.search(r"\b(?:ba|da|k|z)?sh\b", head):
        return head + 'echo "1..0 # SKIP nothing to test"\n'
    return source


def _poisoned(source: str, names: list[str]) -> str:
    found = find_statements(source, names)
    edits: dict[tuple[int, int], tuple[TestStatement, str]] = {}
    for name, statement in found.items():
        if statement is not None:
            edits.setdefault(statement.span, (statement, name))
    if not edits:
        return source
    for statement, name in sorted(edits.values(), key=lambda item: item[0].start, reverse=True):
        quoted = _quoted(re.sub(r"#\d+$", "", name))
        first, last = statement.callee
        if source[first:last] == "subtest":
            call, rest = f"Test::More::ok(0, {quoted});", source[statement.end :]
        elif source[last:].lstrip()[:1] == "(":
            opening = source.index("(", last) + 1
            call, rest = f"poisoned_test({quoted}, ", source[opening:]
        else:
            call, rest = f"poisoned_test {quoted}, ", source[last:]
        source = source[:first] + call + rest
    head, _, rest = source.partition("\n")
    if head.startswith("#!"):
        return f"{head}\n{_POISON}\n{rest}"
    return f"{_POISON}\n{source}"


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
