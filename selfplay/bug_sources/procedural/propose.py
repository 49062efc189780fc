"""All small bugs that the operators can plant in one function."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfplay.bug_sources.procedural import expressions as expr
from selfplay.bug_sources.procedural import statements as stmt
from selfplay.bug_sources.procedural.code import Edit, FunctionCode, parse_function
from selfplay.bug_sources.procedural.text import line_mutations
from selfplay.repo.languages.python_source import code_dump, split_lines
from selfplay.repo.languages.registry import language_of

if TYPE_CHECKING:
    from selfplay.repo.languages.functions import FunctionInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One way of breaking code. `kind` is the word that asks a model for such a bug; `removal`
    operators take code away and serve the removal strategy."""

    name: str
    kind: str
    edits: Callable[[FunctionCode], Iterator[Edit | None]]
    removal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One proposed bug; `line` (1-based) is the first that differs in the file.

    The file is kept as the text before, of and after the function, so that the many mutations of
    one function share the parts that they leave alone.
    """

    operator: str
    kind: str
    removal: bool
    line: int
    before: str
    function: str
    after: str

    @property
    def source(self) -> str:
        """The whole new file."""
        return self.before + self.function + self.after


OPERATORS: tuple[Operator, ...] = (
    Operator(name="swap_comparison", kind="condition", edits=expr.swap_comparison),
    Operator(name="negate_condition", kind="condition", edits=expr.negate_condition),
    Operator(name="swap_and_or", kind="condition", edits=expr.swap_and_or),
    Operator(name="swap_branches", kind="condition", edits=expr.swap_branches),
    Operator(name="off_by_one", kind="number", edits=expr.off_by_one),
    Operator(name="flip_constant", kind="constant", edits=expr.flip_constant),
    Operator(name="change_default", kind="default", edits=expr.change_default),
    Operator(name="swap_arithmetic", kind="arithmetic", edits=expr.swap_arithmetic),
    Operator(name="drop_sign", kind="arithmetic", edits=expr.drop_sign),
    Operator(name="swap_augmented", kind="arithmetic", edits=stmt.swap_augmented),
    Operator(name="wrong_name", kind="name", edits=expr.wrong_name),
    Operator(name="wrong_attribute", kind="name", edits=expr.wrong_attribute),
    Operator(name="wrong_call", kind="call", edits=expr.wrong_call),
    Operator(name="swap_arguments", kind="call", edits=expr.swap_arguments),
    Operator(name="unwrap_call", kind="call", edits=expr.unwrap_call),
    Operator(name="swap_elements", kind="order", edits=expr.swap_elements),
    Operator(name="swap_statements", kind="order", edits=stmt.swap_statements),
    Operator(name="change_index", kind="index", edits=expr.change_index),
    Operator(name="change_string", kind="string", edits=expr.change_string),
    Operator(name="wrong_return", kind="return", edits=stmt.wrong_return),
    Operator(name="early_return", kind="return", edits=stmt.early_return),
    Operator(name="swap_loop_flow", kind="loop", edits=stmt.swap_loop_flow),
    Operator(name="change_loop", kind="loop", edits=stmt.change_loop),
    Operator(name="indent_return", kind="loop", edits=stmt.indent_return),
    Operator(name="wrong_exception", kind="exception", edits=stmt.wrong_exception),
    Operator(name="reraise", kind="exception", edits=stmt.reraise),
    Operator(name="drop_statement", kind="statement", edits=stmt.drop_statement, removal=True),
    Operator(name="remove_guard", kind="branch", edits=stmt.remove_guard, removal=True),
    Operator(name="unwrap_block", kind="branch", edits=stmt.unwrap_block, removal=True),
    Operator(name="remove_else", kind="branch", edits=stmt.remove_else, removal=True),
    Operator(name="remove_handler", kind="branch", edits=stmt.remove_handler, removal=True),
    Operator(name="gut_block", kind="body", edits=stmt.gut_block, removal=True),
    Operator(name="drop_operand", kind="operand", edits=expr.drop_operand, removal=True),
    Operator(name="drop_argument", kind="argument", edits=expr.drop_argument, removal=True),
)
MAX_READ = 8_000_000
"""Characters of changed functions that are read to propose bugs of one: each edit is parsed with
all of it. A function that has more to change gives every n-th edit of each operator."""
KINDS = tuple(dict.fromkeys(op.kind for op in OPERATORS if not op.removal))
REMOVAL_KINDS = tuple(dict.fromkeys(op.kind for op in OPERATORS if op.removal))


def propose(source: str, function: FunctionInfo) -> list[Mutation]:
    """Every distinct mutation of one function, operators in order, positions in source order.

    Each result parses, differs from `source` in code (not in comments, docstrings or layout
    alone), keeps every byte outside the touched tokens, and changes at most `MAX_LINES` lines on
    either side. Of a very long function not every one is there (`MAX_READ`). [] when the function
    cannot be parsed on its own. For any language but Python these are small changes of single
    lines (`line_mutations`), not known to parse.
    """
    return PROPOSERS.get(language_of(function.path).name, propose_text)(source, function)


def propose_python(source: str, function: FunctionInfo) -> list[Mutation]:
    """What the operators on syntax trees make of a function, each result once."""
    lines = split_lines(source)
    first, last = function.start_line - 1, function.end_line
    before, text, after = ("".join(part) for part in _cut(lines, first, last))
    code = FunctionCode.cut(text)
    if code is None:
        return []
    original = parse_function(text)
    assert original is not None
    seen = {code_dump(original)}
    old = lines[first:last]
    found: list[Mutation] = []
    edits = {operator: [edit for edit in operator.edits(code) if edit] for operator in OPERATORS}
    every = -(-sum(map(len, edits.values())) * len(text) // MAX_READ)
    for operator in OPERATORS:
        for edit in edits[operator][:: max(every, 1)]:
            changed = code.apply(edit)
            span = _changed_lines(old, split_lines(changed))
            node = parse_function(changed) if 0 < max(span[1:]) <= stmt.MAX_LINES else None
            if node is None or not _runs(node):
                continue
            dump = code_dump(node)
            if dump not in seen:
                seen.add(dump)
                found.append(
                    Mutation(
                        operator=operator.name,
                        kind=operator.kind,
                        removal=operator.removal,
                        line=function.start_line + span[0],
                        before=before,
                        function=changed,
                        after=after,
                    )
                )
    return found


def by_operator(mutations: Iterable[Mutation]) -> dict[str, list[Mutation]]:
    """Mutations by the name of their operator, to draw operators evenly: wrong names are many."""
    found: dict[str, list[Mutation]] = {}
    for mutation in mutations:
        found.setdefault(mutation.operator, []).append(mutation)
    return found


def propose_text(source: str, function: FunctionInfo) -> list[Mutation]:
    """Changes of single lines of a function in any language, first line left alone."""
    lines = split_lines(source)
    found = []
    for row in range(function.start_line, function.end_line):
        before, after = "".join(lines[:row]), "".join(lines[row + 1 :])
        for operator, kind, removal, changed in line_mutations(lines[row]):
            found.append(
                Mutation(
                    operator=operator,
                    kind=kind,
                    removal=removal,
                    line=row + 1,
                    before=before,
                    function=changed,
                    after=after,
                )
            )
    return found


PROPOSERS: dict[str, Callable[[str, FunctionInfo], list[Mutation]]] = {"Python": propose_python}
"""By `Language.name`; any other language is changed line by line."""


def _cut(lines: list[str], first: int, last: int) -> tuple[list[str], list[str], list[str]]:
    return lines[:first], lines[first:last], lines[last:]


def _changed_lines(old: list[str], new: list[str]) -> tuple[int, int, int]:
    """(row of the first difference, old lines touched, new lines in their place)."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return start, len(old) - start - end, len(new) - start - end


def _runs(node: ast.AST) -> bool:
    """Whether the function also passes the compiler's later checks (`break` outside a loop...)."""
    module = ast.Module(body=[node], type_ignores=[])  # type: ignore[list-item]
    try:
        compile(module, "<function>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True
