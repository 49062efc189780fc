"""One function's text and syntax tree, with byte-exact positions for splicing."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from selfplay.repo.languages.python_source import is_docstring, parse, split_lines

NodeT = TypeVar("NodeT", bound=ast.AST)


@dataclass(frozen=True, slots=True)
class Splice:
    """Replace bytes `start:end` of the function's UTF-8 text by `text`."""

    start: int
    end: int
    text: str


Edit = tuple[Splice, ...]


def parse_function(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Tree of the text of one function, which may be indented; None when it is not just that."""
    shift = _shift(text)
    tree = parse("if 1:\n" * shift + text)
    body = tree.body if tree else []
    if shift and len(body) == 1 and isinstance(body[0], ast.If):
        body = body[0].body
    if len(body) == 1 and isinstance(body[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return body[0]
    return None


def _shift(text: str) -> int:
    """Lines put before an indented text to parse it."""
    return int(text[:1] in (" ", "\t"))


class FunctionCode:
    """A function cut out of its file: `FunctionCode.cut` gives None when it cannot be parsed.

    Positions of `ast` are (line, column in UTF-8 bytes); `span` turns them into byte offsets of
    `data`. A method is parsed below a dummy `if 1:` so that its indentation stays as it is.
    """

    def __init__(self, text: str, node: ast.FunctionDef | ast.AsyncFunctionDef, shift: int) -> None:
        self.data = text.encode("utf-8", "surrogateescape")
        self.node = node
        self.lines = [line.encode("utf-8", "surrogateescape") for line in split_lines(text)]
        self._starts = [0, *itertools.accumulate(len(line) for line in self.lines)]
        self._shift = shift
        self._nodes = list(self._walk(node.body))
        self.parents = {child: node for node in self._nodes for child in ast.iter_child_nodes(node)}

    @classmethod
    def cut(cls, text: str) -> FunctionCode | None:
        """Parse the text of one function (decorators included)."""
        node = parse_function(text)
        return cls(text, node, _shift(text)) if node else None

    def _walk(self, body: Sequence[ast.AST]) -> Iterator[ast.AST]:
        """Nodes in source order, leaving out docstrings, annotations and f-string innards.

        Positions inside f-strings are wrong before Python 3.12.
        """
        for index, node in enumerate(body):
            if index == 0 and isinstance(node, ast.stmt) and is_docstring(node):
                continue
            yield node
            if isinstance(node, ast.JoinedStr | ast.arguments):
                continue
            children = [
                child
                for name, value in ast.iter_fields(node)
                if name not in ("annotation", "returns", "decorator_list")
                for child in (value if isinstance(value, list) else [value])
                if isinstance(child, ast.AST)
            ]
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_docstring(node.body[0]):
                children = [child for child in children if child is not node.body[0]]
            for child in children:
                yield from self._walk([child])

    def nodes(self, kind: type[NodeT]) -> Iterator[NodeT]:
        """Nodes of one class in the body, in source order."""
        return (node for node in self._nodes if isinstance(node, kind))

    def blocks(self) -> Iterator[tuple[ast.AST, list[ast.stmt]]]:
        """(owner, statements) of every block of the function, without its docstring."""
        for owner in [self.node, *self._nodes]:
            for name in ("body", "orelse", "finalbody"):
                block = getattr(owner, name, None)
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    yield owner, block[1:] if is_docstring(block[0]) else block

    def row(self, lineno: int) -> int:
        """0-based row in the function of a line number of the tree."""
        return lineno - 1 - self._shift

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Byte offsets of a node."""
        assert isinstance(node, ast.expr | ast.stmt | ast.ExceptHandler | ast.keyword | ast.arg)
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self._starts[self.row(node.lineno)] + node.col_offset
        return start, self._starts[self.row(node.end_lineno)] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        """Source text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode("utf-8", "surrogateescape")

    def replace(self, node: ast.AST, text: str) -> Edit:
        """The edit that puts `text` in a node's place."""
        return (Splice(*self.span(node), text),)

    def swap(self, left: ast.AST, right: ast.AST) -> Edit:
        """The edit that exchanges two nodes."""
        return (*self.replace(left, self.text(right)), *self.replace(right, self.text(left)))

    def gap(self, start: int, end: int, pattern: str, new: str) -> Edit | None:
        """Replace the first match of `pattern` between two offsets, unless a comment lies there."""
        text = self.data[start:end].decode("utf-8", "surrogateescape")
        match = re.search(pattern, text)
        if match is None or "#" in text:
            return None
        first = start + len(text[: match.start()].encode("utf-8", "surrogateescape"))
        return (Splice(first, first + len(match.group().encode("utf-8", "surrogateescape")), new),)

    def between(self, left: ast.AST, right: ast.AST, pattern: str, new: str) -> Edit | None:
        """Replace the first match of `pattern` between two nodes."""
        return self.gap(self.span(left)[1], self.span(right)[0], pattern, new)

    def rows(self, statements: Sequence[ast.stmt]) -> tuple[int, int] | None:
        """Rows `first:last` of statements that have their lines for themselves, else None."""
        start, end = self.span(statements[0])[0], self.span(statements[-1])[1]
        assert statements[-1].end_lineno is not None
        first, last = self.row(statements[0].lineno), self.row(statements[-1].end_lineno)
        before = self.data[self._starts[first] : start]
        after = self.data[end : self._starts[last + 1]].strip()
        return None if before.strip() or (after and after[:1] != b"#") else (first, last + 1)

    def replace_rows(self, first: int, last: int, text: str = "") -> Edit:
        """Replace whole rows `first:last`."""
        return (Splice(self._starts[first], self._starts[last], text),)

    def indentation(self, row: int) -> str:
        """Leading white space of a row."""
        line = self.lines[row].decode("utf-8", "surrogateescape")
        return line[: len(line) - len(line.lstrip())]

    def ending(self, row: int) -> str:
        """Line ending of a row ("\\n" for a last line without one)."""
        line = self.lines[row].decode("utf-8", "surrogateescape")
        return line[len(line.rstrip("\r\n")) :] or "\n"

    def apply(self, edit: Iterable[Splice]) -> str:
        """The function's text after an edit of non-overlapping splices."""
        data = self.data
        for splice in sorted(edit, key=lambda s: s.start, reverse=True):
            data = (
                data[: splice.start]
                + splice.text.encode("utf-8", "surrogateescape")
                + data[splice.end :]
            )
        return data.decode("utf-8", "surrogateescape")
