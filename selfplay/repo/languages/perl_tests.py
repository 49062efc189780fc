"""Test statements of a Perl test file, found by the test's name: `is(f(1), 2, 'name');`.

What cannot be found for certain is None, and the caller does without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from selfplay.repo.languages.perl_source import Literal, PerlSource, scan

_CALL = re.compile(r"\s*([A-Za-z_]\w*(?:::\w+)*)\s*(\()?")
_TEST_CALL = re.compile(
    r"(?<![\w$@%&>:-])(?:ok|isn?t?|like|unlike|is_deeply|pass|fail|subtest|\w+_ok)\b(?!\s*=>)"
)
_NAMED_FIRST = frozenset({"subtest", "use_ok", "describe", "it"})
_NO_TEST = frozenset(
    {
        *("my", "our", "local", "return", "if", "unless", "for", "foreach", "while", "until"),
        *("use", "no", "require", "package", "sub", "push", "print", "diag", "note", "plan"),
        *("die", "warn", "eval", "do"),
    }
)
_INTERPOLATED = re.compile(
    r"(?:\\[$@]|[$@]\{?\w+\}?(?:(?:->)?(?:\[[^\]]*\]|\{[^}]*\}))*|@\{[^}]*\})"
)
_MODIFIER = re.compile(r"\b(?:for|foreach|while|until|if|unless)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestStatement:
    """`start:end` of one statement, semicolon included; `callee` is where its first word lies.

    `plain` tells that it runs exactly once: it stands in no block and has no modifier.
    """

    __test__ = False
    start: int
    end: int
    callee: tuple[int, int]
    in_brackets: bool
    plain: bool

    @property
    def span(self) -> tuple[int, int]:
        """(start, end)."""
        return self.start, self.end


def find_statements(source: str, names: Iterable[str]) -> dict[str, TestStatement | None]:
    """The statement behind each test name (without its file); None where it cannot be told.

    `name#2` is the second statement of that name, or the only one (a loop). A name with variables
    in it fits any text in their place.
    """
    code = scan(source)
    if code is None:
        return dict.fromkeys(names)
    inside = _subtest_bodies(code)
    outer = [lit for lit in code.literals if not any(a < lit.start < b for a, b in inside)]
    found: dict[str, TestStatement | None] = {}
    for name in names:
        base, mark, number = name.rpartition("#")
        if not mark or not number.isdecimal() or _literals(outer, name):
            base, number = name, "1"
        statements = [_statement(code, lit) for lit in _literals(outer, base)]
        known = [statement for statement in statements if statement is not None]
        at = int(number) - 1 if len(known) > 1 else 0
        found[name] = known[at] if at < len(known) else None
    return found


def num_test_calls(source: str) -> int:
    """Calls of Test::More's functions, those inside subtests left out."""
    code = scan(source)
    if code is None:
        return 0
    inside = _subtest_bodies(code)
    calls = (match.start() for match in _TEST_CALL.finditer(code.code))
    return sum(not any(a < call < b for a, b in inside) for call in calls)


def _literals(literals: Iterable[Literal], name: str) -> list[Literal]:
    """Texts that say a name outright; else those that may, with variables filled in."""
    fixed = [lit for lit in literals if _unescaped(lit) == name]
    if fixed:
        return fixed
    return [
        lit
        for lit in literals
        if lit.interpolated
        and _INTERPOLATED.sub("", lit.text).strip()
        and re.fullmatch(
            ".*?".join(re.escape(part) for part in _INTERPOLATED.split(lit.text)), name, re.DOTALL
        )
    ]


def _unescaped(literal: Literal) -> str:
    return re.sub(r"\\(['\"\\$@])", r"\1", literal.text)


def _statement(code: PerlSource, literal: Literal) -> TestStatement | None:
    """The innermost statement that calls something with this text as the name of a test."""
    start = _statement_start(code, literal.start)
    end = _statement_end(code, literal.end)
    match = _CALL.match(code.code, start)
    if match is None or match[1] in _NO_TEST or end <= literal.end or "<<" in code.code[start:end]:
        return None
    opening = match.start(2) if match[2] else None
    after = re.compile(r"\s*,?\s*").match(code.code, literal.end)
    position = after.end() if after else literal.end
    last = code.code[position : position + 1] in (";", "}") if opening is None else False
    if opening is not None:
        last = code.partner.get(opening) == position
    first = match[1] in _NAMED_FIRST and not code.code[match.end() : literal.start].strip()
    if not (first or last or (opening is None and _MODIFIER.match(code.code, position))):
        return None
    tail = code.code[max(position, code.partner.get(opening, 0) if opening else 0) : end]
    depth = sum(1 for a, b in code.partner.items() if a < start < b and code.code[a] == "{")
    return TestStatement(
        start=match.start(1),
        end=end,
        callee=(match.start(1), match.end(1)),
        in_brackets=opening is not None,
        plain=not depth and (first or _MODIFIER.search(tail) is None),
    )


def _statement_start(code: PerlSource, position: int) -> int:
    """Offset behind the `;`, `{` or `}` before a statement; blanks may follow it."""
    i = position - 1
    while i >= 0:
        c = code.code[i]
        if c == ";" or (c == "{" and _opens_block(code, i)):
            return i + 1
        if c in ")]}":
            if c == "}" and re.match(r"[ \t]*\n\s*[A-Za-z_]", code.code[i + 1 : position + 1]):
                return i + 1
            i = code.partner[i]
        i -= 1
    return 0


def _opens_block(code: PerlSource, i: int) -> bool:
    """Whether a brace begins statements, not a hash: by what stands before it."""
    before = code.code[max(0, i - 60) : i].rstrip()
    return (
        before.endswith((")", ";", "}"))
        or bool(re.search(r"(?:^|[\s;}(,=])\w+:?$", before))
        or (not before)
    )


def _statement_end(code: PerlSource, position: int) -> int:
    """Offset behind the `;` that ends a statement, or of the bracket that ends its block."""
    i = position
    while i < len(code.code):
        c = code.code[i]
        if c == ";":
            return i + 1
        if c in "([{":
            i = code.partner[i]
        elif c == "}" and _opens_block(code, code.partner[i]):
            return i
        i += 1
    return i


def _subtest_bodies(code: PerlSource) -> list[tuple[int, int]]:
    """(opening, closing) brace of every subtest's code."""
    found = []
    for match in re.finditer(r"\bsubtest\b", code.code):
        body = re.compile(r"[^;]*?\bsub\s*\{").match(code.code, match.end())
        if body:
            found.append((body.end() - 1, code.partner[body.end() - 1]))
    return found
